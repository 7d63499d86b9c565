"""``lockstep validate``: the gate's verdict on the best of a sweep, or on one recorded replay."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError
from daemon.commands.journals import Url
from daemon.commands.options import Config, Json, Profile

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

    from backtest.run import Run
    from backtest.validation.ledger import History
    from backtest.validation.verdict import Check, Evidence, Verdict
    from config.layers import Resolved

EPILOG = (
    "Example: lockstep validate sweep.npz --run 2e2206e993c6 --report validation.html\n\n"
    "See it open and shut: lockstep validate --example --report validation.html\n\n"
    "The number of trials is that of the trial ledger in the journal; for a run by itself, with "
    "the replays recorded beside it. A run is replayed with higher costs, one bar late and with "
    "fills missed: without --run that is not shown, and what is not shown fails. Exit code 0: it "
    "passes; 1: it does not."
)
SEED = 20_261_121
"""Of the bars that dry up in the world of missed fills, and of the paths of the report."""


def validate(
    returns: Annotated[
        Path | None, typer.Argument(metavar="RETURNS", help="Trial returns of a sweep (.npz).")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="The candidate's recorded replay.")
    ] = None,
    trial: Annotated[
        str | None, typer.Option(metavar="ID", help="A trial of the sweep; default: the best.")
    ] = None,
    journal: Url = None,
    profile: Profile = None,
    config: Config = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The verdict as an HTML page.")
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Judge two made-up searches: an edge, and none.")
    ] = False,
    json: Json = False,
) -> None:
    """Ask whether a strategy is more than the luckiest tried."""
    from backtest.validation.verdict import judge
    from daemon.commands.choices import Choices, read_settings
    from daemon.console import write_json
    from daemon.journal import open_journal

    if example:
        raise typer.Exit(_judge_examples(report, json=json))
    if returns is None and run is None:
        raise ConfigError("validate what? give the returns of a sweep, or --run RUN, or both")
    if returns is None and trial is not None:
        raise ConfigError("--trial names a trial of a sweep: give the sweep's returns too")
    resolved = read_settings(Choices(profile=profile, config=config))
    database = open_journal(journal or resolved.settings.paths.journal)
    try:
        shown = _gathered(database, resolved, returns, run, trial)
    finally:
        database.dispose()
    verdict = judge(shown)
    if report is not None:
        _write_page(report, [(shown, verdict)])
    if json:
        write_json(verdict.plain())
    else:
        _tell(verdict)
        _tell_place(report)
    raise typer.Exit(0 if verdict.passed else 1)


def _gathered(
    database: "Database",
    resolved: "Resolved",
    returns: Path | None,
    run: str | None,
    trial: str | None,
) -> "Evidence":
    """The evidence, whole: LedgerBroken when the ledger or the returns are not as written."""
    from backtest.validation.returns import read_returns
    from backtest.validation.verdict import gather
    from daemon.journal.trials import trial_ledger

    ledger = trial_ledger(database)
    if returns is None:
        assert run is not None, "one of them is given"
        return _single(database, resolved, ledger.history(), run)
    found = read_returns(returns)
    stressed: dict[str, Any] = {}
    if run is not None:
        candidate, stressed = _replayed(database, resolved, run)
        named = _trial_of(ledger.history().results(found.study), candidate)
        if named is None:
            raise ConfigError(f"run {run} decides as no trial of {found.study} did")
        if trial not in (None, named):
            raise ConfigError(f"run {run} is trial {named}, not {trial}")
        trial = named
    return gather(found, ledger, candidate=trial, stressed=stressed)


def _single(
    database: "Database", resolved: "Resolved", history: "History", name: str
) -> "Evidence":
    """One replay by itself. Replays that nobody swept count as trials too, where recorded."""
    from backtest.statistics import daily_returns
    from backtest.validation.verdict import Evidence
    from daemon.journal import RunMode, list_runs

    run, stressed = _replayed(database, resolved, name)
    counted = {ending.decisions_hash for ending in history.endings.values()}
    replays = {row.decisions_hash for row in list_runs(database) if row.mode is RunMode.REPLAY}
    known = _trial_of(history.endings, run)
    return Evidence(
        returns=daily_returns(run)[:, None],
        candidate=0,
        trials=history.count + len(replays - counted - {None}),
        name=name,
        stressed=stressed,
        uncounted="" if known else "no trial of the ledger decided so: how many were tried?",
        turns=(history.turns[known],) if known else (),
    )


def _trial_of(endings: Any, run: "Run") -> str | None:
    """The trial that decided as this run does."""
    return next(
        (name for name, each in endings.items() if each.decisions_hash == run.decisions_hash), None
    )


def _replayed(
    database: "Database", resolved: "Resolved", name: str
) -> "tuple[Run, dict[str, Any]]":
    """A recorded replay, folded again as it was, and its returns in harder worlds."""
    from backtest.recorded import replay_recorded
    from backtest.stress import stressed
    from core.errors import JournalError
    from daemon.commands.audit import finder
    from daemon.journal import read_events, read_run_row

    row = read_run_row(database, name)
    if not row.recorded:
        raise ConfigError(f"run {name} has no events in the journal: replay it with --to-journal")
    events, config = read_events(database, name), dict(row.config)
    found = finder(resolved)
    run = replay_recorded(config, events, found)
    if row.decisions_hash is not None and run.decisions_hash != row.decisions_hash:
        raise JournalError(f"run {name} parts from its record: see `lockstep audit {name}`")
    return run, stressed(config, events, found, seed=SEED)


def _tell(verdict: "Verdict") -> None:
    from daemon.console import write, write_note, write_table

    word = "passes" if verdict.passed else "does not pass"
    write(f"{verdict.candidate} {word}: {verdict.trials:,} trials, {verdict.days:,} days")
    write()
    rows = [_row(check) for check in verdict.judged]
    write_table(("check", "figure", "asked", ""), rows)
    write()
    told = [check for check in verdict.checks if check.passed is None]
    write_table(("beside it", "figure"), [_row(check)[:2] for check in told])
    write()
    for check in verdict.checks:
        if check.passed is False or check.value is None:
            write_note(f"{check.name}: {check.why}")


def _tell_place(report: Path | None) -> None:
    from daemon.console import write

    if report is not None:
        write(f"report: {report}")


def _row(check: "Check") -> tuple[str, str, str, str]:
    asked = "" if check.threshold is None else f"{check.side} {_figure(check.threshold)}"
    return check.name, _figure(check.value), asked, "pass" if check.passed else "FAIL"


def _figure(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3f}"


def _write_page(path: Path, judged: "list[tuple[Evidence, Verdict]]") -> None:
    from backtest.report.validation import write_validation

    write_validation(path, judged, seed=SEED)


def _judge_examples(report: Path | None, *, json: bool) -> int:
    """0 when the gate opens for the edge and shuts for the noise, else 1."""
    from backtest.validation.examples import with_an_edge, without_an_edge
    from backtest.validation.verdict import judge
    from daemon.console import write, write_json

    judged = [(shown, judge(shown)) for shown in (with_an_edge(SEED), without_an_edge(SEED))]
    if report is not None:
        _write_page(report, judged)
    if json:
        write_json({verdict.candidate: verdict.plain() for _, verdict in judged})
    else:
        for _, verdict in judged:
            _tell(verdict)
            write()
        _tell_place(report)
    return 0 if [verdict.passed for _, verdict in judged] == [True, False] else 1
