"""``lockstep runs``, ``report`` and ``diff``: the runs that were kept, one of them, two of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.commands.options import Json, Runs

if TYPE_CHECKING:
    from backtest.run import Run
    from daemon.commands.comparison import Difference

RUNS_EPILOG = "Example: lockstep runs --json"
REPORT_EPILOG = "Example: lockstep report latest --out trend.html"
DIFF_EPILOG = (
    "Example: lockstep diff 2e2206 dea4e4\n\nExit code 0 when every decision and outcome agrees, "
    "1 when they differ."
)
_ID = "A run's id, the start of it, 'latest', or its folder."
RunId = Annotated[str, typer.Argument(metavar="RUN", help=_ID)]


def _folder(runs: Path | None) -> Path:
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.setups import runs_folder

    return runs_folder(read_settings(Choices(runs=runs)))


def runs(runs: Runs = None, json: Json = False) -> None:
    """List the runs that were kept, the newest first."""
    from daemon.commands.kept import manifests
    from daemon.console import write, write_json, write_table

    folder = _folder(runs)
    rows = [_listed(path, rest) for path, rest in manifests(folder)]
    if json:
        write_json(rows)
    elif rows:
        columns = ("run", "kept (UTC)", "books", "code", "config")
        write_table(columns, [_shown(row) for row in rows], wraps=["books"])
    else:
        write(f"{folder}: no run yet; make one with 'lockstep demo' or 'lockstep replay'")


def _listed(path: Path, rest: dict[str, Any]) -> dict[str, Any]:
    from markets.history import utc

    kept_ms = round((path / "manifest.json").stat().st_mtime * 1000)
    return {
        "run": path.name,
        "kept": utc(kept_ms // 1000 * 1000),
        "books": [book["name"] for book in rest["books"]],
        "code": rest["manifest"]["code"],
        "config": rest["manifest"]["config"],
        "decisions_hash": rest["decisions_hash"],
        "path": str(path),
    }


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    kept = row["kept"][:16].replace("T", " ")
    return (row["run"], kept, ", ".join(row["books"]), row["code"][:7], row["config"][:7])


def report(
    run: RunId,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Default: beside the run.")
    ] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Write the HTML report of a run and show its figures."""
    from daemon.commands.kept import open_run
    from daemon.commands.reports import write_html
    from daemon.commands.summary import summarise, write_summary
    from daemon.console import write, write_json

    folder = _folder(runs)
    found = open_run(folder, run)
    path = write_html(found, out or folder / found.run_id / "report.html")
    result = summarise(found)
    if json:
        write_json({**result, "report": str(path)})
        return
    write_summary(found, result)
    write()
    write(f"report: {path}")


def diff(
    a: Annotated[str, typer.Argument(metavar="RUN_A", help=_ID)],
    b: Annotated[str, typer.Argument(metavar="RUN_B", help=_ID)],
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Find the first decision in which two runs part, and why."""
    from dataclasses import asdict

    from daemon.commands.comparison import compare
    from daemon.commands.kept import open_run
    from daemon.console import write_json

    folder = _folder(runs)
    left, right = open_run(folder, a), open_run(folder, b)
    found = compare(left, right)
    if json:
        write_json({"a": left.run_id, "b": right.run_id, **asdict(found)})
    else:
        tell_difference(left, right, found)
    if not found.equal:
        raise typer.Exit(1)


def tell_difference(a: "Run", b: "Run", found: "Difference") -> None:
    """What two runs do not share, for a person: causes, the first decision, the results."""
    from daemon.console import write, write_table

    verdict = "agree in every decision and outcome" if found.equal else "differ"
    write(f"runs {a.run_id} (A) and {b.run_id} (B) {verdict}")
    if found.causes:
        write()
        rows = [(key, _text(left), _text(right)) for key, left, right in found.causes]
        columns = ("cause", "A", "B")
        write_table(columns, rows, wraps=columns, title="What they do not share")
    if found.first:
        write()
        _tell_first(dict(found.first))
    if not found.equal:
        write()
        results = [(key, left, right, _gap(left, right)) for key, left, right in found.results]
        write_table(("result", "A", "B", "B - A"), results, title="What came of it")


def _tell_first(first: dict[str, Any]) -> None:
    from daemon.console import write, write_pairs

    if "time" not in first:
        write(f"First difference: {first['what']}")
        return
    pairs = [(name.upper(), _decision(first[name])) for name in ("a", "b")]
    pairs.append(("before", _decision(first["last_in_common"], "nothing: it is the first")))
    write_pairs(pairs, title=f"First different {first['what']}, {first['time']}")


def _decision(row: dict[str, Any] | None, none: str = "nothing more until the end") -> str:
    if row is None:
        return none
    head = f"{row['time']} {row.get('book', '')} {row['kind']}"
    if "reason" not in row:
        return f"{head} {row['quantity']:g} at {row['price']:g}"
    params = ", ".join(f"{name}={value:g}" for name, value in row["params"].items() if value)
    return (
        f"{head}: target {row['target']:+g}, confidence {row['confidence']:g}, "
        f"{row['reason']} ({params})"
    )


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _gap(left: Any, right: Any) -> Any:
    return None if left is None or right is None else right - left
