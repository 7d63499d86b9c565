"""The tape: a market's fills in the order of their records, folded into growing candles.

Fills are numbered without a gap, so the tape knows what no clock can tell: that it has heard every
trade of a bar. A bar in which a record is missing, or that was under way when the tape began, is
not offered at all; the feed then asks for it.
"""

from markets.bars import TradeBars
from markets.drift.parse import Trade
from markets.feeds.closing import BarCloser, Candle
from markets.feeds.link import Link, Trouble

HELD_MAX = 32
"""Trades that may wait for one before them."""


class TradeTape:
    """Trades of one market in, in any order; candles out to ``closer``, each as it stands."""

    def __init__(self, closer: BarCloser, link: Link) -> None:
        self._closer, self._link = closer, link
        self._next: int | None = None
        self._held: dict[int, Trade] = {}
        self._bars = TradeBars(closer.interval_ms)
        self._whole_ms = 0

    def add(self, trade: Trade, venue_ms: int) -> None:
        """A trade as it came in, at the venue's time by the best estimate."""
        if self._next is None:
            self._begin(trade)
        assert self._next is not None
        if trade.record < self._next or trade.record in self._held:
            self._link.count(Trouble.DUPLICATE)
            return
        if trade.record > self._next:
            self._link.count(Trouble.OUT_OF_ORDER)
        self._held[trade.record] = trade
        if len(self._held) > HELD_MAX:
            self._skip()
        while self._next in self._held:
            self._fold(self._held.pop(self._next), venue_ms)

    def _begin(self, trade: Trade) -> None:
        """Go on from this trade; the bar it falls into lacks what was before it."""
        interval_ms = self._closer.interval_ms
        self._next, self._bars = trade.record, TradeBars(interval_ms)
        self._whole_ms = trade.time_ms - trade.time_ms % interval_ms + interval_ms

    def _skip(self) -> None:
        """What is waited for does not come: the bars it belongs to must be asked for."""
        first = min(self._held)
        assert self._next is not None
        self._link.count(Trouble.RECORDS_MISSING, first - self._next)
        self._closer.forget()
        self._begin(self._held[first])

    def _fold(self, trade: Trade, venue_ms: int) -> None:
        self._next, late = trade.record + 1, self._bars.late
        self._bars.push(trade.time_ms, trade.price, trade.size)
        standing = self._bars.standing
        if self._bars.late > late:
            self._link.count(Trouble.LATE)
        elif standing is not None and standing.open_ms >= self._whole_ms:
            self._closer.offer(Candle(*standing, trades=0), trade.time_ms, venue_ms)
