"""Allocation: the books' money adds up, each weight is the hand's, and none has seen the future."""

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import FREE, NO_LIMITS, bar_history, walk

from backtest.assemble import BookSetup, Setup
from backtest.portfolio.books import books_of, earned_daily
from backtest.portfolio.walk import equal_walk, figures
from backtest.portfolio.walk import walk as allocate
from backtest.portfolio.weights import Method, Terms, correlation, decorrelated, weigh
from backtest.replay import replay
from backtest.run import Run
from backtest.statistics import daily_equity, daily_returns
from core.engine import Book
from core.errors import ConfigError, DataError
from core.events import make_events
from core.instrument import Instrument
from core.model import MICROS_PER_UNIT, Kind
from markets.history import History, assemble
from risk.limits import Sizing, SizingRule
from strategies.trend import TREND

OWN = tuple(method for method in Method if method is not Method.HRP)


def funded(seed: int, price: float, length: int = 5_000) -> History:
    """A walk over four UTC days that settles funding every eight hours."""
    history = walk(length, seed=seed, scale=2e-3, price=price)
    ts = history.bars["ts_known"][479::480]
    funding = make_events(
        Kind.FUNDING,
        ts,
        rate=np.full(len(ts), 2e-4),
        interval_hours=np.full(len(ts), 8.0),
        settle_price=np.full(len(ts), np.nan),
    )
    return assemble([history.bars, funding], 60_000, history.quality)


@pytest.fixture(scope="module")
def traded() -> Run:
    terms = {**FREE, "fee_rate": 0.0005, "half_spread_bps": 1.0, "slippage_bps": 2.0, "lot": 0.001}
    sizing = Sizing(rule=SizingRule.EQUITY, value=0.2)
    books = tuple(
        BookSetup(
            book=Book(name=f"{fast}@{on}", strategy=TREND, instrument=on, params={"fast": fast}),
            sizing=sizing,
            limits=NO_LIMITS,
        )
        for fast, on in ((5, "X"), (9, "Y"), (14, "X"))
    )
    instruments = tuple(Instrument(name=name, **terms) for name in ("X", "Y"))
    setup = Setup(instruments=instruments, books=books, equity=10_000.0, limits=NO_LIMITS)
    return replay(setup, {"X": funded(3, 100.0), "Y": funded(4, 7.0)})


def test_the_books_add_up_to_the_account_to_the_micro(traded: Run) -> None:
    earned = earned_daily(traded)
    assert earned.shape == (4, 3)
    assert (earned != 0).all()
    equity = np.rint(daily_equity(traded) * MICROS_PER_UNIT).astype(np.int64)
    start = round(traded.equity_start * MICROS_PER_UNIT)
    np.testing.assert_array_equal(earned.sum(axis=1), np.diff(equity, prepend=start))


def test_with_equal_weights_the_books_earn_what_the_run_did(traded: Run) -> None:
    books = books_of([traded])
    assert books.names == ("5@X", "14@X", "9@Y"), "by instrument, as the engine keeps them"
    np.testing.assert_allclose(books.returns.mean(axis=1), daily_returns(traded), atol=1e-12)
    assert books.ends_ms()[0] % 86_400_000 == 0
    twice = books_of([traded, traded])
    assert (len(twice.names), twice.sharing.tolist()) == (6, [3] * 6)
    np.testing.assert_allclose(twice.returns.mean(axis=1), daily_returns(traded), atol=1e-12)


def test_runs_without_a_common_day_are_refused(traded: Run) -> None:
    block = traded.block.copy()
    block["ts_known"] += 30 * 86_400_000
    later = replace(traded, block=block)
    with pytest.raises(DataError, match="no day in common"):
        books_of([traded, later])


# --- weights by hand ---------------------------------------------------------------------


