"""``lockstep audit`` and ``what-if``: a recorded run folded again, as it was or with a change."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError
from daemon.commands.journals import Url, journal_url
from daemon.commands.options import Json, Profile, Sets

if TYPE_CHECKING:
    from core.model import Records
    from core.strategy import Strategy

AUDIT_EPILOG = (
    "Example: lockstep audit paper-demo --since 20261101\n\n"
    "Exit code 0: every decision and outcome is the recorded one; 1: they part."
)
WHAT_IF_EPILOG = "Example: lockstep what-if paper-demo --set limits.cooldown_ms=600000"

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run in the journal.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Compare from here on (UTC).")
]


def audit(
    run: RunName,
    since: Since = None,
    journal: Url = None,
    profile: Profile = None,
    json: Json = False,
) -> None:
    """Fold a recorded run again and compare every outcome with the record."""
    from backtest.recorded import replay_recorded
    from daemon.commands.names import parse_timerange
    from daemon.console import write, write_json
    from daemon.live.recovery import divergence
    from markets.history import utc

    config, events, recorded = _read(run, journal)
    again = replay_recorded(config, events, _finder(profile)).outcomes
    first_ms = parse_timerange(f"{since}-")[0] if since else 0
    kept = [rows[rows["ts"] >= (first_ms or 0)] for rows in (again, recorded)]
    parted = divergence(kept[0], kept[1])
    result: dict[str, Any] = {
        "run": run,
        "equal": parted is None,
        "events": len(events),
        "outcomes": len(kept[1]),
        "until": utc(int(events["ts_known"][-1])) if len(events) else None,
        "first": None if parted is None else str(parted),
    }
    if json:
        write_json(result)
    elif parted is None:
        write(f"run {run}: {len(kept[1]):,} outcomes of {len(events):,} events, all as recorded")
    else:
        write(f"run {run} parts from its record at outcome {parted.place:,}: {parted}")
    raise typer.Exit(0 if parted is None else 1)


def what_if(
    run: RunName,
    set_: Sets = None,
    journal: Url = None,
    profile: Profile = None,
    json: Json = False,
) -> None:
    """Fold a recorded run with a limit, size or parameter changed; show where and what differs."""
    from dataclasses import asdict

    from backtest.recorded import changed, replay_recorded
    from daemon.commands.comparison import compare
    from daemon.commands.runs import tell_difference
    from daemon.console import write_json

    if not set_:
        raise ConfigError("what if what? give --set KEY=VALUE, such as limits.cooldown_ms=600000")
    config, events, _ = _read(run, journal)
    other = config
    for text in set_:
        key, value = _pair(text)
        other = changed(other, key, value)
    find = _finder(profile)
    was, would_be = (replay_recorded(terms, events, find) for terms in (config, other))
    found = compare(was, would_be)
    if json:
        write_json({"run": run, "changed": list(set_), **asdict(found)})
    else:
        tell_difference(was, would_be, found)


def _pair(text: str) -> tuple[str, float]:
    key, equals, value = text.partition("=")
    try:
        return key.strip(), float(value)
    except ValueError:
        wanted = "KEY=NUMBER" if not equals else "a number after the ="
        raise ConfigError(f"--set {text}: expected {wanted}") from None


def _read(run: str, journal: str | None) -> "tuple[dict[str, Any], Records, Records]":
    """Config, events and outcomes of a recorded run."""
    from daemon.journal import open_journal, read_events, read_outcomes, read_run_row

    database = open_journal(journal_url(journal))
    try:
        row = read_run_row(database, run)
        if not row.recorded:
            raise ConfigError(f"run {run} has no events in the journal: record it with --record")
        return dict(row.config), read_events(database, run), read_outcomes(database, run)
    finally:
        database.dispose()


def _finder(profile: str | None) -> Any:
    """Strategies by name; the plugins are those of the profile, or of the environment."""
    from daemon.commands.choices import Choices, read_settings
    from daemon.plugins import load_plugins
    from strategies.registry import find

    paths = read_settings(Choices(profile=profile)).settings.plugins.paths
    plugins = load_plugins(paths).strategies

    def found(name: str) -> "Strategy":
        return find(name, plugins)

    return found
