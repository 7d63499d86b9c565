"""Drift's conversions over their whole range: back within a tick, and no size rounded up."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from markets.drift.units import (
    BASE_PRECISION,
    FUNDING_PRECISION,
    PRICE_PRECISION,
    base_from_chain,
    base_to_chain,
    funding_from_chain,
    funding_from_decimal,
    funding_from_stats,
    price_from_chain,
    price_to_chain,
)

TICKS = st.sampled_from([1, 10, 100, 1_000, 10_000])
STEPS = st.sampled_from([1, 10**5, 10**7, 10**8])


@given(price=st.floats(1e-6, 2**63 / PRICE_PRECISION), tick=TICKS, buying=st.booleans())
def test_a_price_comes_back_within_a_tick_and_on_our_side(
    price: float, tick: int, *, buying: bool
) -> None:
    sent = price_to_chain(price, tick, buying=buying)
    read, meant = Fraction(price_from_chain(sent)), Fraction(repr(price))
    assert sent % tick == 0
    assert abs(read - meant) < Fraction(tick, PRICE_PRECISION) + Fraction(math.ulp(price))
    exact = Fraction(sent, PRICE_PRECISION)
    assert exact <= meant if buying else exact >= meant


@given(st.integers(0, 2**63 - 1))
def test_every_integer_price_of_the_chain_is_read_to_the_last_digit_a_float_has(price: int) -> None:
    assert abs(Fraction(price_from_chain(price)) - Fraction(price, PRICE_PRECISION)) <= Fraction(
        price, PRICE_PRECISION * 2**52
    )


@given(st.floats(-(2**63) / BASE_PRECISION, 2**63 / BASE_PRECISION), STEPS)
def test_a_size_comes_back_within_a_step_and_is_never_rounded_up(size: float, step: int) -> None:
    sent = base_to_chain(size, step)
    read, meant = Fraction(base_from_chain(sent)), Fraction(repr(size))
    ulp = Fraction(math.ulp(size))
    assert sent % step == 0
    assert abs(read - meant) < Fraction(step, BASE_PRECISION) + ulp
    # all that is granted are the last places of the float itself, and never half a step
    granted = min(4 * ulp, Fraction(step, 2 * BASE_PRECISION))
    assert abs(Fraction(sent, BASE_PRECISION)) <= abs(meant) + granted


@given(st.integers(0, 10**18), STEPS)
def test_a_size_on_the_grid_goes_out_and_comes_back(steps: int, step: int) -> None:
    sent = steps // step * step
    size = base_from_chain(sent)
    # as far as a float tells one step from the next
    assume(math.ulp(size) * BASE_PRECISION < step / 8)
    assert base_to_chain(size, step) == sent
    assert base_to_chain(-size, step) == -sent


@given(st.integers(-(2**53), 2**53), st.integers(1, 10**13))
def test_the_chain_and_the_decimals_tell_one_rate(rate: int, oracle: int) -> None:
    told = funding_from_chain(rate, oracle)
    decimal = funding_from_decimal(rate / FUNDING_PRECISION, oracle / PRICE_PRECISION)
    assert told == pytest.approx(decimal, rel=1e-15)
    back = told * (oracle / PRICE_PRECISION) * FUNDING_PRECISION
    assert back == pytest.approx(rate, rel=1e-12, abs=1)
    assert np.sign(told) == np.sign(rate)


@given(st.floats(-100, 100))
def test_percent_of_the_longs_is_the_opposite_of_what_they_pay(percent: float) -> None:
    rate = funding_from_stats(percent)
    assert -rate * 100 == pytest.approx(percent)
    # whoever mistakes one for another is off by a hundred and by the sign
    assert rate * percent <= 0
