"""The journal's small desk run through a stopwatch, its metrics and its lines kept."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import anyio
from journal_world import desk, histories
from worlds import MINUTE

from backtest.assemble import assemble
from backtest.replay import MemoryJournal, NoAdvisor, NoVenue, Tape
from core.engine import Engine
from core.loop import run as run_loop
from core.model import Records
from daemon.observe.canonical import Canonical
from daemon.observe.metrics import Metrics
from daemon.observe.stopwatch import Stopwatch, Tick
from markets.history import merge

FEED = "hyperliquid"


def new_engine() -> Engine:
    carried = {name: history.fields for name, history in histories().items()}
    return assemble(desk(), carried)


def new_metrics(engine: Engine) -> Metrics:
    interval_ms = dict.fromkeys(histories(), MINUTE)
    return Metrics(engine, interval_ms, feeds=[FEED], build={"version": "0", "mode": "paper"})


@dataclass(frozen=True, eq=False)
class Watched:
    """A run, and what was seen of it."""

    engine: Engine
    metrics: Metrics
    ticks: list[Tick]
    lines: list[dict[str, Any] | None]
    block: Records
    outcomes: Records
    begun: int


def drive(engine: Engine, metrics: Metrics, block: Records, step: int) -> Watched:
    """Run ``block`` in cuts of ``step`` events."""
    memory, ticks, begun = MemoryJournal(), [], []
    canonical = Canonical(engine)

    def ended(tick: Tick) -> None:
        ticks.append(tick)
        metrics.observe(tick.events, tick.outcomes, tick.track)
        metrics.tick(tick.seconds)

    tape = Tape(block, range(step, len(block), step))
    watch = Stopwatch(tape, memory, begun.append, ended)
    anyio.run(partial(run_loop, engine, watch, watch, NoVenue(), NoAdvisor()))
    lines = [canonical.line(tick) for tick in ticks]
    outcomes = memory.outcomes
    return Watched(engine, metrics, ticks, lines, block, outcomes, len(begun))


@cache
def watched() -> Watched:
    """The whole run, seven events a tick."""
    engine = new_engine()
    return drive(engine, new_metrics(engine), merge(list(histories().values())), 7)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """Sum of the samples of that name whose labels include these; they must exist."""
    found = [
        value
        for (each, at), value in samples(metrics).items()
        if each == name and labels.items() <= dict(at).items()
    ]
    assert found, f"no sample {name} {labels}"
    return sum(found)
