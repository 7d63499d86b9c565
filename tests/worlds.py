"""Small markets and setups for tests: bars from a list of prices, books from a strategy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any

import numpy as np

from backtest.assemble import BookSetup, Setup
from backtest.replay import replay
from backtest.run import Run
from backtest.sweep.sweep import Subject
from core.engine import Book
from core.events import make_events
from core.instrument import Instrument
from core.model import Kind
from core.strategy import Param, Strategy
from markets.history import History, Quality, assemble, make_bars
from risk.limits import Limits, Sizing, SizingRule
from strategies.trend import TREND

MINUTE = 60_000
START = 1_746_316_800_000  # 2025-05-04 00:00 UTC, a day's first moment

FREE = {
    "fee_rate": 0.0,
    "fee_rate_maker": 0.0,
    "half_spread_bps": 0.0,
    "slippage_bps": 0.0,
    "participation": 1.0,
    "leverage": 1.0,
    "maintenance": 0.0,
}
NO_LIMITS = Limits(
    leverage_max=0.0,
    daily_loss=0.0,
    daily_loss_soft=0.0,
    drawdown=0.0,
    drawdown_soft=0.0,
    collar=0.0,
    data_age_ms_max=0.0,
    orders_per_minute_max=0.0,
)


def bar_history(
    opens: Sequence[float],
    closes: Sequence[float],
    *,
    highs: Sequence[float] | None = None,
    lows: Sequence[float] | None = None,
    volume: float = 1e9,
    start: int = START,
    extra: Sequence[Any] = (),
) -> History:
    """One-minute bars; highs and lows follow the body when not given."""
    o, c = np.asarray(opens, float), np.asarray(closes, float)
    times = start + MINUTE * np.arange(len(o), dtype=np.int64)
    bars = make_bars(
        times,
        MINUTE,
        open=o,
        high=np.maximum(o, c) if highs is None else np.asarray(highs, float),
        low=np.minimum(o, c) if lows is None else np.asarray(lows, float),
        close=c,
        volume=np.full(len(o), volume),
    )
    quality = Quality(rows_read=len(o), rows_used=len(o)).spanning(times, MINUTE)
    return assemble([bars, *extra], MINUTE, quality)


def walk(length: int, seed: int = 1, scale: float = 1e-3, price: float = 100.0) -> History:
    """A random walk of closes; every bar opens where the last one closed."""
    rng = np.random.default_rng(seed)
    closes = price * np.exp(np.cumsum(rng.normal(size=length) * scale))
    opens = np.r_[price, closes[:-1]]
    wiggle = np.abs(rng.normal(size=length)) * scale * closes
    return bar_history(
        opens,
        closes,
        highs=np.maximum(opens, closes) + wiggle,
        lows=np.minimum(opens, closes) - wiggle,
    )


def one_book(
    strategy: Strategy,
    *,
    params: Mapping[str, float] | None = None,
    sizing: Sizing | None = None,
    limits: Limits = NO_LIMITS,
    equity: float = 10_000.0,
    book: Mapping[str, Any] | None = None,
    **terms: Any,
) -> Setup:
    """One strategy on instrument X, free of costs and limits unless ``terms`` say otherwise."""
    instrument = Instrument(name="X", **{**FREE, **terms})
    entry = Book(
        name="book", strategy=strategy, instrument="X", params=params or {}, **(book or {})
    )
    sizing = sizing or Sizing(rule=SizingRule.QUANTITY, value=1.0)
    return Setup(
        instruments=(instrument,),
        books=(BookSetup(book=entry, sizing=sizing, limits=limits),),
        equity=equity,
        limits=limits,
    )


class ScriptReason(IntEnum):
    """The only reason a script has."""

    SCRIPTED = 0


def _follow(f: Any, _position: Any, _p: Any) -> tuple[float, float, int]:
    return f.signal, 1.0, 0


SCRIPT = Strategy(
    name="script",
    decide=_follow,
    reasons=ScriptReason,
    # a field no costs or checks read carries the targets
    features={"signal": "open_interest"},
    params={name: Param(0, 0, 1) for name in ("take_profit", "stop_loss", "trailing_stop")},
)


def scripted(
    targets: Sequence[float], opens: Sequence[float], closes: Sequence[float], **bars: Any
) -> History:
    """Bars at whose closes SCRIPT decides these targets."""
    times = bars.get("start", START) + MINUTE * np.arange(1, len(targets) + 1, dtype=np.int64)
    quotes = make_events(Kind.QUOTE, times, open_interest=np.asarray(targets, float))
    extra = [quotes, *bars.pop("extra", ())]
    return bar_history(opens, closes, extra=extra, **bars)


def play(history: History, setup: Setup, **more: Any) -> Run:
    """Replay one history on instrument X."""
    return replay(setup, {"X": history}, **more)


def subject(*histories: History, strategy: Strategy = TREND, **terms: Any) -> Subject:
    """What is swept: one book an instrument, X, Y, ..., with costs."""
    names = [chr(ord("X") + place) for place in range(len(histories))]
    setup = one_book(strategy, **{"fee_rate": 5e-4, "slippage_bps": 2.0, **terms})
    (entry,), (instrument,) = setup.books, setup.instruments
    books = tuple(
        replace(entry, book=replace(entry.book, name=f"on {name}", instrument=name))
        for name in names
    )
    setup = replace(
        setup, books=books, instruments=tuple(replace(instrument, name=name) for name in names)
    )
    return Subject(
        setup=setup,
        books=frozenset(entry.book.name for entry in books),
        histories=dict(zip(names, histories, strict=True)),
    )
