"""Regimes: each can be reached, none flickers, and none knows the future."""

from itertools import pairwise

import numpy as np
import pytest
from feature_drive import answers, bars, closes

from strategies.regimes import DEFAULTS, REGIME, Regime


def walk(returns, start=100.0):
    return closes(start * np.cumprod(1 + np.asarray(returns)))


def chance(count, scatter=0.001, seed=0, drift=0.0):
    return np.random.default_rng(seed).normal(drift, scatter, count)


def regimes(returns, **params):
    return answers(REGIME, walk(returns), **params).astype(int)


def switches(codes):
    return np.count_nonzero(np.diff(codes))


CALM = chance(600, seed=3)


@pytest.mark.parametrize(
    ("regime", "after"),
    [
        (Regime.TREND_UP, chance(200, drift=0.001)),
        (Regime.TREND_DOWN, chance(60, drift=-0.0005)),
        (Regime.RANGE, chance(200)),
        (Regime.HIGH_VOLATILITY, np.tile([0.003, -0.003], 100)),
        (Regime.CRASH, chance(60, drift=-0.003)),
    ],
)
def test_each_regime_is_reached(regime, after):
    codes = regimes(np.concatenate([CALM, after]))
    assert regime in codes[600:]
    assert codes[-1] == regime


def test_it_is_unknown_until_it_has_seen_enough():
    codes = regimes(CALM, warmup=80)
    assert (codes[:80] == Regime.UNKNOWN).all()
    assert (codes[80:] != Regime.UNKNOWN).all()


def test_a_crash_is_seen_on_its_own_bar_and_outlasts_it():
    codes = regimes(np.concatenate([CALM, [-0.08], chance(100)]))
    assert codes[599] != Regime.CRASH
    assert (codes[600:605] == Regime.CRASH).all()


def test_a_large_rise_is_no_crash():
    assert Regime.CRASH not in regimes(np.concatenate([CALM, [0.08], chance(100)]))


def test_a_fall_too_small_to_matter_is_no_crash_however_calm_it_was():
    fall = np.concatenate([chance(600, 1e-5), [-0.019], chance(100, 1e-5)])
    assert Regime.CRASH not in regimes(fall)
    assert Regime.CRASH in regimes(fall, crash_fall_min=0.01)


def test_a_trend_in_a_wild_market_is_high_volatility():
    wild = np.tile([0.006, 0.001, -0.002, 0.005], 25)
    codes = regimes(np.concatenate([CALM, wild]))
    assert Regime.HIGH_VOLATILITY in codes[600:640]
    assert codes[640] == Regime.HIGH_VOLATILITY


def test_a_noisy_edge_does_not_flicker():
    # The drift hangs about the level at which a trend begins.
    returns = chance(5000, seed=9, drift=0.00023)
    firm = regimes(returns)
    loose = regimes(returns, trend_leave=0.3, wild_leave=1.5, crash_leave=30.0, dwell=0.0)
    assert switches(firm) * 4 < switches(loose)


def test_no_regime_but_a_crash_cuts_another_short():
    codes = regimes(chance(20_000, seed=4, drift=0.0001))
    starts = np.flatnonzero(np.diff(codes)) + 1
    for before, after in pairwise(starts):
        assert after - before >= DEFAULTS["dwell"] or codes[after] == Regime.CRASH


def test_a_prefix_gives_the_same_codes():
    market = bars(3000, seed=8)
    whole = answers(REGIME, market)
    for cut in (1, 2, 61, 700, 2999):
        np.testing.assert_array_equal(answers(REGIME, market[:cut]), whole[:cut])


def test_the_scale_of_the_price_does_not_matter():
    returns = chance(3000, seed=5, scatter=0.004)
    ours = answers(REGIME, walk(returns, 2.0**20))
    np.testing.assert_array_equal(ours, answers(REGIME, walk(returns, 2.0**-20)))


def test_a_missing_price_keeps_the_regime():
    market = walk(CALM)
    market["close"][300:310] = [np.nan, np.inf, 0, -1] * 2 + [np.nan] * 2
    codes = answers(REGIME, market)
    assert (codes[300:310] == codes[299]).all()
    assert codes[300] != Regime.UNKNOWN


def test_a_flat_price_is_a_range():
    assert (answers(REGIME, closes(np.full(300, 5.0)))[100:] == Regime.RANGE).all()


def test_most_of_a_random_walk_is_a_range():
    codes = regimes(chance(50_000, seed=1))
    shares = np.bincount(codes, minlength=6) / len(codes)
    assert shares[Regime.RANGE] > 0.7
    assert shares[Regime.HIGH_VOLATILITY] < 0.01
    assert shares[Regime.CRASH] < 0.002
