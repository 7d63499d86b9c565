"""Replay: the loop over historical events, kept in memory at full speed."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio

from backtest.assemble import Setup, assemble
from backtest.run import BookInfo, Manifest, Run, config_hash, describe
from core.compiled import source_digest
from core.engine import Engine
from core.errors import DataError
from core.loop import run as run_loop
from core.model import OUTCOME, TRACK, Records, Result, joined
from core.ports import Journal
from markets.history import History, Quality, merge

# So long that what a block leaves behind fills huge pages: smaller arrays cost a page fault every
# 4 kB, which took a quarter of the loop's time.
EVENTS_PER_BLOCK = 1_048_576
Progress = Callable[[int], None]


class Tape:
    """Feed of a known block of events, cut where told (nowhere by default)."""

    def __init__(self, block: Records, cuts: Iterable[int] | None = None) -> None:
        self._block = block
        self._cuts = cuts

    async def __aiter__(self) -> AsyncIterator[Records]:
        start = 0
        for cut in self._cuts or ():
            yield self._block[start:cut]
            start = cut
        if start < len(self._block):
            yield self._block[start:]


class MemoryJournal:
    """Keeps outcomes and track in memory, for replays in bulk."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.outcomes: list[Records] = []
        self.track: list[Records] = []
        self._progress = progress

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        """Keep a copy of the outcomes (the engine overwrites them) and the track as it is."""
        self.outcomes.append(joined([outcomes], OUTCOME))
        self.track.append(track)
        if self._progress is not None:
            self._progress(len(events))


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

    async def submit(self, approved: Any) -> None:
        """Refuse: reaching this is a programming error."""
        raise AssertionError(f"order {approved['id']} left a replay")

    async def recover(self, working: Records) -> None:
        """Nothing was ever under way."""
        assert not len(working), f"{len(working)} orders left a replay"

    async def halt(self) -> None:
        """Nothing works outside the step."""


def evenly(length: int, step: int = EVENTS_PER_BLOCK) -> range:
    """Cuts every ``step`` events, so that a long replay can report progress."""
    return range(step, length, step)


def replay(
    setup: Setup, histories: Mapping[str, History], *, seed: int | None = None, **more: Any
) -> Run:
    """Run the loop over ``histories`` (by instrument name, one for each of the setup).

    ``seed`` is that of generated data; further arguments are those of ``replay_block``.
    """
    missing = [i.name for i in setup.instruments if i.name not in histories]
    if missing:
        raise DataError(f"no data for instrument {', '.join(missing)}")
    chosen = {instrument.name: histories[instrument.name] for instrument in setup.instruments}
    return replay_block(
        setup,
        merge(list(chosen.values())),
        {name: history.fields for name, history in chosen.items()},
        data={name: history.digest for name, history in chosen.items()},
        quality={name: history.quality for name, history in chosen.items()},
        seed=seed,
        **more,
    )


def replay_block(
    setup: Setup,
    block: Records,
    carried: Mapping[str, frozenset[str]],
    *,
    data: Mapping[str, str],
    quality: Mapping[str, Quality],
    cuts: Sequence[int] | range | None = None,
    tell_all: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Run:
    """Run the loop over a block of events, whether from files or from a journal.

    ``cuts`` are the places where the events are cut into blocks: any choice gives the same run.
    ``journal`` is appended to beside the run's own memory. Raises MissingInput, StrategyError.
    """
    engine = assemble(setup, carried, tell_all=tell_all)
    memory = MemoryJournal(progress)
    kept: Journal = memory if journal is None else Journals(memory, journal)
    if cuts is None:
        cuts = evenly(len(block))
    engine.warm(block)
    started = time.perf_counter()
    anyio.run(partial(run_loop, engine, Tape(block, cuts), kept, NoVenue()))
    seconds = time.perf_counter() - started
    config, plain = config_hash(setup, tell_all)
    outcomes = joined(memory.outcomes, OUTCOME)
    return Run(
        manifest=Manifest(code=source_digest()[:16], config=config, data=data, seed=seed),
        setup=plain,
        books=_book_infos(engine, outcomes),
        instruments=tuple(instrument.name for instrument in setup.instruments),
        block=block,
        track=joined(memory.track, TRACK),
        outcomes=outcomes,
        digests=tuple(engine.digests),
        quality=quality,
        plain=engine.plain,
        seconds=seconds,
        equity_start=setup.equity,
        costs_on=all(instrument.costs_on for instrument in setup.instruments),
    )


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
