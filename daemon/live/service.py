"""One run of the daemon: recover, then fold what the inbox brings until somebody says stop.

The order of a step is the loop's: the state moves, the journal makes it durable, observers look,
and only then may an order leave. Whatever observes cannot delay or stop it.
"""

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import structlog
from anyio import to_thread
from sqlalchemy import Engine as Database

from backtest.assemble import Setup, assemble
from backtest.replay import NoVenue
from backtest.run import config_hash
from core.compiled import source_digest
from core.engine import Engine
from core.errors import UnknownName
from core.loop import run as run_loop
from core.model import MICROS_PER_UNIT, Command, Records
from core.ports import Feed, Journal, Venue
from core.snapshot import take
from daemon.journal import (
    BookRow,
    RunMode,
    RunRow,
    SqlJournal,
    begin_run,
    read_run_row,
    resume_run,
    write_snapshot,
)
from daemon.live.inbox import Inbox, command_event, link_event
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
    line_up: bool
    stopping: bool = False

    def stop(self) -> None:
        """Take nothing more in; the loop ends when it has folded what is already here."""
        self.stopping = True
        self.inbox.close()

    async def command(self, word: Command, book: int = 0) -> None:
        """An operator's word becomes an event like any other."""
        await self.inbox.put(command_event(word, self.clock(), book))

    async def link(self, up: bool) -> None:
        """The line to the market went up or down; a change alone is told."""
        if up != self.line_up:
            self.line_up = up
            for i in range(len(self.engine.instruments)):
                await self.inbox.put(link_event(i, up, self.clock()))


def paper_row(run_id: str, setup: Setup, *, started_ms: int) -> RunRow:
    """The journal's row of a run on paper: its causes, as a replay's manifest has them."""
    digest, plain = config_hash(setup, tell_all=False)
    return RunRow(
        run_id=run_id,
        mode=RunMode.PAPER,
        code=source_digest()[:16],
        config_hash=digest,
        config=plain,
        instruments=tuple(instrument.name for instrument in setup.instruments),
        books=tuple(
            BookRow(
                name=entry.book.name,
                strategy=entry.book.strategy.name,
                instrument=entry.book.instrument,
                params=entry.book.strategy.values(entry.book.params),
            )
            for entry in setup.books
        ),
        equity_start_micros=round(setup.equity * MICROS_PER_UNIT),
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
        line_up=bool(engine.arrays["instruments"]["linked"].all()),
    )


async def run_service(
    service: Service,
    feed: Feed,
    *,
    begun: Callable[[Records], None] = lambda _block: None,
    ended: Callable[[Tick], None] = lambda _tick: None,
    edges: Callable[[Stopwatch], Sequence[Task]] = lambda _watch: (),
    ready: Callable[[], Any] = lambda: None,
    stopping: Callable[[], Any] = lambda: None,
    wrap: Wrap = lambda journal: journal,
    outside: Outside | None = None,
    snapshot_events: int = SNAPSHOT_EVENTS,
) -> None:
    """Run until SIGTERM or SIGINT, or until ``service.stop``; a core task that fails raises.

    ``feed`` begins after ``service.recovered``; what keeps it going is among the ``edges``.
    ``begun`` and ``ended`` look on at each tick, the latter once it is durable; neither may raise.
    ``wrap`` is put around the journal by tests that crash at its boundaries. ``outside`` takes the
    orders of external instruments; what the last process left under way is settled before anything
    else begins.
    """
    kept = Snapshotting(service.journal, service.engine, snapshot_events)
    watch = Stopwatch(service.inbox, wrap(kept), begun, ended)

    async def loop() -> None:
        await run_loop(service.engine, watch, watch, outside or NoVenue())
        if outside is not None:
            outside.close()

    async def pump() -> None:
        async for block in feed:
            await service.inbox.put(block)

    async def signals() -> None:
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        with anyio.open_signal_receiver(*wanted) as received:
            async for number in received:
                if number == signal.SIGHUP:
                    log.warning("reload refused", why="settings decide a run: restart it instead")
                    continue
                log.info("stopping", signal=signal.Signals(number).name)
                stopping()
                service.stop()

    tasks = [
        Task("loop", loop, core=True),
        Task("feed", pump),
        Task("signals", signals),
        *edges(watch),
        *(outside.tasks if outside is not None else ()),
    ]
    if outside is not None:
        await outside.recover(service.engine.sent())
    ready()
    with suppress(anyio.ClosedResourceError):
        await supervise(tasks, lambda: service.stopping)
