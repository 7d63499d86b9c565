"""Running a walk forward: every fit and the walk itself in the ledger, its windows told."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backtest.run import Run
from backtest.splits import held_out
from backtest.sweep.counting import LedgerTrials
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

HELD_OUT_KEY = "lockstep"
"""Drawn by another key, an instrument that one search has seen would be held out of the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a walk or a cross-validation shall leave behind."""

    report: Path | None = None
    returns: Path | None = None
    json: bool = False


def walk_and_tell(
    choices: Choices, timerange: str | None, terms: Terms, search: Search, wishes: Wishes
) -> None:
    """Walk, tell the windows, and write what is wished."""
    target = aim(choices, timerange)
    terms = replace(terms, held_out=drawn(target.subject, terms.held_out))
    cuts, points = cuts_of(target.subject, terms), points_of(search, target.axes)
    url = search.journal or target.resolved.settings.paths.journal
    job = Job(choices=choices, timerange=timerange, search=search.terms(target.axes))
    with open_ledger(url) as ledger, offering(url, job, wished=search.shards) as offer:
        done = _walk(target, terms, search, cuts, points, ledger, offer, wishes)
    if wishes.report is not None:
        from backtest.report.walk_forward import write_walk

        write_walk(wishes.report, done)
    _tell(done, len(points), wishes)


def drawn(subject: Subject, wished: Sequence[str]) -> tuple[str, ...]:
    """The instruments that are held out: names as they are, and of ``25%`` that share of all, each
    drawn by its own name, so that every search holds out the same."""
    names = [instrument.name for instrument in subject.setup.instruments]
    found: list[str] = []
    for text in wished:
        share = parse_share(text)
        found += [text] if share is None else held_out(names, share, HELD_OUT_KEY)
    return tuple(dict.fromkeys(found))


def parse_share(text: str) -> float | None:
    """``25%`` as 0.25; None for what is no share."""
    number = text.removesuffix("%")
    return float(number) / 100 if number != text and number.replace(".", "", 1).isdigit() else None


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
            fitter = Fitter(ledger, search, search.terms(target.axes), progress)
            fits = fits_here(subject, terms, cuts, lambda seen: fitter.rows(seen, points))
        else:
            progress(0)
            fits = offer.fits(subject, terms, cuts, points)
        done = walk(subject, terms, cuts, fits)
    end_trial(trials, ledger, done.row, done.stitched, wishes)
    return done


def end_trial(trials: LedgerTrials, ledger: Ledger, row: Row, whole: Run, wishes: Wishes) -> None:
    """Tell the ledger what a whole procedure came to; ``whole`` is a run that begins with it."""
    trials.on_trials_end([row])
    if wishes.returns is not None:
        file = ReturnsFile(wishes.returns, trials)
        file.add(row)
        file.write(ledger, int(whole.block["ts_known"][0]))


@dataclass(frozen=True, slots=True)
class Fitter:
    """Sweeps what a fit may see, every combination a trial of the fit's own study."""

    ledger: Ledger
    search: Search
    terms: dict[str, Any]
    progress: Progress

    def rows(self, subject: Subject, points: Sequence[Point]) -> Iterator[Row]:
        """The rows of these combinations."""
        study = f"fit-{subject.key(self.terms)}"
        sweep = Sweep(
            subject,
            threads=self.search.threads or os.cpu_count() or 1,
            search=self.terms,
            trials=trials_of(self.ledger, subject, study),
            progress=self.progress,
        )
        return sweep.run(points)


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
        f"{whole['return'] * 100:+.2f} % out of sample, Sharpe {figure(whole['sharpe'])}, "
        f"deepest drawdown {whole['max_drawdown'] * 100:.2f} %, {whole['trades']} trades"
    )
    if done.ruined:
        write("ruined: the equity was gone before the last window")
    tell_files(wishes)


def tell_files(wishes: Wishes) -> None:
    """Where the files are that were wished for."""
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
        figure(inside.get(metric)),
        figure(outside.get(metric)),
        round(outside["return"] * 100, 2),
        outside["trades"],
    )


def figure(value: float | None) -> str:
    """A figure as a table shows it."""
    return "none" if value is None else f"{value:.2f}"
