"""Drift's units: what a person reads is what is sent, and three forms of funding agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markets.drift.units import (
    base_from_chain,
    base_to_chain,
    funding_from_chain,
    funding_from_decimal,
    funding_from_stats,
    price_from_chain,
    price_to_chain,
    quote_from_chain,
)


def test_the_three_forms_of_one_funding_rate_agree() -> None:
    # 0.0015 quote per base on an oracle of 150: longs pay 0.001 % per hour
    rate = 1e-5
    assert funding_from_chain(1_500_000, 150_000_000) == pytest.approx(rate)
    assert funding_from_decimal(0.0015, 150.0) == pytest.approx(rate)
    assert funding_from_stats(-0.001) == pytest.approx(rate)


def test_integers_become_units() -> None:
    assert price_from_chain(150_100_000) == 150.1
    assert base_from_chain(-2_500_000_000) == -2.5
    assert quote_from_chain(-1_000_000) == -1.0


def test_what_a_person_reads_is_what_is_sent() -> None:
    assert price_to_chain(150.1, 100, buying=True) == 150_100_000
    assert base_to_chain(0.3, 10_000_000) == 300_000_000


@pytest.mark.parametrize(
    ("buying", "sent"), [(True, 150_100_000), (False, 150_200_000)], ids=["buying", "selling"]
)
def test_a_price_off_the_tick_moves_to_our_side(buying: bool, sent: int) -> None:
    assert price_to_chain(150.123456, 100_000, buying=buying) == sent


@given(st.integers(1, 10**13), st.sampled_from([1, 100, 1000]), st.booleans())
def test_a_price_on_the_grid_goes_out_and_comes_back(ticks: int, tick: int, buying: bool) -> None:
    chain = ticks % 10**9 * tick + tick
    assert price_to_chain(price_from_chain(chain), tick, buying=buying) == chain


@given(st.integers(1, 10**7), st.integers(0, 10**7), st.sampled_from([0.01, 0.001, 1e-4, 1e-5]))
def test_sums_of_lots_are_sent_as_the_lots_they_mean(held: int, sold: int, lot: float) -> None:
    step, left = round(lot * 1e9), held - min(held, sold)
    assert base_to_chain(held * lot, step) == held * step
    assert base_to_chain(left * lot, step) == left * step


@given(st.floats(-1e-2, 1e-2), st.integers(10**3, 10**12))
def test_a_funding_rate_is_one_in_all_three_forms(rate: float, oracle: int) -> None:
    chain = round(rate * oracle / 1e6 * 1e9)
    # half of a unit of the chain's
    within = pytest.approx(rate, rel=1e-9, abs=0.51 / 1e9 / (oracle / 1e6))
    assert funding_from_chain(chain, oracle) == within
    assert funding_from_decimal(rate * oracle / 1e6, oracle / 1e6) == pytest.approx(rate)
    assert funding_from_stats(-100 * rate) == pytest.approx(rate)
