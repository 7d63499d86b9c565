"""Bars from trades: one aggregator a trade at a time for live, one over arrays for history.

Both give the same bars from the same trades in the same order of arrival, which a property test
proves; a live journal can therefore be replayed from recorded trades.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from core.model import Records
from markets.history import Flags, Floats, Times, make_bars


class TradeBar(NamedTuple):
    """A closed bar; ``open_ms`` is its open time."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class TradeBars:
    """Folds trades into bars aligned to the UTC epoch.

    Within the open bar trades may come in any order: the earliest opens it, the latest closes it. A
    trade older than the open bar is counted in ``late``, an impossible one in ``refused``; both are
    left out. With ``fill_empty`` an interval without a trade gives a flat bar of no volume.
    """

    def __init__(self, interval_ms: int, *, fill_empty: bool = False) -> None:
        assert interval_ms > 0, interval_ms
        self.interval_ms, self.fill_empty = interval_ms, fill_empty
        self.late = self.refused = 0
        self._bar: TradeBar | None = None
        self._span = (0, 0)
        # open time of the earliest bar that may still take a trade, and the last close before it
        self._next = -(2**63)
        self._last = math.nan

    @property
    def standing(self) -> TradeBar | None:
        """The open bar as it stands."""
        return self._bar

    def push(self, ts_ms: int, price: float, size: float) -> list[TradeBar]:
        """Add a trade (unix ms, quote per unit, units); the bars it closed, oldest first."""
        if not (0 < price < math.inf and 0 < size < math.inf):
            self.refused += 1
            return []
        start = ts_ms - ts_ms % self.interval_ms
        if start < self._next:
            self.late += 1
            return []
        if self._bar is not None and start == self._bar.open_ms:
            self._add(self._bar, ts_ms, price, size)
            return []
        closed = list(self._close_before(start))
        self._bar, self._span = TradeBar(start, price, price, price, price, size), (ts_ms, ts_ms)
        return closed

    def advance(self, now_ms: int) -> list[TradeBar]:
        """The bars whose close time is at or before ``now_ms``, though no trade has ended them."""
        return list(self._close_before(now_ms - now_ms % self.interval_ms))

    def flush(self) -> list[TradeBar]:
        """The open bar, if any, as it stands; for the end of a recording."""
        return [] if self._bar is None else self.advance(self._bar.open_ms + self.interval_ms)

    def _add(self, bar: TradeBar, ts_ms: int, price: float, size: float) -> None:
        earliest, latest = self._span
        self._span = min(earliest, ts_ms), max(latest, ts_ms)
        self._bar = TradeBar(
            bar.open_ms,
            price if ts_ms < earliest else bar.open,
            max(bar.high, price),
            min(bar.low, price),
            price if ts_ms >= latest else bar.close,
            bar.volume + size,
        )

    def _close_before(self, start: int) -> Iterator[TradeBar]:
        """End the open bar and, when filling, every empty one that ends by ``start``."""
        if self._bar is not None and self._bar.open_ms < start:
            yield self._bar
            self._last, self._next = self._bar.close, self._bar.open_ms + self.interval_ms
            self._bar = None
        if self.fill_empty and not math.isnan(self._last):
            for at in range(self._next, start, self.interval_ms):
                yield TradeBar(at, self._last, self._last, self._last, self._last, 0.0)
        self._next = max(self._next, start)


class BuiltBars(NamedTuple):
    """BAR events, and how many trades were left out as late or as impossible."""

    bars: Records
    late: int
    refused: int


def bars_from_trades(
    ts: Times, price: Floats, size: Floats, interval_ms: int, *, fill_empty: bool = False
) -> BuiltBars:
    """What ``TradeBars`` gives for the same trades, flushed; the three arrays are of one length."""
    good = (price > 0) & (price < np.inf) & (size > 0) & (size < np.inf)
    starts = ts - ts % interval_ms
    on_time = good.copy()
    on_time[good] = starts[good] >= np.maximum.accumulate(starts[good])
    late, refused = int((good & ~on_time).sum()), int((~good).sum())
    ts, price, size, starts = ts[on_time], price[on_time], size[on_time], starts[on_time]
    if not len(ts):
        return BuiltBars(make_bars(starts, interval_ms), late, refused)
    columns = _fold(ts, price, size, starts)
    starts = np.unique(starts)
    if fill_empty:
        starts, columns = _fill(starts, columns, interval_ms)
    return BuiltBars(make_bars(starts, interval_ms, **columns), late, refused)


def _fold(ts: Times, price: Floats, size: Floats, starts: Times) -> dict[str, Floats]:
    """Columns of one bar per distinct start; ``starts`` ascends in order of arrival."""
    new = np.diff(starts, prepend=starts[0] - 1) > 0
    # in order of arrival, one by one, so that sums agree with TradeBars to the last bit
    volume = np.bincount(np.cumsum(new) - 1, weights=size)
    price = price[np.argsort(ts, kind="stable")]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(ts)) - 1
    return {
        "open": price[first],
        "high": np.maximum.reduceat(price, first),
        "low": np.minimum.reduceat(price, first),
        "close": price[last],
        "volume": volume,
    }


def _fill(
    starts: Times, columns: dict[str, Floats], interval_ms: int
) -> tuple[Times, dict[str, Floats]]:
    every = np.arange(starts[0], starts[-1] + interval_ms, interval_ms)
    at = np.searchsorted(starts, every, "right") - 1
    traded: Flags = starts[at] == every
    filled = {
        name: np.where(traded, column[at], columns["close"][at]) for name, column in columns.items()
    }
    filled["volume"] = np.where(traded, columns["volume"][at], 0.0)
    return every, filled
