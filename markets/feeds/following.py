"""Following a venue live: closed bars, the quotes before them, and funding, as events.

Every instrument is brought to the same instant before anything of that instant is handed out, so
the order of events does not depend on which message was faster, and a replay of the same market
gives the same decisions. The stream is used for what it is fast at; whatever it may have lost is
asked of the venue before a newer bar is handed out. What a venue says and how it is asked is left
to a subclass; when something is known, and handed out, is decided here.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

import anyio
import numpy as np
from anyio.abc import TaskGroup
from numpy.typing import NDArray

from core.errors import ConfigError, DataError
from core.model import Records
from markets.feeds.closing import BarCloser, Candle, ClosingRules
from markets.feeds.errors import FeedError
from markets.feeds.events import bar_events, funding_events, quote_events
from markets.feeds.funding import FundingCalendar, Settlement
from markets.feeds.link import Link, Trouble, VenueClock
from markets.feeds.quotes import Quotes
from markets.feeds.reading import Reading
from markets.feeds.stream import StreamSettings, Talk, keep_open
from markets.history import in_order, stack


class Candles(NamedTuple):
    """All candles the venue knows that open before ``until_ms``, from where was asked."""

    candles: Sequence[Candle]
    until_ms: int
    venue_ms: int


class Settlements(NamedTuple):
    """All funding the venue knows that was settled before ``until_ms``, from where was asked."""

    settlements: Sequence[Settlement]
    until_ms: int
    venue_ms: int


class Client(Protocol):
    """Whom to ask about what the stream did not settle."""

    async def candles(self, coin: str, interval_ms: int, since_ms: int, until_ms: int) -> Candles:
        """Candles that open in ``[since_ms, until_ms)``, at most one page of them."""

    async def settlements(self, coin: str, since_ms: int, until_ms: int) -> Settlements:
        """Funding settled in ``[since_ms, until_ms)``, at most one page of it."""


Asked = TypeVar("Asked", bound=Client)
Message = TypeVar("Message")


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowSettings:
    """What to follow, and from where; ``coins`` are instruments by the venue's names.

    ``since_ms``: for a coin, the close of the last bar that is already known; ``settled_ms``: the
    stamp of the last settlement that is. Without them the feed begins ``warmup_bars`` before now;
    with them, ``warmup_bars`` before the bar that follows. Every ``look_s`` it looks whether
    something must be asked, and it asks about one coin at most every ``ask_s``. A coin that gets no
    further while others do is waited for at most ``wait_s``; what it tells then comes late.
    """

    coins: tuple[str, ...]
    stream: StreamSettings
    interval_ms: int = 60_000
    warmup_bars: int = 0
    since_ms: Mapping[str, int] = field(default_factory=dict)
    settled_ms: Mapping[str, int] = field(default_factory=dict)
    rules: ClosingRules = field(default_factory=ClosingRules)
    funding_grace_ms: int = 5_000
    funding_absent_ms: int = 120_000
    look_s: float = 0.25
    ask_s: float = 1.0
    wait_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.coins or len(set(self.coins)) != len(self.coins):
            raise ConfigError("a feed needs coins, each named once")


class Followed:
    """One coin: its bars, quotes and settlements between the venue and the loop."""

    def __init__(self, coin: str, start_ms: int, settings: FollowSettings, link: Link) -> None:
        settled_ms = settings.settled_ms.get(coin, start_ms - 1)
        # the latest time this coin's own messages showed: other coins' may overtake them
        self.coin, self.told_ms, self.heard = coin, 0, 0
        self.asked_s, self.asking = -math.inf, False
        self.moved_s, self.moved_ms, self.left = 0.0, -1, False
        self.bars = BarCloser(settings.interval_ms, start_ms, settings.rules, link.count)
        self.quotes = Quotes(settings.interval_ms, link.count)
        self.funding = FundingCalendar(
            max(settled_ms + 1, start_ms),
            link.count,
            grace_ms=settings.funding_grace_ms,
            absent_ms=settings.funding_absent_ms,
        )

    def known_ms(self, venue_ms: int) -> int:
        """Everything of this coin up to here is known."""
        return min(self.bars.open_ms, self.funding.known_ms(venue_ms))

    def look(self, known_ms: int, best_ms: int, wait_s: float) -> None:
        """Leave this coin behind when it got no further for that long, and others did."""
        now_s = anyio.current_time()
        if known_ms != self.moved_ms or known_ms == best_ms:
            self.moved_s, self.moved_ms = now_s, known_ms
        self.left = now_s - self.moved_s > wait_s


class Following(ABC, Generic[Asked, Message]):
    """A feed of several coins; an event's ``instrument`` is the coin's place in ``coins``.

    ``run`` does the work until it is cancelled, and may be run again after a failure: what was
    handed out stays handed out. Iterating gives the blocks, by one reader at a time; nothing is
    queued but what the reader has not taken yet, so a slow reader gets larger blocks.
    """

    def __init__(
        self, settings: FollowSettings, now_ms: Callable[[], int], random: Callable[[], float]
    ) -> None:
        self.clock = VenueClock(now_ms)
        self.link = Link(time.monotonic)
        self._follow = settings
        self._random = random
        self._followed: dict[str, Followed] = {}
        self._taken_ms = 0
        self._moved, self._look = anyio.Event(), anyio.Event()
        self._finished = False

    @abstractmethod
    def _client(self) -> AbstractAsyncContextManager[Asked]:
        """Who is asked, for as long as ``run`` lasts."""

    @abstractmethod
    async def _check(self, client: Asked) -> None:
        """Ask whether the venue has the coins, which also tells its time; DataError if not."""

    @abstractmethod
    def _greetings(self) -> Sequence[str]:
        """What is said when a connection opens."""

    @abstractmethod
    def _read(self, text: str | bytes) -> Reading[Message]:
        """The records of one message of the stream."""

    @abstractmethod
    def _fold(self, message: Message) -> Followed | None:
        """Fold one record; the coin it told something of, or None."""

    _ping = ""

    async def run(self) -> None:
        """Follow the venue for ever. Raises FeedError or DataError where it cannot begin."""
        async with self._client() as client:
            if not self._followed:
                await self._check(client)
                self._begin()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen)
                await self._ask(client, tasks)

    def marks(self) -> NDArray[np.int64]:
        """For each coin what rises while it is alive: messages heard, and up to when all of it is
        known (ms)."""
        marks, venue_ms = np.zeros((len(self._follow.coins), 2), np.int64), self.clock.now_ms()
        for at, followed in enumerate(self._followed.values()):
            marks[at] = followed.heard, followed.known_ms(venue_ms)
        return marks

    def behind_ms(self) -> NDArray[np.int64]:
        """For each coin how far what was handed out is behind the venue's time."""
        venue_ms, followed = self.clock.now_ms(), self._followed.values()
        behind = np.full(len(self._follow.coins), venue_ms, np.int64)
        for at, each in enumerate(followed):
            behind[at] -= min(each.known_ms(venue_ms), self._taken_ms)
        return behind

    def finish(self) -> None:
        """End the iteration once what is known has been read."""
        self._finished = True
        self._moved.set()

    def __aiter__(self) -> AsyncIterator[Records]:
        return self._blocks()

    async def _blocks(self) -> AsyncIterator[Records]:
        while True:
            self._moved = anyio.Event()
            block = self._take()
            if len(block):
                yield block
            elif self._finished:
                return
            else:
                await self._moved.wait()

    def _begin(self) -> None:
        interval_ms = self._follow.interval_ms
        now_ms = self.clock.now_ms() // interval_ms * interval_ms
        for coin in self._follow.coins:
            last_ms = self._follow.since_ms.get(coin, now_ms) // interval_ms * interval_ms
            start_ms = last_ms - self._follow.warmup_bars * interval_ms
            self._followed[coin] = Followed(coin, start_ms, self._follow, self.link)

    async def _listen(self) -> None:
        talk = Talk(
            greetings=self._greetings(),
            ping=self._ping,
            receive=self.receive,
            broken=self._forget,
        )
        await keep_open(self._follow.stream, talk, self.link, self._random)

    def receive(self, text: str | bytes) -> bool:
        """Fold one message of the stream; True if it carried data of ours."""
        reading = self._read(text)
        for trouble in reading.refused:
            self.link.count(trouble)
        touched = [self._fold(message) for message in reading.messages]
        useful = {followed.coin: followed for followed in touched if followed is not None}
        for followed in useful.values():
            followed.heard += 1
            self._tell(followed)
        return bool(useful)

    def _accepts_time(self, time_ms: int) -> bool:
        """Whether a stamp can be the venue's; it tells the venue's time."""
        accepted = self.clock.accepts(time_ms, self._follow.rules.future_ms)
        if not accepted:
            self.link.count(Trouble.FROM_THE_FUTURE)
        return accepted

    def _fold_time(self, followed: Followed, time_ms: int) -> bool:
        """As above, and the stamp is the coin's own time."""
        accepted = self._accepts_time(time_ms)
        if accepted:
            followed.told_ms = max(followed.told_ms, time_ms)
        return accepted

    def _forget(self) -> None:
        """A connection that stood is gone."""
        for followed in self._followed.values():
            followed.bars.forget()

    def _tell(self, followed: Followed) -> None:
        """Close what the coin's time makes final, and wake whoever has something to do.

        Only the coin at hand is looked at: with hundreds of them, most of the work would be here.
        """
        open_ms = followed.bars.open_ms
        followed.bars.tell(followed.told_ms)
        if followed.bars.open_ms != open_ms:
            self._note_progress()
        if self._wants(followed):
            self._look.set()

    def _note_progress(self) -> None:
        known_ms = self._known_ms()
        self.link.skew_ms = self.clock.skew_ms
        self.link.behind_ms = max(self.clock.now_ms() - known_ms, 0)
        if known_ms > self._taken_ms:
            self._moved.set()

    def _known_ms(self) -> int:
        venue_ms, followed = self.clock.now_ms(), self._followed.values()
        return min((each.known_ms(venue_ms) for each in followed if not each.left), default=0)

    def _leave_behind(self) -> None:
        """Who holds all others up must not do so for ever: they have positions to guard."""
        venue_ms, followed = self.clock.now_ms(), self._followed.values()
        known = [each.known_ms(venue_ms) for each in followed]
        best_ms = max(known, default=0)
        for each, known_ms in zip(followed, known, strict=True):
            each.look(known_ms, best_ms, self._follow.wait_s)

    async def _ask(self, client: Client, tasks: TaskGroup) -> None:
        """Ask the venue about whatever the stream did not settle, for ever."""
        while True:
            self._look = anyio.Event()
            for followed in self._due():
                followed.asking = True
                tasks.start_soon(self._ask_about, client, followed)
            self._leave_behind()
            self._note_progress()
            with anyio.move_on_after(self._follow.look_s):
                await self._look.wait()
                # a coin is not asked about again at once, however loudly the stream calls
                await anyio.sleep(self._pause_s())

    def _due(self) -> list[Followed]:
        return [each for each in self._waiting() if self._wait_s(each) <= 0]

    def _pause_s(self) -> float:
        """Until one of the coins that want something may be asked about."""
        return min(map(self._wait_s, self._waiting()), default=self._follow.look_s)

    def _waiting(self) -> list[Followed]:
        followed = self._followed.values()
        return [each for each in followed if not each.asking and self._wants(each)]

    def _wait_s(self, followed: Followed) -> float:
        return max(followed.asked_s + self._follow.ask_s - anyio.current_time(), 0)

    def _wants(self, followed: Followed) -> bool:
        venue_ms = self.clock.now_ms()
        return followed.bars.wants(followed.told_ms, venue_ms) or followed.funding.wants(venue_ms)

    async def _ask_about(self, client: Client, followed: Followed) -> None:
        """Bring one coin up to now, a page at a time; a failure is counted and asked again."""
        try:
            while await self._ask_page(client, followed):
                self._note_progress()
        except (FeedError, DataError):
            pass  # the client counted why, and behind_ms shows what it costs
        finally:
            followed.asking, followed.asked_s = False, anyio.current_time()

    async def _ask_page(self, client: Client, followed: Followed) -> bool:
        """One question about bars and one about funding; True if that made progress."""
        bars, funding, venue_ms = followed.bars, followed.funding, self.clock.now_ms()
        before = followed.bars.open_ms, followed.funding.hour_ms
        if bars.wants(followed.told_ms, venue_ms):
            open_ms, interval_ms = bars.open_ms, bars.interval_ms
            # candles are asked for up to the one under way, whatever our clock says
            until_ms = max(venue_ms, bars.close_ms) + interval_ms
            bars.settle(*await client.candles(followed.coin, interval_ms, open_ms, until_ms))
        if funding.wants(venue_ms):
            await self._ask_settlements(client, followed, venue_ms)
        return before != (followed.bars.open_ms, followed.funding.hour_ms)

    async def _ask_settlements(self, client: Client, followed: Followed, venue_ms: int) -> None:
        funding = followed.funding
        until_ms = max(venue_ms, funding.hour_ms) + 1
        try:
            answer = await client.settlements(followed.coin, funding.hour_ms, until_ms)
        except (FeedError, DataError):
            funding.fail(venue_ms)
            raise
        funding.settle(*answer)

    def _take(self) -> Records:
        """Everything known that was not handed out, in order."""
        followed, until_ms = list(self._followed.values()), self._known_ms()
        self._taken_ms = until_ms
        bars = [(at, bar) for at, each in enumerate(followed) for bar in each.bars.take(until_ms)]
        quotes = [
            (at, *quote) for at, each in enumerate(followed) for quote in each.quotes.take(until_ms)
        ]
        settled = [
            (at, *row) for at, each in enumerate(followed) for row in each.funding.take(until_ms)
        ]
        parts = [
            funding_events(settled),
            quote_events(quotes),
            bar_events(bars, self._follow.interval_ms),
        ]
        return in_order(stack(part for part in parts if len(part)))
