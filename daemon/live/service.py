"""One run of the daemon: recover, then fold what the inbox brings until somebody says stop.

The order of a step is the loop's: the state moves, the journal makes it durable, observers look,
and only then may an order leave. Whatever observes cannot delay or stop it.
"""

import signal
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import numpy as np
import structlog
from anyio import to_thread
from sqlalchemy import Engine as Database

from backtest.assemble import Setup, assemble
from backtest.replay import NoAdvisor, NoVenue
from backtest.run import config_hash
from core.compiled import source_digest
from core.engine import Engine
from core.errors import UnknownName
from core.events import command_event, link_event
from core.loop import run as run_loop
from core.model import EVENT, Command, Records
from core.ports import Advisor, Journal, Venue
from core.snapshot import take
from daemon.journal import (
    RunMode,
    RunRow,
    Said,
    SqlJournal,
    begin_run,
    read_run_row,
    resume_run,
    row_under,
    write_snapshot,
)
from daemon.live.inbox import Inbox
from daemon.live.recovery import Recovered, check_same, recover, where
from daemon.observe.stopwatch import Stopwatch, Tick
from daemon.supervisor import Task, supervise

log = structlog.get_logger(__name__)

Clock = Callable[[], int]
Wrap = Callable[[Journal], Journal]

SNAPSHOT_EVENTS = 20_000


class Outside(Venue, Protocol):
    """A venue beyond this process, and what must run beside the loop for it."""

    @property
    def tasks(self) -> Sequence[Task]: ...

    def close(self) -> None:
        """The loop has ended: let the tasks end where they stand."""


class Snapshotting:
    """A journal that also keeps the state from time to time, right where the journal stands."""

    def __init__(self, journal: SqlJournal, engine: Engine, every: int) -> None:
        self._journal, self._engine, self._every = journal, engine, every
        self._last = journal.seq

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        """Append; every so many events the state follows, in a thread like the journal itself."""
        await self._journal.append(events, outcomes, track)
        if self._journal.seq - self._last >= self._every:
            self._last = self._journal.seq
            state = take(self._engine.arrays)
            place = (self._journal.engine, self._journal.run_id, self._last)
            await to_thread.run_sync(write_snapshot, *place, state)


@dataclass(kw_only=True)
class Service:
    """A run that is live: its engine, its inbox, and where it stood when it was recovered."""

    engine: Engine
    inbox: Inbox
    journal: SqlJournal
    recovered: Recovered
    clock: Clock
    in_sight: list[bool]
    stopping: bool = False
    _blinded: list[int] = field(default_factory=list)

    def stop(self) -> None:
        """Take nothing more in; the loop ends when it has folded what is already here."""
        self.stopping = True
        self.inbox.close()

    async def command(self, word: Command, book: int = 0, said: Said | None = None) -> None:
        """A command becomes an event, ahead of the market data that waits; who gives it and why is
        journaled with it. A run that stops takes none."""
        if self.inbox.closed:
            return
        instrument = int(self.engine.arrays["books"]["instrument"][book])
        placed = (book, instrument) if word is Command.CLOSE else (0, 0)
        # nothing is awaited in between: the journal tells the two apart by their order alone
        self.journal.say(said or Said())
        self.inbox.command(command_event(word, self.clock(), *placed))

    def blind(self) -> None:
        """Take everything out of sight, before the feed begins: until it has caught up, what it
        tells is the past."""
        self._blinded = np.flatnonzero(self.in_sight).tolist()
        self.in_sight = [False] * len(self.in_sight)

    async def take(self, block: Records) -> None:
        """Market data for the loop; what went out of sight before the first of it goes ahead."""
        at_ms, blinded = int(block["ts_known"][0]), self._blinded
        self._blinded = []
        for instrument in blinded:
            await self.inbox.put(link_event(instrument, False, at_ms))
        await self.inbox.put(block)

    async def link(self, instrument: int, up: bool) -> None:
        """An instrument came into sight or went out of it; a change alone is told."""
        if up != self.in_sight[instrument]:
            self.in_sight[instrument] = up
            name = self.engine.instruments[instrument].name
            tell = log.info if up else log.warning
            tell("in sight" if up else "out of sight", instrument=name)
            await self.inbox.put(link_event(instrument, up, self.clock()))


