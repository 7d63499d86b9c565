"""Resampling: buckets are whole, aligned, and agree with the bars they came from."""

from pathlib import Path

import numpy as np
import pytest
from candle_files import MINUTE, START, bars_at
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.model import Kind
from markets.candles import read_candles
from markets.resample import resample


def test_a_bucket_opens_first_closes_last_and_sums_volume() -> None:
    bar = resample(bars_at([0, 1, 2]), 3 * MINUTE).bars[0]
    prices = [bar[name] for name in ("open", "high", "low", "close", "volume")]
    assert prices == [100, 103, 99, 102, 303]
    assert (bar["ts_event"], bar["ts_known"]) == (START, START + 3 * MINUTE)


def test_a_bucket_with_a_bar_missing_counts_only_when_told() -> None:
    history = bars_at([0, 1, 2, 3, 5, 6, 7, 8])
    whole = resample(history, 3 * MINUTE)
    assert whole.bars["ts_event"].tolist() == [START, START + 6 * MINUTE]
    assert whole.quality.skipped == {"in an incomplete bucket": 2}
    assert len(resample(history, 3 * MINUTE, partial=True).bars) == 3


def test_quotes_are_untouched() -> None:
    coarse = resample(bars_at([0, 1, 2, 3]), 2 * MINUTE)
    quotes = coarse.events[coarse.events["kind"] == Kind.QUOTE]
    assert quotes["mark"].tolist() == [100, 101, 102, 103]
    assert "mark" in coarse.fields


def test_the_same_interval_is_the_same_history() -> None:
    history = bars_at([0, 1])
    assert resample(history, MINUTE) is history


@pytest.mark.parametrize("interval_ms", [MINUTE // 2, MINUTE * 3 // 2])
def test_a_finer_or_uneven_interval_is_refused(interval_ms: int) -> None:
    with pytest.raises(DataError, match="ask for a multiple"):
        resample(bars_at([0, 1]), interval_ms)


def test_bars_off_the_grid_are_refused() -> None:
    with pytest.raises(DataError, match="straddle"):
        resample(bars_at([1, 3, 5], 2 * MINUTE), 4 * MINUTE)


def test_no_whole_bucket_is_refused() -> None:
    with pytest.raises(DataError, match="no 5m bucket has all its 5 bars"):
        resample(bars_at([1, 2, 3]), 5 * MINUTE)


@given(st.lists(st.integers(0, 60), min_size=1, unique=True).map(sorted))
def test_resampling_in_two_steps_is_resampling_in_one(minutes: list[int]) -> None:
    history = bars_at(minutes)
    steps = resample(resample(history, 3 * MINUTE, partial=True), 15 * MINUTE, partial=True)
    once = resample(history, 15 * MINUTE, partial=True)
    assert steps.digest == once.digest


def test_recorded_minutes_make_the_recorded_five_minutes(market_data: Path) -> None:
    folder = market_data / "perps"
    minutes = read_candles(folder / "BTC_USDT_USDT-1m-futures.feather", interval="5m").bars
    assert len(minutes) == 8_639
    assert (minutes["ts_event"] % (5 * MINUTE) == 0).all()
    assert (np.diff(minutes["ts_event"]) == 5 * MINUTE).all()
