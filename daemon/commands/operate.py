"""``lockstep status``, ``halt``, ``resume`` and the like: a running daemon, seen and commanded.

Every verb asks the daemon's own HTTP API, so a person has no other way in than a program has, and
what was ordered stands in the journal whoever ordered it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.commands.options import Config, Json, Profile, taking

if TYPE_CHECKING:
    from daemon.control.client import Client

STATUS_EPILOG = "Example: lockstep status --json"
POSITIONS_EPILOG = "Example: lockstep positions --all"
TRADES_EPILOG = "Example: lockstep trades --limit 5"
COMMANDS_EPILOG = "Example: lockstep commands --limit 5"
HALT_EPILOG = (
    "Example: lockstep halt --reason 'venue looks wrong'\n\n"
    "Example: lockstep halt --flatten --reason 'venue may close'\n\nWorking orders are cancelled, "
    "positions stay; strategies may only shrink them. With --flatten every book is closed, what is "
    "left of it again at each bar. Only 'resume' ends it, a restart does not."
)
RESUME_EPILOG = "Example: lockstep resume --reason 'feed is back, positions checked'"
REDUCE_EPILOG = "Example: lockstep reduce-only --reason 'ahead of the print'"
CLOSE_EPILOG = (
    "Example: lockstep close trend@SOL-PERP --reason 'delisted tomorrow'\n\nThe book stays flat "
    "until its strategy wants another direction."
)
TAIL_EPILOG = (
    "Example: lockstep tail -f daemon.log --book trend@SOL-PERP\n\n"
    "Example: journalctl -fu lockstep -o cat | lockstep tail - --level warning"
)
LEVELS = ("debug", "info", "warning", "error", "critical")

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The daemon; default: api.host and port.")
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="Default: api.token_file.")
]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Kept beside the command.")]
MustSayWhy = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Needed, and kept beside the command.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="How many at most.")]
BookName = Annotated[str, typer.Argument(metavar="BOOK", help="As 'lockstep positions' names it.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """The flags that say which daemon is asked, with what token, and how its answer is shown."""

    url: Url = None
    token_file: TokenFile = None
    profile: Profile = None
    config: Config = None
    json: Json = False


@taking(Daemon)
def status(daemon: Daemon) -> None:
    """Show how the running daemon does."""
    from daemon.console import write, write_json, write_pairs, write_table

    found = _asked(daemon, "/status")
    if daemon.json:
        write_json(found)
        return
    instruments = found.pop("instruments", [])
    write_pairs([(_spoken(name), _cell(name, value)) for name, value in found.items()])
    if instruments:
        write()
        columns = ("instrument", "price", "regime", "open", "linked", "bar_ts")
        write_table([_spoken(name) for name in columns], _rows(instruments, columns))


@taking(Daemon)
def positions(
    daemon: Daemon,
    all_: Annotated[bool, typer.Option("--all", help="Flat books too.")] = False,
) -> None:
    """List what every book holds."""
    found = _asked(daemon, "/positions")
    rows = found if all_ or daemon.json else [row for row in found if row["quantity"]]
    columns = ("book", "quantity", "entry", "price", "unrealised", "target")
    _show(daemon, rows, columns, none="every book is flat")


@taking(Daemon)
def trades(daemon: Daemon, limit: Limit = 20) -> None:
    """List the last round trips, the newest first."""
    found = _asked(daemon, "/trades", limit=limit)
    columns = ("ts", "book", "quantity", "entry", "price", "net", "exit")
    rows = found if daemon.json else [{**row, "exit": _exit(row)} for row in found]
    _show(daemon, rows, columns, none="no trade yet")


@taking(Daemon)
def commands(daemon: Daemon, limit: Limit = 20) -> None:
    """List the last commands, who gave them and why."""
    found = _asked(daemon, "/commands", limit=limit)
    _show(daemon, found, ("ts", "word", "book", "who", "reason"), none="no command yet")


@taking(Daemon)
def halt(
    daemon: Daemon,
    reason: Why = "",
    flatten: Annotated[
        bool, typer.Option("--flatten", help="Close every book too; needs --reason.")
    ] = False,
) -> None:
    """Stop all new risk now, and until 'resume'."""
    if flatten and not reason:
        raise typer.BadParameter("it trades at once, so it needs --reason", param_hint="--flatten")
    _order(daemon, {"word": "flatten" if flatten else "halt", "reason": reason})


@taking(Daemon)
def reduce_only(daemon: Daemon, reason: Why = "") -> None:
    """Let positions shrink only, until 'resume'."""
    _order(daemon, {"word": "reduce_only", "reason": reason})


@taking(Daemon)
def resume(daemon: Daemon, reason: MustSayWhy) -> None:
    """Lift a halt or reduce-only.

    The drawdown is counted anew from here.
    """
    _order(daemon, {"word": "resume", "reason": reason})


@taking(Daemon)
def close(daemon: Daemon, book: BookName, reason: MustSayWhy) -> None:
    """Close the position of one book."""
    _order(daemon, {"word": "close", "book": book, "reason": reason})


def tail(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="The log; '-' reads stdin.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="From the end.")] = 50,
    instrument: Annotated[
        list[str] | None, typer.Option("--instrument", metavar="NAME", help="Repeatable.")
    ] = None,
    book: Annotated[
        list[str] | None, typer.Option("--book", metavar="NAME", help="Repeatable.")
    ] = None,
    level: Annotated[str, typer.Option("--level", help="This level and above.")] = "debug",
    json: Annotated[bool, typer.Option("--json", help="The chosen entries as JSON lines.")] = False,
) -> None:
    """Read the daemon's log."""
    import os
    import sys
    from time import sleep

    from core.errors import UnknownName
    from daemon.console import write
    from daemon.control.tailing import Filter, lines_of, views

    if level not in LEVELS:
        raise UnknownName("level", level, LEVELS)
    chosen = Filter(level=level, instruments=tuple(instrument or ()), books=tuple(book or ()))
    source = sys.stdin if file == "-" else None
    found = source or lines_of(Path(file), last=lines, follow=follow, sleep=sleep)
    try:
        for text in views(found, chosen, raw=json):
            write(text)
            sys.stdout.flush()
    except BrokenPipeError:
        # whoever read us has seen enough, and the interpreter must not write to him at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _client(daemon: Daemon) -> "Client":
    """The daemon that flags or settings name, with the token of the file or the settings."""
    import os

    from core.errors import ConfigError
    from daemon.commands.choices import Choices, read_settings
    from daemon.console import write
    from daemon.control import auth
    from daemon.control.client import Client
    from daemon.control.credentials import read_private
    from daemon.observe.redaction import SECRETS

    settings = read_settings(Choices(profile=daemon.profile, config=daemon.config)).settings
    if daemon.token_file is not None:
        token: str | None = read_private(daemon.token_file)
    else:
        token = auth.find_token(settings, os.environ)
    if token is not None:
        SECRETS.add(token)
    else:
        raise ConfigError(
            f"no token: {auth.token_file(settings)} is not there: give --token-file, or set "
            "LOCKSTEP__API__TOKEN"
        )
    client = Client(daemon.url or _address(settings.api.host, settings.api.port), token)
    if client.in_the_clear:
        write("the token goes over plain http: use https, or a tunnel to loopback", to_error=True)
    return client


