"""``lockstep audit`` and ``what-if``: a recorded run folded again, as it was or with a change."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError
from daemon.commands.journals import Url
from daemon.commands.options import Config, Json, Profile, Record, Rules, Sets, Strategies

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

    from config.layers import Resolved
    from core.strategy import Strategy
    from daemon.journal import RunRow
    from daemon.live.recovery import Audit

AUDIT_EPILOG = (
    "Example: lockstep audit paper-demo --since 20261101\n\n"
    "A run of your own rules or plugins needs the flags or the profile that named them. "
    "Exit code 0: every decision and outcome is the recorded one; 1: they part."
)
WHAT_IF_EPILOG = (
    "Example: lockstep what-if paper-demo --set limits.cooldown_ms=600000\n\n"
    "Where books ask a model, recorded answers are left out and the cassette of the settings is "
    "asked: --set advice.model=NAME, advice.confidence_min=0.8; what it lacks wants --record."
)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run in the journal.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Compare from here on (UTC).")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="Go on from the state kept here; keep the new one when all is as recorded.",
    ),
]


def audit(
    run: RunName,
    since: Since = None,
    journal: Url = None,
    strategy: Strategies = None,
    rules: Rules = None,
    set_: Sets = None,
    profile: Profile = None,
    config: Config = None,
    checkpoint: Checkpoint = None,
    json: Json = False,
) -> None:
    """Fold a recorded run again, and compare every outcome."""
    from backtest.recorded import engine_of
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.names import parse_timerange
    from daemon.console import write_json
    from daemon.live.checkpoints import keep_checkpoint, lay_checkpoint
    from daemon.live.recovery import audit_record

    choices = Choices(
        profile=profile,
        config=config,
        strategies=strategy or (),
        rules=rules or (),
        sets=set_ or (),
    )
    resolved = read_settings(choices)
    since_ms = parse_timerange(f"{since}-")[0] if since else None
    with _opened(journal, resolved) as database:
        row = _recorded(database, run)
        engine = engine_of(row.config, finder(resolved))
        if checkpoint:
            lay_checkpoint(checkpoint, engine, row)
        found = audit_record(engine, database, run, since_ms=since_ms or 0)
    if checkpoint and found.first is None:
        keep_checkpoint(checkpoint, engine, row)
    if json:
        write_json(_plain(run, found))
    else:
        _tell(run, found)
    raise typer.Exit(0 if found.first is None else 1)


def what_if(
    run: RunName,
    set_: Sets = None,
    journal: Url = None,
    profile: Profile = None,
    config: Config = None,
    record: Record = False,
    json: Json = False,
) -> None:
    """Fold a recorded run with a change, show what differs.

    Of a limit, size, parameter, model, prompt or confidence.
    """
    from dataclasses import asdict

    from backtest.recorded import asks, changed, replay_recorded
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.comparison import compare
    from daemon.commands.runs import tell_difference
    from daemon.console import write_json
    from daemon.journal import read_events

    if not set_:
        raise ConfigError("what if what? give --set KEY=VALUE, such as limits.cooldown_ms=600000")
    resolved = read_settings(Choices(profile=profile, config=config))
    with _opened(journal, resolved) as database:
        terms = dict(_recorded(database, run).config)
        events = read_events(database, run)
    other = terms
    for text in set_:
        key, value = _pair(text)
        other = changed(other, key, value)
    find = finder(resolved)
    was = replay_recorded(terms, events, find)
    with ExitStack() as stack:
        advisor = None
        if asks(other):
            from daemon.commands.advisors import open_advised

            agents = any(book["advice"] and book["advice"]["agent"] for book in other["books"])
            asked = open_advised(resolved.settings, calls=record, agents=agents)
            advisor = stack.enter_context(asked)
        would_be = replay_recorded(other, events, find, advisor)
    found = compare(was, would_be)
    if json:
        write_json({"run": run, "changed": list(set_), **asdict(found)})
    else:
        tell_difference(was, would_be, found)


def _pair(text: str) -> tuple[str, float | str]:
    key, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise ConfigError(f"--set {text}: expected KEY=VALUE")
    try:
        return key.strip(), float(value)
    except ValueError:
        return key.strip(), value.strip()


def _plain(run: str, found: "Audit") -> dict[str, Any]:
    from core.compiled import source_digest
    from markets.history import utc

    return {
        "run": run,
        "code": source_digest()[:16],
        "equal": found.first is None,
        "events": found.events,
        "outcomes": found.outcomes,
        "mismatches": found.mismatches,
        "until": None if found.until_ms is None else utc(found.until_ms),
        "first": None if found.first is None else str(found.first),
    }


def _tell(run: str, found: "Audit") -> None:
    from daemon.console import write

    compared = f"{found.outcomes:,} outcomes of {found.events:,} events"
    if found.first is None:
        write(f"run {run}: {compared}, all as recorded")
    else:
        place = f"parts from its record at outcome {found.first.place:,}"
        write(f"run {run} {place}: {found.first}")
        write(f"{found.mismatches:,} differ among {compared}")


@contextmanager
def _opened(journal: str | None, resolved: "Resolved") -> Iterator["Database"]:
    from daemon.journal import open_journal

    database = open_journal(journal or resolved.settings.paths.journal)
    try:
        yield database
    finally:
        database.dispose()


def _recorded(database: "Database", run: str) -> "RunRow":
    from daemon.journal import read_run_row

    row = read_run_row(database, run)
    if not row.recorded:
        raise ConfigError(f"run {run} has no events in the journal: replay it with --to-journal")
    return row


def finder(resolved: "Resolved") -> Any:
    """Strategies by name: those the settings name, rules among them, plugins, and all that ship."""
    from daemon.commands.shelf import open_shelf
    from strategies.registry import find

    shelf = open_shelf(resolved)
    stanzas = [shelf.strategy(label) for label in resolved.settings.strategies]
    named = {strategy.name: strategy for strategy in stanzas}

    def found(name: str) -> "Strategy":
        return named.get(name) or find(name, shelf.plugins.strategies)

    return found
