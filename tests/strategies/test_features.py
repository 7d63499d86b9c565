"""Indicators against TA-Lib and numpy; their warm-up, their memory, and what missing inputs do."""

import os
import subprocess
import sys
from pathlib import Path

import feature_drive
import numpy as np
import pytest
import talib
from feature_drive import ALL, answers, bars, closes, digests, gappy, run
from hypothesis import given, settings
from hypothesis import strategies as draw
from numpy.lib.stride_tricks import sliding_window_view

from core.errors import ConfigError
from strategies.features import FEATURES

ROOT = Path(__file__).parents[2]


def same(ours, theirs, tolerance=1e-9):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=1e-10)


def windows(values, n):
    return sliding_window_view(values, n)


def padded(values, count):
    return np.concatenate([np.full(count - len(values), np.nan), values])


TALIB = {
    "sma": lambda b, n: talib.SMA(b["close"], n),
    "volume_mean": lambda b, n: talib.SMA(b["volume"], n),
    "ema": lambda b, n: talib.EMA(b["close"], n),
    "change": lambda b, n: talib.MOM(b["close"], n),
    "returns": lambda b, n: talib.ROCP(b["close"], n),
    "roc": lambda b, n: talib.ROC(b["close"], n),
    "rsi": lambda b, n: talib.RSI(b["close"], n),
    "atr": lambda b, n: talib.ATR(b["high"], b["low"], b["close"], n),
    "plus_di": lambda b, n: talib.PLUS_DI(b["high"], b["low"], b["close"], n),
    "minus_di": lambda b, n: talib.MINUS_DI(b["high"], b["low"], b["close"], n),
    "adx": lambda b, n: talib.ADX(b["high"], b["low"], b["close"], n),
    "bollinger_upper": lambda b, n: talib.BBANDS(b["close"], n)[0],
    "bollinger_middle": lambda b, n: talib.BBANDS(b["close"], n)[1],
    "bollinger_lower": lambda b, n: talib.BBANDS(b["close"], n)[2],
    "rolling_max": lambda b, n: talib.MAX(b["close"], n),
    "rolling_min": lambda b, n: talib.MIN(b["close"], n),
    "donchian_upper": lambda b, n: talib.MAX(b["high"], n),
    "donchian_lower": lambda b, n: talib.MIN(b["low"], n),
    "williams_r": lambda b, n: talib.WILLR(b["high"], b["low"], b["close"], n),
}

NUMPY = {
    "lag": lambda b, n: b["close"][:-n],
    "log_return": lambda b, n: np.log(b["close"][n:] / b["close"][:-n]),
    "std": lambda b, n: windows(b["close"], n).std(axis=1),
    "zscore": lambda b, n: (
        (b["close"][n - 1 :] - windows(b["close"], n).mean(axis=1))
        / windows(b["close"], n).std(axis=1)
    ),
    "realized_vol": lambda b, n: windows(np.diff(np.log(b["close"])), n).std(axis=1),
    "realized_vol_annual": lambda b, n: (
        windows(np.diff(np.log(b["close"])), n).std(axis=1) * np.sqrt(525_600)
    ),
    "drawdown": lambda b, n: 1 - b["close"][n - 1 :] / windows(b["close"], n).max(axis=1),
    "volume_z": lambda b, n: (
        (b["volume"][n:] - windows(b["volume"], n)[:-1].mean(axis=1))
        / windows(b["volume"], n)[:-1].std(axis=1)
    ),
}


@pytest.mark.parametrize("name", TALIB)
@settings(max_examples=8, deadline=None)
@given(seed=draw.integers(0, 10**6), window=draw.integers(2, 60))
def test_equals_talib(name, seed, window):
    market = bars(400, seed)
    same(answers(FEATURES[name], market, window=window), TALIB[name](market, window))


@pytest.mark.parametrize("name", NUMPY)
@settings(max_examples=8, deadline=None)
@given(seed=draw.integers(0, 10**6), window=draw.integers(2, 60))
def test_equals_numpy(name, seed, window):
    market = bars(400, seed)
    same(answers(FEATURES[name], market, window=window), padded(NUMPY[name](market, window), 400))


def test_true_range_equals_talib():
    market = bars(300)
    same(
        answers(FEATURES["true_range"], market),
        talib.TRANGE(market["high"], market["low"], market["close"]),
    )


@settings(max_examples=8, deadline=None)
@given(seed=draw.integers(0, 10**6), fast=draw.integers(2, 40), slow=draw.integers(2, 40))
def test_macd_equals_talib(seed, fast, slow):
    market = bars(300, seed)
    line, signal, histogram = talib.MACD(market["close"], fast, slow, 9)
    ours = answers(FEATURES["macd"], market, fast=fast, slow=slow)
    both = ~np.isnan(line)
    same(ours[both], line[both])
    assert np.argmax(~np.isnan(ours)) + 1 == max(fast, slow)
    same(answers(FEATURES["macd_signal"], market, fast=fast, slow=slow), signal)
    same(answers(FEATURES["macd_histogram"], market, fast=fast, slow=slow), histogram)


