"""The notifier: a bounded queue and a patient sender for each channel.

What comes faster than a person wants to read goes out together, the urgent first, the rest as a
number. A message that fails is tried again a few times, further and further apart, and then let go.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import anyio
import httpx
import structlog

from config.settings import Topic
from core.engine import Engine
from core.model import Records
from daemon.alerts.channels import Again, Channel, Message, Never, silence_httpx
from daemon.alerts.notices import URGENT, Notice, among, links_of, notices_of
from daemon.control.rate import Buckets

QUEUE_MAX = 256
LINES_MAX = 10
BURST = 3
ATTEMPTS = 6
BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 1.0, 120.0
GRACE_SECONDS = 3.0

log = structlog.get_logger("lockstep.alerts")

Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """Of one channel: messages sent, tried again and given up; notices that found no room."""

    sent: int = 0
    retried: int = 0
    failed: int = 0
    dropped: int = 0


class Notifier:
    """Tells every channel; made by ``open_notifier``. ``run`` is an edge task of the daemon."""

    def __init__(
        self,
        channels: Iterable[Channel],
        topics: Sequence[Topic],
        per_minute: float,
        *,
        sleep: Sleep = anyio.sleep,
        clock: Callable[[], float] = anyio.current_time,
        chance: Random | None = None,
    ) -> None:
        self._topics = tuple(topics)
        chance = chance or Random()
        self._senders = [
            Sender(channel, Buckets(per_minute, BURST, clock), sleep, chance)
            for channel in channels
        ]
        self._changed = anyio.Event()

    @property
    def tallies(self) -> dict[str, Tally]:
        """What became of the messages, by channel."""
        return {sender.name: sender.tally for sender in self._senders}

    def observer(self, engine: Engine) -> Callable[[Records, Records, Records], None]:
        """An observer of the journal that tells what is worth telling of this engine's steps."""
        instruments = [instrument.name for instrument in engine.instruments]

        def observe(events: Records, outcomes: Records, _track: Records) -> None:
            self.tell([*links_of(events, instruments), *notices_of(outcomes, engine.books)])

        return observe

    def tell(self, notices: Iterable[Notice]) -> None:
        """Queue what the operator wants of these. It never waits and never fails."""
        wanted = among(notices, self._topics)
        for sender in self._senders:
            for notice in wanted:
                sender.put(notice)

    def become(self, other: "Notifier") -> None:
        """Tell the channels of another notifier, and what it would, from the next notice on."""
        self._topics, self._senders = other._topics, other._senders
        self._changed.set()

    async def run(self) -> None:
        """Send until cancelled; then try once more, briefly, for what is left."""
        silence_httpx()
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                self._changed = anyio.Event()
                async with anyio.create_task_group() as group:
                    for sender in self._senders:
                        group.start_soon(sender.run, client)
                    await self._changed.wait()
                    group.cancel_scope.cancel()


class Sender:
    """One channel's queue, rate and retries."""

    def __init__(self, channel: Channel, rate: Buckets, sleep: Sleep, chance: Random) -> None:
        self._channel, self._rate, self._sleep, self._chance = channel, rate, sleep, chance
        self._queue: deque[Notice] = deque()
        self._under_way: tuple[Notice, ...] = ()
        self._unsaid = 0
        self._filled = anyio.Event()
        self.tally = Tally()

    @property
    def name(self) -> str:
        """Of the channel."""
        return self._channel.name

    def put(self, notice: Notice) -> None:
        """Queue a notice; when there is no room, the least urgent of all gives way."""
        self._queue.append(notice)
        if len(self._queue) > QUEUE_MAX:
            usual = (k for k, kept in enumerate(self._queue) if kept.topic not in URGENT)
            del self._queue[next(usual, 0)]
            self.tally.dropped += 1
            self._unsaid += 1
        self._filled.set()

    async def run(self, client: httpx.AsyncClient) -> None:
        """Send what is queued, at the rate allowed, until cancelled."""
        try:
            while True:
                await self._filled.wait()
                while wait := self._rate.wait(self.name):
                    await self._sleep(wait)
                await self._deliver(client, self._next())
        finally:
            with anyio.move_on_after(GRACE_SECONDS, shield=True):
                await self._say_last(client)

    def _next(self) -> Message:
        """Everything queued as one message: the most urgent lines, and how many more there are."""
        queued = list(self._queue)
        self._queue.clear()
        self._filled = anyio.Event()
        ranked = sorted(range(len(queued)), key=lambda k: (queued[k].topic not in URGENT, k))
        kept = tuple(queued[k] for k in sorted(ranked[:LINES_MAX]))
        more = len(queued) - len(kept) + self._unsaid
        self._unsaid = 0
        self._under_way = kept
        return Message(kept, more)

    async def _deliver(self, client: httpx.AsyncClient, message: Message) -> None:
        for attempt in range(ATTEMPTS):
            try:
                await self._channel.send(client, message)
            except Again as again:
                why = str(again)
                if attempt + 1 < ATTEMPTS:
                    self.tally.retried += 1
                    await self._sleep(self._pause(attempt, again.after))
            except Never as never:
                why = str(never)
                break
            else:
                self.tally.sent += 1
                self._under_way = ()
                return
        self._give_up(message, why)

    def _give_up(self, message: Message, why: str) -> None:
        self.tally.failed += 1
        self._under_way = ()
        self._unsaid += len(message.notices) + message.more
        log.warning("notification_failed", channel=self.name, why=why, notices=self._unsaid)

    def _pause(self, attempt: int, after: float | None) -> float:
        """Twice as long each time, jittered, and never sooner than the other side asked."""
        backoff = min(BACKOFF_SECONDS * 2.0**attempt, BACKOFF_SECONDS_MAX)
        return max(after or 0.0, backoff * self._chance.uniform(0.5, 1.0))

    async def _say_last(self, client: httpx.AsyncClient) -> None:
        """One try for what was under way or queued; it may be told twice, but not never."""
        self._queue.extendleft(reversed(self._under_way))
        if self._queue:
            message = self._next()
            try:
                await self._channel.send(client, message)
                self.tally.sent += 1
            except (Again, Never) as error:
                self._give_up(message, str(error))
