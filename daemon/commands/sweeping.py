"""Running a sweep: ranges from flags, rows to a store and a file, the best of them told."""

import heapq
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from backtest.report.sweep import Collected, write_sweep
from backtest.sweep.rows import Row, rank_key
from backtest.sweep.search import BATCH, Questions, file_storage
from backtest.sweep.space import Axis, Point, grid, sobol
from backtest.sweep.store import Store
from backtest.sweep.sweep import Sweep
from backtest.validation.ledger import Ledger
from core.errors import ConfigError
from daemon.commands.aiming import Target, aim
from daemon.commands.choices import Choices
from daemon.commands.counted import ReturnsFile, open_ledger, trials_of
from daemon.commands.setups import runs_folder
from daemon.commands.sharding import ROWS_OF_A_BATCH, ROWS_PER_SHARD, Job, Offer, offering
from daemon.console import making, write, write_json, write_table
from daemon.journal.patience import patiently
from daemon.journal.studies import study_storage


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
    returns: Path | None = None
    report: Path | None = None
    journal: str | None = None
    shards: bool = False
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
        learning = {"metric": self.metric, "batch": BATCH}
        return terms | (learning if self.method == "optuna" else {})


def sweep_and_tell(choices: Choices, timerange: str | None, search: Search) -> None:
    """Run the sweep, every trial of it in the ledger; keep its rows, and tell the best."""
    rank_key(search.metric)
    target = aim(choices, timerange)
    url = search.journal or target.resolved.settings.paths.journal
    job = Job(
        choices=choices,
        timerange=timerange,
        search=search.terms(target.axes),
        rows_per_shard=ROWS_OF_A_BATCH if search.optuna else ROWS_PER_SHARD,
    )
    with open_ledger(url) as ledger, offering(url, job, wished=search.shards) as offer:
        _sweep(target, search, ledger, offer)


def _sweep(target: Target, search: Search, ledger: Ledger, offer: Offer | None) -> None:
    subject, axes = target.subject, target.axes
    points = points_of(search, axes)
    folder = runs_folder(target.resolved)
    terms = search.terms(axes)
    trials = trials_of(ledger, subject, f"sweep-{subject.key(terms)}")
    returns = ReturnsFile(search.returns, trials) if search.returns else None
    count = search.optuna or len(points)
    with making(subject.events * count, quiet=search.json, what="bars") as progress:
        sweep = Sweep(
            subject,
            threads=search.threads or os.cpu_count() or 1,
            store=None if offer else Store(folder / "sweeps.sqlite"),
            search=terms,
            resume=search.resume,
            trials=trials,
            progress=progress,
        )
        started = time.perf_counter()

        def run(points: list[Point], first: int = 0) -> Iterator[Row]:
            if offer is not None:
                return offer.rows(trials, subject, points, progress, first)
            return sweep.run(points, first)

        asked = _questions(sweep, search, axes, folder, offer) if search.optuna else None
        rows = asked.rows(run) if asked else run(points)
        if search.report is not None:
            collected = Collected(search.metric)
            rows = collected.watching(rows)
        told = _gathered(rows, search, returns)
        told["seconds"] = time.perf_counter() - started
    if returns is not None:
        returns.write(ledger, int(sweep.block["ts_known"][0]))
    if search.report is not None:
        names = [axis.name for axis in axes]
        strategy = subject.strategy.name
        write_sweep(search.report, strategy, names, collected, subject.setup.equity)
    _tell(sweep, search, told, [axis.name for axis in axes])


def points_of(search: Search, axes: list[Axis]) -> list[Point]:
    """The combinations of a grid or of Sobol's sequence; Optuna asks for its own as it goes."""
    if search.method == "grid":
        return grid(axes)
    return sobol(axes, search.sobol, search.seed) if search.sobol else []


def _questions(
    sweep: Sweep, search: Search, axes: list[Axis], folder: Path, offer: Offer | None
) -> Questions:
    """Optuna's search, its study where its rows are: in the database of the shards, if that is one
    that other machines reach, else in a file."""
    name = f"sweep-{sweep.key}"
    file = folder / f"{name}.journal"
    found = Questions(
        name=name,
        axes=axes,
        count=search.optuna or 0,
        metric=search.metric,
        seed=search.seed,
        storing=partial(file_storage, file),
    )
    if offer is not None and offer.board.shared:
        storing = partial(study_storage, offer.board.database)
        return replace(found, storing=storing, attempt=patiently)
    if offer is None and not search.resume:
        file.unlink(missing_ok=True)
    return found


def _gathered(rows: Iterator[Row], search: Search, returns: ReturnsFile | None) -> dict[str, Any]:
    """The best rows and how many there were; every row goes to the files as it comes."""
    from daemon.commands.sweep_file import writing

    key = rank_key(search.metric)
    best: list[Row] = []
    told = {"combinations": 0, "failed": 0}
    with writing(search.out) as write_row:
        for row in rows:
            write_row(row)
            if returns is not None:
                returns.add(row)
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
    files = {"rows": search.out, "returns": search.returns, "report": search.report}
    for what, path in files.items():
        if path is not None:
            write(f"{what}: {path}")


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