def test_drawdown_since_the_start():
    close = bars(500)["close"]
    ours = answers(FEATURES["drawdown"], closes(close))
    same(ours, 1 - close / np.maximum.accumulate(close))


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_warmup_is_exact(name, factor):
    feature = ALL[name]
    params = {k: max(1, v) * factor if k != "width" else v for k, v in feature.params.items()}
    wanted = feature.warmup(params)
    ours = answers(feature, bars(wanted + 50), **params)
    assert np.isnan(ours[: wanted - 1]).all()
    assert not np.isnan(ours[wanted - 1 :]).any()


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_window_of_one_works_where_there_is_one(name):
    feature = ALL[name]
    if "window" in feature.params:
        ours = answers(feature, bars(50), window=1)
        wanted = feature.warmup({**feature.params, "window": 1})
        assert np.isnan(ours[: wanted - 1]).all()


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_missing_bar_is_skipped_and_leaves_no_mark(name):
    feature = ALL[name]
    market = bars(400)
    holes = np.zeros(400, bool)
    holes[[0, 3, 50, 51, 52, 200]] = True
    torn = market.copy()
    for field in (feature.source, *feature.reads):
        if field:
            torn[field][holes] = np.nan
    torn["bid"][holes] = np.nan
    ours = answers(feature, torn)
    np.testing.assert_array_equal(ours[~holes], answers(feature, market[~holes]))
    if name != "regime":
        assert np.isnan(ours[holes]).all()


@pytest.mark.parametrize("name", sorted(ALL))
def test_one_infinite_bar_does_not_poison_what_follows(name):
    feature = ALL[name]
    market = bars(400)
    for field in market.dtype.names:
        market[field][20] = np.inf
    assert np.isfinite(answers(feature, market)[100:]).all()


@pytest.mark.parametrize("name", ["sma", "std", "zscore", "bollinger_upper", "rolling_max"])
def test_what_is_older_than_two_windows_is_forgotten(name):
    calm = bars(300)["close"]
    shocked = calm.copy()
    shocked[100] = 1e15
    ours = answers(FEATURES[name], closes(shocked))[140:]
    same(ours, answers(FEATURES[name], closes(calm))[140:], 1e-12)


@pytest.mark.parametrize("spike", [1e3, 1e9])
def test_deviation_stays_exact_after_a_spike_and_on_a_high_plateau(spike):
    chance = np.random.default_rng(1)
    values = 1e6 + chance.normal(0, 1e-3, 2000)
    values[500] = values[777] = spike
    values[1000:1100] = 5.0
    ours = answers(FEATURES["std"], closes(values), window=50)
    same(ours, padded(windows(values, 50).std(axis=1), 2000), 1e-6)
    assert (ours[1049:1100] == 0).all()


def test_rounding_does_not_grow_with_the_length_of_the_run():
    values = np.random.default_rng(2).lognormal(0, 6, 200_000)
    ours = answers(FEATURES["sma"], closes(values), window=7)
    exact = padded(windows(values, 7).mean(axis=1), len(values))
    error = np.abs(ours - exact) / padded(windows(values, 13).max(axis=1), len(values))
    assert np.nanmax(error) < 1e-14


def test_a_flat_series_has_stated_answers():
    flat = closes(np.full(100, 3.7))
    last = {name: answers(FEATURES[name], flat)[-1] for name in FEATURES}
    assert last["rsi"] == 50
    assert last["std"] == last["zscore"] == last["realized_vol"] == last["atr"] == 0
    assert last["adx"] == last["plus_di"] == last["minus_di"] == last["volume_z"] == 0
    assert last["bollinger_upper"] == last["bollinger_lower"] == 3.7
    assert np.isnan(last["williams_r"])
    assert np.isnan(last["body_over_atr"])


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_a_window_below_one_bar_is_refused(name):
    feature = FEATURES[name]
    if "window" not in feature.params:
        return
    chosen = {**feature.params, "window": -1}
    with pytest.raises(ConfigError, match="window must be at least 1 bar, got -1"):
        feature.warmup(chosen)


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_feature_says_what_it_is_and_reads_known_fields(name):
    feature = ALL[name]
    assert feature.name == name
    assert feature.unit
    assert feature.about.endswith(".")
    assert feature().fields <= set(bars(1).dtype.names)


@pytest.mark.parametrize("name", sorted(ALL))
def test_memory_has_no_unused_cell(name):
    feature = ALL[name]
    memory = run(feature, bars(400))[1]
    assert len(memory) == 1 or memory[-1] != 0


def test_compiled_and_interpreted_agree_byte_for_byte():
    interpreted = subprocess.run(
        [sys.executable, "-W", "error", feature_drive.__file__],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert interpreted.returncode == 0, interpreted.stderr
    for ours, theirs in zip(digests(), interpreted.stdout.split("\n"), strict=True):
        assert ours == theirs, ours.split(" ", maxsplit=1)[0]


def test_answers_over_gappy_bars_are_never_infinite():
    for feature in FEATURES.values():
        assert not np.isinf(answers(feature, gappy(2000))).any(), feature.name


def test_a_window_of_a_fraction_of_a_bar_is_refused() -> None:
    with pytest.raises(ConfigError, match="whole number of bars"):
        FEATURES["sma"](window=2.5).warmup()
