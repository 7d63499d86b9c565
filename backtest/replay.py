"""Replay: the loop over historical events, kept in memory at full speed."""

import heapq
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import anyio
import numpy as np

from backtest.assemble import Setup, assemble
from backtest.run import BookInfo, Manifest, Run, config_hash, describe
from core.compiled import source_digest
from core.engine import Engine
from core.errors import ConfigError, DataError
from core.loop import run as run_loop
from core.model import EVENT, OUTCOME, TRACK, Kind, Records, Result, joined
from core.ports import Advisor, Asked, Journal
from markets.history import History, Places, Quality, merge, select

# So long that what a block leaves behind fills huge pages: smaller arrays cost a page fault every
# 4 kB, which took a quarter of the loop's time.
EVENTS_PER_BLOCK = 1_048_576
# What follows a question is played again, so a block that may raise many is short.
EVENTS_PER_BLOCK_ADVISED = 4_096
# Fewer rows are copied faster as bytes than as an array.
OUTCOMES_FEW = 1_024
Progress = Callable[[int], None]


class Tape:
    """Feed of a known block of events, cut where told (nowhere by default).

    What is added while it plays comes in its time: after the events known by then, and of what is
    due at once, first what was added first. What would be known only after the last event never
    comes.
    """

    def __init__(self, block: Records, cuts: Iterable[int] | None = None) -> None:
        self._block = block
        self._cuts = cuts
        self._at = 0
        self._due: list[tuple[int, int, Records]] = []
        self._added = 0
        # where each instrument's bars stand: every question asks for them
        self._bars: dict[int, Places] = {}

    async def __aiter__(self) -> AsyncIterator[Records]:
        for end in (*(self._cuts or ()), len(self._block)):
            while self._at < end:
                yield self._next(end)

    def rewind(self, events: int) -> None:
        """Play the last events again; an added one stands alone in its block and never returns."""
        self._at -= events

    def add(self, event: Records) -> None:
        """Let one event come when it is known."""
        heapq.heappush(self._due, (int(event["ts_known"][0]), self._added, event))
        self._added += 1

    def bars(self, instrument: int, most: int) -> Records:
        """The newest bars played of an instrument, at most so many, the oldest first."""
        if instrument not in self._bars:
            is_bar = self._block["kind"] == Kind.BAR
            self._bars[instrument] = np.flatnonzero(
                is_bar & (self._block["instrument"] == instrument)
            )
        places = self._bars[instrument]
        end = int(np.searchsorted(places, self._at))
        return select(self._block, places[max(end - most, 0) : end])

    def _next(self, end: int) -> Records:
        start = self._at
        if self._due:
            end = start + int(self._known[start:end].searchsorted(self._due[0][0], "right"))
        if end == start:
            return heapq.heappop(self._due)[2]
        self._at = end
        return self._block[start:end]

    @cached_property
    def _known(self) -> Records:
        return np.ascontiguousarray(self._block["ts_known"])


class MemoryJournal:
    """Keeps outcomes and track in memory, for replays in bulk; the events too where told."""

    def __init__(self, progress: Progress | None = None, *, events: bool = False) -> None:
        self.events: list[Records] = []
        self.track: list[Records] = []
        self._outcomes: list[Records] = []
        self._few = bytearray()
        self._progress = progress
        self._keeps_events = events

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        """Keep a copy of the outcomes (the engine overwrites them) and the track as it is."""
        if len(outcomes) < OUTCOMES_FEW:
            self._few += outcomes.tobytes()
        else:
            self._gather()
            self._outcomes.append(joined([outcomes], OUTCOME))
        self.track.append(track)
        if self._keeps_events:
            self.events.append(events)
        if self._progress is not None:
            self._progress(len(events))

    @property
    def outcomes(self) -> Records:
        """All outcomes so far."""
        self._gather()
        return joined(self._outcomes, OUTCOME)

    def _gather(self) -> None:
        self._outcomes.append(np.frombuffer(self._few, OUTCOME))
        self._few = bytearray()


class Journals:
    """Several journals as one, each in turn."""

    def __init__(self, *journals: Journal) -> None:
        self._journals = journals

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        """Append to each; the first that fails ends the run."""
        for journal in self._journals:
            await journal.append(events, outcomes, track)


class NoVenue:
    """A replay's orders fill inside the step; there is nobody to submit them to."""

    tasks = ()

    async def submit(self, approved: Any) -> None:
        """Refuse: reaching this is a programming error."""
        raise AssertionError(f"order {approved['id']} left a replay")

    async def recover(self, working: Records) -> None:
        """Nothing was ever under way."""
        assert not len(working), f"{len(working)} orders left a replay"

    async def halt(self) -> None:
        """Nothing works outside the step."""

    def close(self) -> None:
        """Nothing is open."""


