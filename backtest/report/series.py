"""What charts draw of a run: lines thinned so that no extreme is lost, regime spans, trades.

A chart has about a thousand columns; a year has half a million bars. Every bucket keeps its lowest
and highest point in their order, so a drawdown or a spike survives any thinning.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.breakdown import STILL_OPEN, Breakdown, net_of
from backtest.report.texts import spaced
from backtest.run import Run
from core.model import MICROS_PER_UNIT, ExitReason, Records, Result
from strategies.regimes import Regime

POINTS_MAX = 4_000
CANDLES_MAX = 400
SPANS_MAX = 2_000
TRADES_MAX = 1_000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """A drawn line: times (unix ms), values, and how many there were before thinning."""

    ts: Ints
    values: Floats
    of: int


@dataclass(frozen=True)
class Bars:
    """Bars of one instrument: close times (unix ms) and prices."""

    ts: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    regime: Ints


@dataclass(frozen=True)
class Trade:
    """A round trip as a chart shows it, money in quote; ``closed_ts`` 0 while it is open."""

    book: str
    opened_ts: int
    closed_ts: int
    quantity: float
    entry: float
    price: float
    net: float
    regime: str
    exit: str
    why_in: str
    why_out: str


def _edges(length: int, buckets: int) -> Ints:
    """Where each of at most ``buckets`` equal runs of ``length`` places begins."""
    count = min(length, buckets)
    return np.arange(count, dtype=np.int64) * length // max(count, 1)


def extremes(values: Floats, points: int = POINTS_MAX) -> Ints:
    """Places of at most ``points`` values: first, last, and each bucket's lowest and highest."""
    length = len(values)
    if length <= points:
        return np.arange(length)
    size = -(-length // (points // 2 - 1))
    short = -length % size
    shaped = np.append(values, np.full(short, values[-1])).reshape(-1, size)
    base = np.arange(len(shaped)) * size
    low, high = base + shaped.argmin(axis=1), base + shaped.argmax(axis=1)
    kept = np.concatenate([[0, length - 1], low, high]).clip(max=length - 1)
    return np.unique(kept)


def thinned(ts: Ints, values: Floats) -> Line:
    """A line of at most ``POINTS_MAX`` points with every bucket's extremes kept."""
    at = extremes(values)
    return Line(ts[at], values[at], len(values))


def bars_of(parts: Breakdown, instrument: int) -> Bars:
    """All bars of one instrument."""
    run = parts.run
    at = np.flatnonzero(parts.is_bar & (run.block["instrument"] == instrument))
    prices = {name: run.block[name][at] for name in ("open", "high", "low", "close")}
    return Bars(ts=run.block["ts_known"][at], regime=run.track["regime"][at], **prices)


def price_line(bars: Bars) -> Line:
    """Closes; once thinned, each bucket's lowest low and highest high stand in for them."""
    if len(bars.ts) <= POINTS_MAX:
        return Line(bars.ts, bars.close, len(bars.ts))
    first = _edges(len(bars.ts), POINTS_MAX // 2 - 1)
    low, high = np.minimum.reduceat(bars.low, first), np.maximum.reduceat(bars.high, first)
    last = np.append(first[1:], len(bars.ts)) - 1
    falling = bars.close[last] < bars.open[first]
    ts = np.stack([bars.ts[first], bars.ts[(first + last) // 2]], axis=1).ravel()
    ends = np.where(falling, [high, low], [low, high]).T.ravel()
    ts, values = np.append(ts, bars.ts[-1]), np.append(ends, bars.close[-1])
    return Line(ts, values, len(bars.ts))


def regime_spans(bars: Bars) -> tuple[Ints, Ints]:
    """Edges (spans + 1) and codes of contiguous spans of one regime, at most ``SPANS_MAX``.

    Where there are more, each of ``SPANS_MAX`` equal stretches shows what most of its bars were.
    """
    if len(bars.ts) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    codes, ts = bars.regime, bars.ts
    first = np.append(0, np.flatnonzero(codes[1:] != codes[:-1]) + 1)
    if len(first) > SPANS_MAX:
        starts = _edges(len(codes), SPANS_MAX)
        counts = np.add.reduceat(codes[:, None] == np.arange(len(Regime)), starts, axis=0)
        most = counts.argmax(axis=1)
        kept = np.append(0, np.flatnonzero(most[1:] != most[:-1]) + 1)
        return np.append(ts[starts[kept]], ts[-1]), most[kept]
    return np.append(ts[first], ts[-1]), codes[first].astype(np.int64)


def equity_line(run: Run) -> Line:
    """Equity in quote."""
    return thinned(run.block["ts_known"], run.equity)


def exposure_line(run: Run) -> Line:
    """Gross notional over equity; without equity there is no such share, and it shows as 0."""
    equity, notional = run.track["equity_micros"], run.track["notional_micros"]
    share = np.divide(notional, equity, out=np.zeros(len(equity)), where=equity > 0)
    return thinned(run.block["ts_known"], share)


def busiest(parts: Breakdown, count: int) -> list[int]:
    """Places of the instruments that were traded most, in their own order."""
    turnover = [row.turnover_micros for row in parts.by_instrument]
    ranked = sorted(range(len(turnover)), key=lambda place: -turnover[place])
    return sorted(ranked[:count])


def trades_of(parts: Breakdown, instrument: int, most: int = TRADES_MAX) -> tuple[list[Trade], int]:
    """Round trips in one instrument, in time, and how many there were.

    At most ``most``: those that earned or lost most, and those still open.
    """
    name = parts.run.instruments[instrument]
    books = [b for b, book in enumerate(parts.run.books) if book.instrument == name]
    trips = parts.trips[np.isin(parts.trips["book"], books)]
    matters = np.abs(net_of(trips)) + np.where(trips["closed_ts"] == 0, 1 << 60, 0)
    chosen = np.sort(np.argsort(-matters, kind="stable")[:most])
    return _told(parts.run, trips[chosen]), len(trips)


def _told(run: Run, trips: Records) -> list[Trade]:
    why_in, why_out = (_reasons(run, trips, name) for name in ("decision", "decision_exit"))
    net = net_of(trips) / MICROS_PER_UNIT
    return [
        Trade(
            book=run.books[trip["book"]].name,
            opened_ts=int(trip["opened_ts"]),
            closed_ts=int(trip["closed_ts"]),
            quantity=float(trip["quantity"]),
            entry=float(trip["entry"]),
            price=float(trip["price"]),
            net=float(net[k]),
            regime=spaced(Regime(int(trip["regime"])).name.lower()),
            exit=_exit_name(int(trip["exit"])),
            why_in=why_in[k],
            why_out=why_out[k] if trip["exit"] == ExitReason.SIGNAL else "",
        )
        for k, trip in enumerate(trips)
    ]


def _exit_name(code: int) -> str:
    return "still open" if code == STILL_OPEN else spaced(ExitReason(code).name.lower())


def _reasons(run: Run, trips: Records, column: str) -> list[str]:
    """Text of the decision each trip points at, empty where none was told."""
    decisions = run.of(Result.DECISION)
    if len(decisions) == 0:
        return [""] * len(trips)
    numbers: Any = decisions["decision"]
    at = np.searchsorted(numbers, trips[column]).clip(max=len(numbers) - 1)
    codes = np.where(numbers[at] == trips[column], decisions["reason"][at], -1).tolist()
    books = [run.books[b].reasons for b in trips["book"]]
    return [reasons.get(code, "") for reasons, code in zip(books, codes, strict=True)]
