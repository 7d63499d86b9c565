"""What the stream says between bars, kept as one quote a bar.

A strategy acts when a bar closes, so of a minute's hundreds of books only the last one before the
close can matter. Keeping that one, under the bar's close as its time, makes the live events the
same as those a replay of them sees.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from markets.feeds.link import Trouble

_KEPT_MAX = 64
_NAN = math.nan


class Book(NamedTuple):
    """Top of the order book; depths are units over the best levels. NaN: that side is empty."""

    coin: str
    time_ms: int
    bid: float
    ask: float
    bid_depth: float
    ask_depth: float


class Context(NamedTuple):
    """What the venue knows of a perpetual beside its book; ``funding_rate`` is per hour."""

    coin: str
    mark: float
    oracle: float
    open_interest: float
    funding_rate: float


class Quote(NamedTuple):
    """The payload of a QUOTE, in the order of its fields, and when its youngest part was told."""

    mark: float
    oracle: float
    bid: float
    ask: float
    bid_depth: float
    ask_depth: float
    open_interest: float
    funding_rate: float
    told_ms: int


class Quotes:
    """The last quote before each bar's close, of one instrument."""

    def __init__(self, interval_ms: int, count: Callable[[Trouble], None]) -> None:
        self.interval_ms = interval_ms
        self.taken_ms = 0
        self._count = count
        self._book: Book | None = None
        self._context: Context | None = None
        self._by_close: dict[int, Quote] = {}

    def on_book(self, book: Book) -> None:
        """A book; one older than the last is left out."""
        if self._book is not None and book.time_ms <= self._book.time_ms:
            same = book == self._book
            self._count(Trouble.DUPLICATE if same else Trouble.OUT_OF_ORDER)
            return
        self._book = book
        self._keep(book.time_ms)

    def on_context(self, context: Context, venue_ms: int) -> None:
        """A context; it carries no time, so it counts as told at the stream's."""
        self._context = context
        self._keep(venue_ms)

    def take(self, until_ms: int) -> list[tuple[int, Quote]]:
        """Quotes of bars that closed by then, with the close, oldest first; each only once."""
        self.taken_ms = max(self.taken_ms, until_ms)
        closes = sorted(close_ms for close_ms in self._by_close if close_ms <= until_ms)
        return [(close_ms, self._by_close.pop(close_ms)) for close_ms in closes]

    def _keep(self, told_ms: int) -> None:
        close_ms = -(-told_ms // self.interval_ms) * self.interval_ms
        if close_ms <= self.taken_ms:
            self._count(Trouble.LATE)
            return
        self._by_close[close_ms] = self._joined(told_ms)
        if len(self._by_close) > _KEPT_MAX:
            del self._by_close[min(self._by_close)]

    def _joined(self, told_ms: int) -> Quote:
        book, context = self._book, self._context
        return Quote(
            context.mark if context else _NAN,
            context.oracle if context else _NAN,
            book.bid if book else _NAN,
            book.ask if book else _NAN,
            book.bid_depth if book else _NAN,
            book.ask_depth if book else _NAN,
            context.open_interest if context else _NAN,
            context.funding_rate if context else _NAN,
            told_ms,
        )
