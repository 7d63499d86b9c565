"""Running a sweep: ranges from flags, rows to a store and a file, the best of them told."""

import heapq
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backtest.sweep.rows import Row, rank_key
from backtest.sweep.search import search as ask
from backtest.sweep.space import Axis, Point, axes_of, grid, sobol
from backtest.sweep.store import Store
from backtest.sweep.sweep import Subject, Sweep
from config.layers import Resolved, suggest
from core.errors import ConfigError
from daemon.commands.choices import Choices, read_settings
from daemon.commands.names import parse_timerange
from daemon.commands.setups import plan_run, runs_folder, sizing_of
from daemon.commands.shelf import open_shelf
from daemon.console import making, write, write_json, write_table

_NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"
_RANGE = re.compile(rf"{_NUMBER}(?:[:,]{_NUMBER})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a sweep shall try, and what it shall leave behind."""

    grid: bool = False
    sobol: int | None = None
    optuna: int | None = None
    metric: str = "sharpe"
    seed: int = 0
    top: int = 10
    threads: int | None = None
    resume: bool = False
    out: Path | None = None
    json: bool = False

    @property
    def method(self) -> str:
        """The one way of search that was asked for; a grid when none was."""
        chosen = [name for name in ("grid", "sobol", "optuna") if getattr(self, name)]
        if len(chosen) > 1:
            raise ConfigError(f"--{' and --'.join(chosen)}: a sweep searches in one way, give one")
        return chosen[0] if chosen else "grid"

    def terms(self, axes: Iterable[Axis]) -> dict[str, Any]:
        """What decides the combinations: part of what a sweep is known by."""
        ranges = [[a.name, a.low, a.high, a.whole, list(a.values)] for a in axes]
        terms: dict[str, Any] = {"method": self.method, "ranges": ranges}
        if self.method != "grid":
            terms |= {"count": getattr(self, self.method), "seed": self.seed}
        return terms | ({"metric": self.metric} if self.method == "optuna" else {})


def sweep_and_tell(choices: Choices, timerange: str | None, search: Search) -> None:
    """Run the sweep, keep its rows, write them out if wished, and tell the best."""
    rank_key(search.metric)
    ranges = [text for text in choices.sets if _RANGE.fullmatch(text.partition("=")[2].strip())]
    rest = [text for text in choices.sets if text not in ranges]
    resolved = read_settings(replace(choices, sets=rest))
    subject, label = _subject(resolved, timerange)
    fixed = resolved.settings.strategies[label].params
    axes = axes_of(subject.strategy, _named(ranges, label), fixed)
    points = _points(search, axes)
    count = search.optuna or len(points)
    folder = runs_folder(resolved)
    events = sum(len(history.events) for history in subject.histories.values())
    with making(events * count, quiet=search.json, what="bars") as progress:
        sweep = Sweep(
            subject,
            threads=search.threads or os.cpu_count() or 1,
            store=Store(folder / "sweeps.sqlite"),
            search=search.terms(axes),
            resume=search.resume,
            progress=progress,
        )
        started = time.perf_counter()
        rows = _rows(sweep, search, axes, points, folder)
        told = _gathered(rows, search)
        told["seconds"] = time.perf_counter() - started
    _tell(sweep, search, told, [axis.name for axis in axes])


def _subject(resolved: Resolved, timerange: str | None) -> tuple[Subject, str]:
    """What is swept, and the stanza whose parameters are searched."""
    labels = list(resolved.settings.strategies)
    shelf = open_shelf(resolved)
    span = parse_timerange(timerange) if timerange else (None, None)
    plan = plan_run(resolved, shelf, span)
    if len(labels) != 1:
        raise ConfigError(f"a sweep searches one strategy, this run has {', '.join(labels)}")
    label = labels[0]
    program = shelf.strategy(label).program is not None

    def sizer(strategy: Any, params: Mapping[str, float]) -> Any:
        return sizing_of(resolved, label, strategy, params)

    books = frozenset(entry.book.name for entry in plan.setup.books)
    subject = Subject(
        setup=plan.setup,
        books=books,
        histories=plan.histories,
        sizer=sizer if program else None,
    )
    return subject, label


def _named(ranges: Iterable[str], label: str) -> dict[str, str]:
    """Ranges by parameter; ``trend.fast`` is ``fast`` when the strategy is ``trend``."""
    named: dict[str, str] = {}
    for text in ranges:
        key, _, value = (part.strip() for part in text.partition("="))
        owner, dot, name = key.rpartition(".")
        if dot and owner not in {label, f"strategies.{label}.params"}:
            hint = suggest(owner, [label])
            raise ConfigError(f"--set {text}: only parameters may have a range: {hint}")
        named[name] = value
    return named


def _points(search: Search, axes: list[Axis]) -> list[Point]:
    if search.method == "grid":
        return grid(axes)
    return sobol(axes, search.sobol, search.seed) if search.sobol else []


def _rows(
    sweep: Sweep, search: Search, axes: list[Axis], points: list[Point], folder: Path
) -> Iterator[Row]:
    if not search.optuna:
        return sweep.run(points)
    journal = folder / f"sweep-{sweep.key}.journal"
    return ask(sweep, axes, search.optuna, metric=search.metric, seed=search.seed, journal=journal)


def _gathered(rows: Iterator[Row], search: Search) -> dict[str, Any]:
    """The best rows and how many there were; every row goes to the file as it comes."""
    from daemon.commands.sweep_file import writing

    key = rank_key(search.metric)
    best: list[Row] = []
    told = {"combinations": 0, "failed": 0}
    with writing(search.out) as write_row:
        for row in rows:
            write_row(row)
            told["combinations"] += 1
            told["failed"] += row.error is not None
            best = heapq.nsmallest(search.top, [*best, row], key=key)
    return {**told, "best": best}


def _tell(sweep: Sweep, search: Search, told: dict[str, Any], names: list[str]) -> None:
    seconds, count = told["seconds"], told["combinations"]
    best: list[Row] = told.pop("best")
    if search.json:
        write_json(
            {
                "sweep": sweep.key,
                **told,
                "resumed": sweep.resumed,
                "metric": search.metric,
                "best": [row.plain() for row in best],
            }
        )
        return
    columns = ("parameters", "trades", "return %", "sharpe", "drawdown %", "decisions")
    write_table(columns, [_shown(row, names) for row in best], wraps=["parameters"])
    write()
    speed = f"{count / seconds:,.0f} a second" if seconds > 0 else ""
    write(f"{count:,} combinations in {seconds:.1f} s ({speed}), ranked by {search.metric}")
    if sweep.resumed:
        write(f"resumed: {sweep.resumed:,} rows were there already")
    if told["failed"]:
        write(f"failed: {told['failed']:,} combinations")
    write(
        f"The best of {count:,} is the luckiest, not the truest: it must still be tested out of "
        "sample."
    )
    if search.out is not None:
        write(f"rows: {search.out}")


def _shown(row: Row, names: list[str]) -> tuple[Any, ...]:
    params = " ".join(f"{name}={row.params[name]:.6g}" for name in names)
    if row.error is not None:
        return params, "failed", None, None, None, None
    figures = row.metrics
    return (
        params,
        figures["trades"],
        round((figures["return"] or 0.0) * 100, 2),
        figures["sharpe"] if figures["sharpe"] is None else round(figures["sharpe"], 2),
        round((figures["max_drawdown"] or 0.0) * 100, 2),
        (row.decisions_hash or "")[:8],
    )
