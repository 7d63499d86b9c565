"""Running a cross-validation: every fit and the whole in the ledger, its paths told."""

from dataclasses import replace
from functools import partial
from statistics import median

from backtest.cross_validation import (
    CrossValidation,
    Plan,
    Terms,
    cross_validate,
    fits_of,
    plan_of,
    swept_here,
)
from backtest.stretches import parted, within
from backtest.sweep.space import Point
from backtest.validation.ledger import Ledger
from daemon.commands.aiming import Target, aim
from daemon.commands.choices import Choices
from daemon.commands.counted import open_ledger, trials_of
from daemon.commands.sharding import Job, Offer, offering
from daemon.commands.sweeping import Search, points_of
from daemon.commands.walking import Fitter, Wishes, drawn, end_trial, figure, tell_files
from daemon.console import making, write, write_json, write_table

PATHS_SHOWN = 12


def cross_validate_and_tell(
    choices: Choices, timerange: str | None, terms: Terms, search: Search, wishes: Wishes
) -> None:
    """Cross-validate, tell the paths, and write what is wished."""
    target = aim(choices, timerange)
    terms = replace(terms, held_out=drawn(target.subject, terms.held_out))
    plan, points = plan_of(target.subject, terms), points_of(search, target.axes)
    url = search.journal or target.resolved.settings.paths.journal
    job = Job(choices=choices, timerange=timerange, search=search.terms(target.axes))
    with open_ledger(url) as ledger, offering(url, job, wished=search.shards) as offer:
        done = _validated(target, terms, search, plan, points, ledger, offer, wishes)
    if wishes.report is not None:
        from backtest.report.cross_validation import write_cross_validation

        write_cross_validation(wishes.report, done)
    _tell(done, len(points), wishes)


def _validated(
    target: Target,
    terms: Terms,
    search: Search,
    plan: Plan,
    points: list[Point],
    ledger: Ledger,
    offer: Offer | None,
    wishes: Wishes,
) -> CrossValidation:
    """Begun in the ledger as a trial of its own before anything is fitted."""
    subject = target.subject
    asked = search.terms(target.axes)
    key = subject.key({**terms.plain(), **asked})
    trials = trials_of(ledger, subject, f"cross-validation-{key}")
    trials.on_trials_begin([terms.lengths])
    names, _ = parted(subject, terms.held_out)
    events = sum(within(subject, *piece, names).events for piece in plan.pieces)
    with making(events * len(points), quiet=wishes.json, what="bars") as progress:
        if offer is None:
            swept = swept_here(subject, terms, Fitter(ledger, search, asked, progress).rows)
        else:
            progress(0)
            swept = partial(offer.pieces, subject, names)
        fits = fits_of(subject, terms, plan, points, swept)
        done = cross_validate(subject, terms, plan, fits)
    end_trial(trials, ledger, done.row, done.paths[0].whole, wishes)
    return done


def _tell(done: CrossValidation, combinations: int, wishes: Wishes) -> None:
    plain = done.plain()
    if wishes.json:
        write_json({"combinations": combinations, **plain})
        return
    columns = ("path", "return %", "sharpe", "sortino", "drawdown %", "trades")
    rows = [
        (
            place + 1,
            f"{path['return'] * 100:.2f}",
            figure(path["sharpe"]),
            figure(path["sortino"]),
            f"{path['max_drawdown'] * 100:.2f}",
            path["trades"],
        )
        for place, path in enumerate(plain["paths"])
    ]
    write_table(columns, rows[:PATHS_SHOWN])
    if len(rows) > PATHS_SHOWN:
        write(f"and {len(rows) - PATHS_SHOWN} more: see --report or --json")
    write()
    _sum_up(done, combinations)
    if plain["ruined"]:
        write(f"ruined: {plain['ruined']} paths lost all they had before the last group")
    tell_files(wishes)


def _sum_up(done: CrossValidation, combinations: int) -> None:
    """What it comes to, in three lines."""
    lost = sum((path.figures["return"] or 0.0) < 0 for path in done.paths)
    write(
        f"{len(done.plan.cuts)} splits, each the best of {combinations:,} on "
        f"{len(done.plan.groups) - done.terms.tests} of {len(done.plan.groups)} groups"
    )
    for name, told, unit in (("sharpe", "Sharpe", 1), ("return", "return %", 100)):
        spread = done.spread(name)
        if spread is None:
            write(f"{told} of the paths: not defined on every one")
            continue
        low, middle, high = (value * unit for value in spread)
        write(f"{told} of the paths: median {middle:.2f}, from {low:.2f} to {high:.2f}")
    write(f"{lost} of {len(done.paths)} paths lose")
    if done.pairs:
        inside, outside = (median(pair[k] for pair in done.pairs) for k in (0, 1))
        metric = done.terms.metric
        write(f"{metric} of the splits: median {inside:.2f} inside, {outside:.2f} outside")