def _address(host: str, port: int) -> str:
    """Where a daemon with these settings is reached from its own machine."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def _asked(daemon: Daemon, path: str, **params: int) -> Any:
    with _client(daemon) as client:
        return _plain(client.get(path, **params))


def _order(daemon: Daemon, body: dict[str, Any]) -> None:
    from getpass import getuser

    from daemon.console import write, write_json

    try:
        body["by"] = getuser()[:64]
    except (KeyError, OSError):
        body["by"] = ""
    with _client(daemon) as client:
        answer = _plain(client.post("/command", body))
    if daemon.json:
        write_json(answer)
        return
    whom = f" {answer['book']}" if answer.get("book") else ""
    write(f"{_spoken(answer['word'])}{whom}: in effect, and journaled as event {answer['seq']:,}")


def _show(daemon: Daemon, rows: list[Any], columns: tuple[str, ...], *, none: str) -> None:
    from daemon.console import write, write_json, write_table

    if daemon.json:
        write_json(rows)
    elif rows:
        wraps = ["book", "exit", "who", "reason"]
        write_table([_spoken(name) for name in columns], _rows(rows, columns), wraps=wraps)
    else:
        write(none)


def _rows(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> list[list[Any]]:
    return [[_cell(name, row.get(name)) for name in columns] for row in rows]


def _exit(trade: dict[str, Any]) -> str:
    """Why a trade ended, in the words of the person who ended it."""
    said = trade.get("command")
    return f"{said['who']}: {said['reason']}" if said else str(trade["exit"])


def _cell(name: str, value: Any) -> Any:
    """A value as a table shows it: a stamp as a time in UTC, a command as a sentence."""
    if name == "last_command" and value:
        told = [_spoken(value["word"]), value["book"], "by", value["who"] or "nobody named"]
        why = f": {value['reason']}" if value["reason"] else ""
        return f"{' '.join(filter(None, told))}{why} ({_cell('ts', value['ts'])})"
    if name.endswith("ts") and isinstance(value, int):
        from markets.history import utc

        return utc(value // 1000 * 1000)[5:19].replace("T", " ")
    return value


def _spoken(name: str) -> str:
    return {"ts": "time"}.get(name, name.removesuffix("_ts").replace("_", " "))


def _plain(value: Any) -> Any:
    """What a daemon answered, fit for a terminal."""
    from daemon.control.text import shown

    if isinstance(value, dict):
        return {shown(name, 60): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return shown(value, 200) if isinstance(value, str) else value