class NoAdvisor:
    """Nobody to ask: the answers are already among the events, or no book has an advisor."""

    async def ask(self, questions: Sequence[Asked]) -> None:
        """Let the question stand; the step itself says when it is too late for an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where events come from: digests and quality by instrument; ``seed`` of generated data."""

    digests: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, Quality] = field(default_factory=dict)
    seed: int | None = None


Advise: TypeAlias = Callable[[Engine, Tape], Advisor]


def evenly(length: int, step: int = EVENTS_PER_BLOCK) -> range:
    """Cuts every ``step`` events, so that a long replay can report progress."""
    return range(step, length, step)


def replay(
    setup: Setup, histories: Mapping[str, History], *, seed: int | None = None, **more: Any
) -> Run:
    """Run the loop over ``histories`` (by instrument name, one for each of the setup).

    ``seed`` is that of generated data; further arguments are those of ``replay_block``.
    """
    asking = [entry.book for entry in setup.books if entry.book.advice is not None]
    if asking and more.get("advisor") is None:
        raise ConfigError(f"book {asking[0].name} asks an advisor: this replay was given none")
    missing = [i.name for i in setup.instruments if i.name not in histories]
    if missing:
        raise DataError(f"no data for instrument {', '.join(missing)}")
    chosen = {instrument.name: histories[instrument.name] for instrument in setup.instruments}
    return replay_block(
        setup,
        merge(list(chosen.values())),
        {name: history.fields for name, history in chosen.items()},
        Source(
            digests={name: history.digest for name, history in chosen.items()},
            quality={name: history.quality for name, history in chosen.items()},
            seed=seed,
        ),
        **more,
    )


def replay_block(
    setup: Setup,
    block: Records,
    carried: Mapping[str, frozenset[str]],
    source: Source,
    *,
    cuts: Sequence[int] | range | None = None,
    tell_all: bool = False,
    progress: Progress | None = None,
    journal: Journal | None = None,
    advisor: Advise | None = None,
) -> Run:
    """Run the loop over a block of events, whether from files or from a journal.

    ``cuts`` are the places where the events are cut into blocks: any choice gives the same run.
    ``journal`` is appended to beside the run's own memory. ``advisor`` makes the one who answers
    the questions of this engine, on this tape; without it the answers are among the events, or
    nobody asks. Raises MissingInput, StrategyError.
    """
    engine = assemble(setup, carried, tell_all=tell_all)
    memory = MemoryJournal(progress, events=advisor is not None)
    kept: Journal = memory if journal is None else Journals(memory, journal)
    if cuts is None:
        cuts = evenly(len(block), EVENTS_PER_BLOCK_ADVISED if advisor else EVENTS_PER_BLOCK)
    tape = Tape(block, cuts)
    asked = advisor(engine, tape) if advisor else NoAdvisor()
    engine.warm(block)
    started = time.perf_counter()
    anyio.run(_play, engine, tape, kept, asked)
    seconds = time.perf_counter() - started
    config, plain = config_hash(setup, tell_all)
    outcomes = memory.outcomes
    return Run(
        manifest=Manifest(
            code=source_digest()[:16], config=config, data=source.digests, seed=source.seed
        ),
        setup=plain,
        books=_book_infos(engine, outcomes),
        instruments=tuple(instrument.name for instrument in setup.instruments),
        block=joined(memory.events, EVENT) if advisor else block,
        track=joined(memory.track, TRACK),
        outcomes=outcomes,
        digests=tuple(engine.digests),
        quality=source.quality,
        plain=engine.plain,
        seconds=seconds,
        equity_start=setup.equity,
        costs_on=all(instrument.costs_on for instrument in setup.instruments),
    )


async def _play(engine: Engine, tape: Tape, journal: Journal, advisor: Advisor) -> None:
    async with advisor if isinstance(advisor, AbstractAsyncContextManager) else nullcontext():
        await run_loop(engine, tape, journal, NoVenue(), advisor)


def _book_infos(engine: Engine, outcomes: Records) -> tuple[BookInfo, ...]:
    told = outcomes[outcomes["kind"] == Result.DECISION]
    return tuple(
        BookInfo(
            name=book.name,
            strategy=book.strategy.name,
            instrument=book.instrument,
            params=book.strategy.values(book.params),
            reasons=describe(book.strategy, told["reason"][told["book"] == b]),
        )
        for b, book in enumerate(engine.books)
    )