def standing(*deviations: float, days: int = 4) -> Any:
    """Returns that alternate about zero, orthogonal for two books, with these deviations."""
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]] * (days // 4))[:, : len(deviations)]
    return signs * np.array(deviations) / signs.std(axis=0, ddof=1)


def test_inverse_volatility_by_hand() -> None:
    found = weigh(standing(0.01, 0.03), Terms(method=Method.INVERSE_VOLATILITY))
    np.testing.assert_allclose(found, [0.75, 0.25])


def test_volatility_target_by_hand() -> None:
    window = standing(0.01, 0.01)
    forecast = math.sqrt(365) * 0.01 / math.sqrt(2)
    target = Terms(method=Method.VOLATILITY_TARGET, volatility=forecast / 4)
    np.testing.assert_allclose(weigh(window, target), [0.125, 0.125])
    calm = Terms(method=Method.VOLATILITY_TARGET, volatility=forecast * 4)
    np.testing.assert_allclose(weigh(window, calm), [0.5, 0.5], err_msg="never above gross_max")


def test_kelly_by_hand() -> None:
    """Two books without correlation: the share of each one's shrunk mean over its variance; a book
    that lost gets nothing."""
    window = standing(0.02, 0.04, days=100) + np.array([0.002, 0.001])
    expected = [
        0.25 * mean / deviation**2 * (s2 := (mean / deviation) ** 2) / (s2 + 1 / 100)
        for mean, deviation in ((0.002, 0.02), (0.001, 0.04))
    ]
    terms = Terms(method=Method.KELLY, gross_max=10.0)
    np.testing.assert_allclose(weigh(window, terms), expected, rtol=1e-6)
    losing = standing(0.02, 0.04, days=100) - np.array([0.002, -0.001])
    assert weigh(losing, terms)[0] == pytest.approx(0.0, abs=1e-12)
    capped = weigh(window * np.array([1.0, 1.0]), replace(terms, kelly_share=1.0, gross_max=0.1))
    assert capped.sum() == pytest.approx(0.1)


def test_hrp_of_two_books_is_inverse_variance_and_copies_are_no_trouble() -> None:
    found = weigh(standing(0.01, 0.02, days=40), Terms(method=Method.HRP))
    np.testing.assert_allclose(found, [0.8, 0.2])
    alike = np.repeat(standing(0.01, days=40), 3, axis=1)
    assert weigh(alike, Terms(method=Method.HRP)).sum() == pytest.approx(1.0)
    bet = weigh(alike + 1e-3, Terms(method=Method.KELLY, gross_max=9.0)).sum()
    alone = weigh(alike[:, :1] + 1e-3, Terms(method=Method.KELLY, gross_max=9.0)).sum()
    assert bet == pytest.approx(alone, rel=1e-3), "three copies are one bet"


def test_hrp_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skfolio.optimization", None)
    with pytest.raises(ConfigError, match="needs skfolio: install the research extra"):
        weigh(standing(0.01, 0.02), Terms(method=Method.HRP))


@pytest.mark.parametrize("method", [m for m in Method if m is not Method.EQUAL])
def test_a_book_that_stood_still_gets_nothing(method: Method) -> None:
    window = np.insert(standing(0.01, 0.02, days=40) + 1e-3, 1, 0.0, axis=1)
    found = weigh(window, Terms(method=method))
    assert found[1] == 0.0
    assert found[0] > 0
    assert weigh(np.zeros((9, 2)), Terms(method=method)).tolist() == [0.0, 0.0]


def test_correlated_books_are_scaled_down_together_and_others_are_not() -> None:
    """Two copies of one book at a limit of one half: sqrt((2 + 2 / 2) / 4) of their weights."""
    window = standing(0.01, 0.02, days=40)
    copies = np.c_[window[:, 0], window[:, 0], window[:, 1]]
    weights = np.array([0.3, 0.3, 0.4])
    found = decorrelated(weights, copies, 0.5)
    np.testing.assert_allclose(found, [0.3 * math.sqrt(0.75)] * 2 + [0.4])
    np.testing.assert_array_equal(decorrelated(weights, copies, 1.0), weights)
    np.testing.assert_allclose(correlation(copies)[0], [1.0, 1.0, 0.0], atol=1e-12)
    free = decorrelated(weights[1:], copies[:, 1:], 0.5)
    np.testing.assert_array_equal(free, weights[1:])


# --- walked through time -----------------------------------------------------------------


def drawn(days: int, books: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(5e-4, rng.uniform(0.002, 0.04, books), (days, books))


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(OWN),
    seed=st.integers(0, 999),
    cut=st.integers(31, 120),
    limit=st.sampled_from([0.1, 1.0]),
)
def test_the_future_changes_no_weight(method: Method, seed: int, cut: int, limit: float) -> None:
    returns = drawn(120, 4, seed)
    terms = Terms(method=method, lookback_days=30, every_days=5, correlation_max=limit)
    whole, part = allocate(returns, terms), allocate(returns[:cut], terms)
    np.testing.assert_array_equal(part.weights, whole.weights[: cut + 1])
    np.testing.assert_array_equal(part.known_days, whole.known_days[: cut + 1])
    assert (whole.known_days <= np.arange(121)).all()
    assert (whole.weights >= 0).all()
    assert (whole.weights.sum(axis=1) <= 1 + 1e-9).all()


def test_the_future_changes_no_weight_of_hrp() -> None:
    returns = drawn(100, 5, 7)
    terms = Terms(method=Method.HRP, lookback_days=40)
    whole, part = allocate(returns, terms), allocate(returns[:71], terms)
    np.testing.assert_array_equal(part.weights, whole.weights[:72])
    np.testing.assert_allclose(whole.weights.sum(axis=1), 1.0)


def test_a_shock_moves_the_weights_only_after_its_day() -> None:
    returns = np.tile(standing(0.01, 0.01), (15, 1))
    returns[40, 0] = 0.5
    terms = Terms(method=Method.INVERSE_VOLATILITY, lookback_days=20, every_days=1, buffer=0.0)
    found = allocate(returns, terms)
    np.testing.assert_allclose(found.weights[:41], 0.5)
    assert found.weights[41, 0] < 0.2
    assert found.known_days[41] == 41


def test_moving_weights_costs_and_equal_weights_cost_nothing() -> None:
    returns = np.tile(standing(0.01, 0.03), (5, 1))
    terms = Terms(method=Method.INVERSE_VOLATILITY, lookback_days=8, cost_bps=10.0)
    found = allocate(returns, terms)
    assert found.costs[8] == pytest.approx(0.5 * 10 / 1e4), "0.25 up and 0.25 down"
    assert found.costs.sum() == found.costs[8]
    np.testing.assert_allclose(
        found.returns, (found.weights[:-1] * returns).sum(axis=1) - found.costs
    )
    told = figures(found)
    assert told["days"] == 12
    assert (told["changes"], told["turnover"]) == (1, pytest.approx(0.5 * 365 / 12))
    assert figures(equal_walk(returns, terms))["costs"] == 0.0


def test_the_buffer_holds_back_small_changes_and_lets_large_ones_pass() -> None:
    returns = np.tile(standing(0.01, 0.03), (5, 1))
    terms = Terms(method=Method.INVERSE_VOLATILITY, lookback_days=8)
    np.testing.assert_allclose(allocate(returns, replace(terms, buffer=0.26)).weights, 0.5)
    assert allocate(returns, replace(terms, buffer=0.24)).weights[-1, 0] == pytest.approx(0.75)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(DataError, match="needs more than that"):
        allocate(drawn(30, 2, 1), Terms(lookback_days=30))
    for wrong in ({"lookback_days": 1}, {"cost_bps": -1.0}, {"gross_max": 0.0}):
        with pytest.raises(ConfigError):
            Terms(**wrong)
    for wrong in ({"kelly_share": 1.5}, {"correlation_max": 1.1}, {"buffer": math.nan}):
        with pytest.raises(ConfigError):
            Terms(**wrong)


def test_an_account_that_lost_all_cannot_be_allocated() -> None:
    history = bar_history([100.0] * 3_000, [100.0] * 1_500 + [40.0] * 1_500)
    setup = Setup(
        instruments=(Instrument(name="X", **FREE),),
        books=(
            BookSetup(
                book=Book(name="b", strategy=TREND, instrument="X", params={}), limits=NO_LIMITS
            ),
        ),
        limits=NO_LIMITS,
    )
    run = replay(setup, {"X": history})
    track = run.track.copy()
    track["equity_micros"][1_500:] = 0
    with pytest.raises(DataError, match="lost all"):
        books_of([replace(run, track=track)])
