"""The trend flip agrees trade by trade with an independent engine, backtesting.py."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from backtesting import Backtest, Strategy
from backtesting.test import EURUSD
from worlds import bar_history, one_book, play

from backtest.run import Run
from core.model import Kind, Result
from markets.candles import read_candles
from markets.history import History
from strategies.trend import TREND

FAST, SLOW = 20, 50
HUGE = 1e9


def exact_mean(values: Any, window: int) -> np.ndarray:
    """Each window summed on its own: slow, independent of any running sum."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(values, float), window)
    return np.r_[np.full(window - 1, np.nan), [np.sum(w) / window for w in windows]]


class Flip(Strategy):
    def init(self) -> None:
        self.fast = self.I(exact_mean, self.data.Close, FAST)
        self.slow = self.I(exact_mean, self.data.Close, SLOW)

    def next(self) -> None:
        gap = self.fast[-1] - self.slow[-1]
        # a tie in exact arithmetic is one here too: hold
        if abs(gap) < 1e-9 * self.slow[-1]:
            return
        if gap > 0 and not self.position.is_long:
            self.position.close()
            self.buy(size=1)
        elif gap < 0 and not self.position.is_short:
            self.position.close()
            self.sell(size=1)


def theirs(history: History) -> pd.DataFrame:
    bars = history.bars
    frame = pd.DataFrame(
        {name.capitalize(): bars[name] for name in ("open", "high", "low", "close", "volume")},
        index=pd.to_datetime(bars["ts_event"], unit="ms"),
    )
    engine = Backtest(frame, Flip, cash=HUGE, commission=0.0, trade_on_close=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some trades remain open")
        stats = engine.run()
    return stats["_trades"].sort_values("EntryTime").reset_index(drop=True)


def ours(history: History) -> Run:
    setup = one_book(TREND, equity=HUGE, tick=1e-5, book={"offset": 0.5})
    return play(history, setup)


def closed(run: Run) -> np.ndarray:
    assert len(run.of(Result.CANCELLED)) == 0
    return run.trades


def agree(history: History) -> int:
    expected, trades = theirs(history), closed(ours(history))
    bars = history.bars
    open_at = dict(zip(bars["ts_known"].tolist(), bars["ts_event"].tolist(), strict=True))
    assert len(trades) == len(expected)
    entry = pd.to_datetime([open_at[int(t)] for t in trades["opened_ts"]], unit="ms")
    leave = pd.to_datetime([open_at[int(t)] for t in trades["ts"]], unit="ms")
    # it skips the first bar on which both averages exist, so its first entry is one bar late
    assert expected["EntryTime"][0] - entry[0] <= pd.Timedelta(minutes=1)
    np.testing.assert_array_equal(entry[1:], expected["EntryTime"][1:])
    np.testing.assert_array_equal(leave, expected["ExitTime"])
    np.testing.assert_array_equal(np.sign(trades["quantity"]), np.sign(expected["Size"]))
    first, rest = trades[:1], trades[1:]
    assert first["quantity"][0] in (1.0, -1.0)
    np.testing.assert_allclose(rest["entry"], expected["EntryPrice"][1:], rtol=0, atol=1e-6)
    np.testing.assert_allclose(trades["price"], expected["ExitPrice"], rtol=0, atol=1e-6)
    earned = rest["amount_micros"] / 1e6
    np.testing.assert_allclose(earned, expected["PnL"][1:], rtol=0, atol=3e-6)
    return len(trades)


@pytest.mark.parametrize("symbol", ["BTC", "SOL"])
def test_the_trend_flip_agrees_on_real_minutes(symbol: str, market_data: Path) -> None:
    history = read_candles(market_data / "perps" / f"{symbol}_USDT_USDT-1m-futures.feather")
    assert agree(history) > 900


def test_the_trend_flip_agrees_on_euro_candles() -> None:
    frame = EURUSD
    history = bar_history(
        frame["Open"], frame["Close"], highs=frame["High"], lows=frame["Low"], volume=1e9
    )
    assert (history.events["kind"] == Kind.BAR).sum() == len(frame)
    assert agree(history) > 80
