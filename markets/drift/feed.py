"""Drift's market, live: the book server's stream folded into bars, quotes and funding.

Bars are built from fills, which are numbered: one is handed out when the fills of it and one after
it are all there, else the Data API is asked. Books make the quotes; one is believed only while its
slot moves with the chain, whatever its stamp says.
"""

import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from core.errors import ConfigError
from markets.drift.book import Books, BookSettings
from markets.drift.data_api import RESOLUTIONS, DataApi, DataSettings
from markets.drift.parse import Message, Snapshot, Trade, read_message
from markets.drift.slots import SlotClock
from markets.drift.tape import TradeTape
from markets.feeds.closing import ClosingRules
from markets.feeds.following import Candles, Followed, Following, FollowSettings, Settlements
from markets.feeds.link import Trouble
from markets.feeds.quotes import Book, Context
from markets.feeds.reading import Reading
from markets.intervals import format_interval

RULES = ClosingRules(settle_ms=0, grace_ms=6_000, absent_ms=20_000)
"""Fills are told once confirmed, seconds after they happened. That none is missing is known by
their numbers, so a candle need not settle."""

NO_PING_S = math.inf
"""The server takes no ping; it sends heartbeats of its own."""

_CHANNELS = ("orderbook", "trades")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings(FollowSettings):
    """What to follow, and from where; ``coins`` are markets such as SOL-PERP.

    ``slots_behind_max``: a book older than this many slots is stale.
    """

    books: BookSettings
    data: DataSettings
    rules: ClosingRules = field(default_factory=lambda: RULES)
    slots_behind_max: int = 50

    def __post_init__(self) -> None:
        # not super(): a dataclass with slots is another class than the one this is written in
        FollowSettings.__post_init__(self)
        if self.interval_ms not in RESOLUTIONS:
            known = ", ".join(map(format_interval, RESOLUTIONS))
            raise ConfigError(
                f"drift has no candles of {format_interval(self.interval_ms)}: it has {known}"
            )


class Sources:
    """Whom the feed asks: the Data API about the past, the book server what it lists."""

    def __init__(self, data: DataApi, books: Books) -> None:
        self._data, self.books = data, books

    async def candles(self, coin: str, interval_ms: int, since_ms: int, until_ms: int) -> Candles:
        """As ``DataApi.candles``."""
        return await self._data.candles(coin, interval_ms, since_ms, until_ms)

    async def settlements(self, coin: str, since_ms: int, until_ms: int) -> Settlements:
        """As ``DataApi.settlements``."""
        return await self._data.settlements(coin, since_ms, until_ms)


class DriftFeed(Following[Sources, Message]):
    """A feed of several markets; an event's ``instrument`` is the market's place in ``coins``."""

    def __init__(
        self, settings: FeedSettings, now_ms: Callable[[], int], random: Callable[[], float]
    ) -> None:
        super().__init__(settings, now_ms, random)
        self.settings = settings
        self.slots = SlotClock(settings.slots_behind_max)
        self._names: dict[int, str] = {}
        self._tapes: dict[str, TradeTape] = {}
        self._books: dict[int, Snapshot] = {}

    def _client(self) -> AbstractAsyncContextManager[Sources]:
        return self._sources()

    @asynccontextmanager
    async def _sources(self) -> AsyncIterator[Sources]:
        shared = self.clock, self.link, self._random
        async with (
            DataApi(self.settings.data, *shared) as data,
            Books(self.settings.books, *shared) as books,
        ):
            yield Sources(data, books)

    async def _check(self, client: Sources) -> None:
        """A market goes by its number on the stream, and the book server knows it."""
        for coin in self.settings.coins:
            told = await client.books.l2(coin)
            self._names[told.market] = coin
            if self._accepts_time(told.time_ms):
                self.slots.judge(told.slot, self.clock.now_ms())

    def _greetings(self) -> Sequence[str]:
        coins = self.settings.coins
        return [_subscribe(channel, coin) for coin in coins for channel in _CHANNELS]

    def _read(self, text: str | bytes) -> Reading[Message]:
        return read_message(text)

    def _fold(self, message: Message) -> Followed | None:
        if not isinstance(message, Snapshot | Trade):
            return None
        coin = self._names.get(message.market)
        if coin is None:
            self.link.count(Trouble.UNKNOWN_COIN)
            return None
        followed = self._followed[coin]
        fits = (
            self._fold_trade(followed, message)
            if isinstance(message, Trade)
            else self._fold_book(followed, message)
        )
        return followed if fits else None

    def _fold_trade(self, followed: Followed, trade: Trade) -> bool:
        if not self._fold_time(followed, trade.time_ms):
            return False
        tape = self._tapes.setdefault(followed.coin, TradeTape(followed.bars, self.link))
        tape.add(trade, self.clock.now_ms())
        return True

    def _fold_book(self, followed: Followed, told: Snapshot) -> bool:
        """Books are told by several publishers, so an older one may follow a newer."""
        if not self._accepts_time(told.time_ms):
            return False
        trouble = self.slots.judge(told.slot, self.clock.now_ms())
        last = self._books.get(told.market)
        if trouble is None and last is not None and _when(told) <= _when(last):
            trouble = Trouble.DUPLICATE if told == last else Trouble.OUT_OF_ORDER
        if trouble is not None:
            self.link.count(trouble)
            return False
        self._books[told.market] = told
        coin = followed.coin
        book = Book(coin, told.time_ms, told.bid, told.ask, told.bid_depth, told.ask_depth)
        # the rate is known when it is paid, and open interest is not told
        context = Context(coin, told.mark, told.oracle, math.nan, math.nan)
        followed.quotes.on_context(context, told.time_ms)
        followed.quotes.on_book(book)
        return True


def _when(told: Snapshot) -> tuple[int, int]:
    return told.slot, told.time_ms


def _subscribe(channel: str, market: str) -> str:
    said = {"type": "subscribe", "marketType": "perp", "channel": channel, "market": market}
    return json.dumps(said)
