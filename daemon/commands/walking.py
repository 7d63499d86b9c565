"""Running a walk forward: every fit and the walk itself in the ledger, its windows told."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtest.sweep.rows import Row
from backtest.sweep.space import Point
from backtest.sweep.sweep import Progress, Subject, Sweep
from backtest.validation.ledger import Ledger
from backtest.walk_forward import Cut, Terms, Walk, cuts_of, fits_here, fitted_on, walk
from daemon.commands.aiming import Target, aim
from daemon.commands.choices import Choices
from daemon.commands.counted import ReturnsFile, open_ledger, trials_of
from daemon.commands.sharding import Job, Offer, offering
from daemon.commands.sweeping import Search, points_of
from daemon.console import making, write, write_json, write_table
from markets.history import utc


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a walk shall leave behind."""

    report: Path | None = None
    returns: Path | None = None
    json: bool = False


def walk_and_tell(
    choices: Choices, timerange: str | None, terms: Terms, search: Search, wishes: Wishes
) -> None:
    """Walk, tell the windows, and write what is wished."""
    target = aim(choices, timerange)
    cuts, points = cuts_of(target.subject, terms), points_of(search, target.axes)
    url = search.journal or target.resolved.settings.paths.journal
    job = Job(choices=choices, timerange=timerange, search=search.terms(target.axes))
    with open_ledger(url) as ledger, offering(url, job, wished=search.shards) as offer:
        done = _walk(target, terms, search, cuts, points, ledger, offer, wishes)
    if wishes.report is not None:
        from backtest.report.walk_forward import write_walk

        write_walk(wishes.report, done)
    _tell(done, len(points), wishes)


def _walk(
    target: Target,
    terms: Terms,
    search: Search,
    cuts: list[Cut],
    points: list[Point],
    ledger: Ledger,
    offer: Offer | None,
    wishes: Wishes,
) -> Walk:
    """The walk, begun in the ledger as a trial of its own before its first window is fitted."""
    subject = target.subject
    key = subject.key({**terms.plain(), **search.terms(target.axes)})
    trials = trials_of(ledger, subject, f"walk-forward-{key}")
    trials.on_trials_begin([terms.lengths])
    events = sum(fitted_on(subject, cut, terms).events for cut in cuts)
    with making(events * len(points), quiet=wishes.json, what="bars") as progress:
        if offer is None:
            sweeper = _Sweeper(ledger, search, points, search.terms(target.axes), progress)
            fits = fits_here(subject, terms, cuts, sweeper.rows)
        else:
            progress(0)
            fits = offer.fits(subject, terms, cuts, points)
        done = walk(subject, terms, cuts, fits)
    trials.on_trials_end([done.row])
    if wishes.returns is not None:
        file = ReturnsFile(wishes.returns, trials)
        file.add(done.row)
        file.write(ledger, int(done.stitched.block["ts_known"][0]))
    return done


@dataclass(frozen=True, slots=True)
class _Sweeper:
    """Sweeps what a fit may see, every combination a trial of the fit's own study."""

    ledger: Ledger
    search: Search
    points: list[Point]
    terms: dict[str, Any]
    progress: Progress

    def rows(self, subject: Subject) -> Iterator[Row]:
        study = f"fit-{subject.key(self.terms)}"
        sweep = Sweep(
            subject,
            threads=self.search.threads or os.cpu_count() or 1,
            search=self.terms,
            trials=trials_of(self.ledger, subject, study),
            progress=self.progress,
        )
        return sweep.run(self.points)


def _tell(done: Walk, combinations: int, wishes: Wishes) -> None:
    told = done.plain()
    if wishes.json:
        write_json({"combinations": combinations, **told})
        return
    metric = done.terms.metric
    columns = ("window", "parameters", f"{metric} in", "out", "return %", "trades")
    write_table(columns, [_row(window, metric) for window in told["windows"]], wraps=["parameters"])
    write()
    whole = told["out_of_sample"]
    write(
        f"{len(done.windows)} windows, each the best of {combinations:,} on what came before: "
        f"{whole['return'] * 100:+.2f} % out of sample, Sharpe {_figure(whole['sharpe'])}, "
        f"deepest drawdown {whole['max_drawdown'] * 100:.2f} %, {whole['trades']} trades"
    )
    if done.ruined:
        write("ruined: the equity was gone before the last window")
    for what, path in (("report", wishes.report), ("returns", wishes.returns)):
        if path is not None:
            write(f"{what}: {path}")


def _row(window: dict[str, Any], metric: str) -> tuple[Any, ...]:
    params, outside = window["params"], window["out_of_sample"]
    inside = window["in_sample"] or {}
    shown = "none" if params is None else " ".join(f"{k}={v:.6g}" for k, v in params.items())
    return (
        utc(window["begin_ms"])[:16],
        shown,
        _figure(inside.get(metric)),
        _figure(outside.get(metric)),
        round(outside["return"] * 100, 2),
        outside["trades"],
    )


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