def paper_row(run_id: str, setup: Setup, *, started_ms: int) -> RunRow:
    """The journal's row of a run on paper: its causes, as a replay's manifest has them."""
    digest, plain = config_hash(setup, tell_all=False)
    return row_under(
        plain,
        run_id=run_id,
        mode=RunMode.PAPER,
        code=source_digest()[:16],
        config_hash=digest,
        started_ms=started_ms,
    )


def open_service(
    setup: Setup,
    carried: Mapping[str, frozenset[str]],
    database: Database,
    row: RunRow,
    clock: Clock,
    codes: Mapping[int, str] | None = None,
) -> Service:
    """Begin the run, or recover it; ``codes`` names those of its outside venue.

    JournalError when its record cannot be gone on with.
    """
    engine = assemble(setup, carried)
    # built now, for the loop to tick from READY on: the first build takes longer than a watchdog
    engine.warm(np.zeros(0, EVENT))
    explain = [book.strategy.explain for book in engine.books]
    try:
        known = read_run_row(database, row.run_id)
    except UnknownName:
        journal = begin_run(database, row, explain, codes)
        recovered = where(engine)
    else:
        check_same(known, row)
        recovered = recover(engine, database, row.run_id)
        journal = resume_run(database, row.run_id, explain, codes)
    log.info("recovered", run_id=row.run_id, events=recovered.seq, last_ms=recovered.last_ms)
    inbox = Inbox(last_ms=recovered.last_ms)
    return Service(
        engine=engine,
        inbox=inbox,
        journal=journal,
        recovered=recovered,
        clock=clock,
        in_sight=engine.arrays["instruments"]["linked"].astype(bool).tolist(),
    )


async def run_service(  # noqa: PLR0913 - as many as there are moments to look on
    service: Service,
    feed: AsyncIterable[Records],
    venue: Outside | None = None,
    advisor: Advisor | None = None,
    *,
    begun: Callable[[Records], None] = lambda _block: None,
    ended: Callable[[Tick], None] = lambda _tick: None,
    edges: Callable[[Stopwatch], Sequence[Task]] = lambda _watch: (),
    ready: Callable[[], Any] = lambda: None,
    stopping: Callable[[], Any] = lambda: None,
    reload: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    wrap: Wrap = lambda journal: journal,
    snapshot_events: int = SNAPSHOT_EVENTS,
) -> None:
    """Run until SIGTERM or SIGINT, or until ``service.stop``; a core task that fails raises.

    ``feed`` begins after ``service.recovered``; what keeps it going is among the ``edges``. Without
    a ``venue`` every order fills in the simulated one. Orders that a crash left open are settled
    with the venue before anything else starts.
    ``begun`` and ``ended`` look on at each tick, the latter once it is durable; neither may raise.
    ``reload`` is called at SIGHUP and may not raise.
    ``wrap`` is put around the journal by tests that crash at its boundaries.
    """
    kept = Snapshotting(service.journal, service.engine, snapshot_events)
    watch = Stopwatch(service.inbox, wrap(kept), begun, ended)
    outside: Outside = venue or NoVenue()
    working = service.engine.sent()
    if len(working):
        log.warning("orders to be settled", orders=working["id"].tolist())
    await outside.recover(working)

    async def loop() -> None:
        await run_loop(service.engine, watch, watch, outside, advisor or NoAdvisor())
        outside.close()

    async def pump() -> None:
        async for block in feed:
            await service.take(block)

    # from before we say READY to the end, or a signal in between would kill without a drain
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:

        async def signals() -> None:
            async for number in received:
                if number == signal.SIGHUP:
                    await reload()
                    continue
                log.info("stopping", signal=signal.Signals(number).name)
                stopping()
                service.stop()

        tasks = [
            Task("loop", loop, core=True),
            Task("feed", pump),
            Task("signals", signals),
            *edges(watch),
            *outside.tasks,
        ]
        ready()
        with suppress(anyio.ClosedResourceError):
            await supervise(tasks, lambda: service.stopping)
