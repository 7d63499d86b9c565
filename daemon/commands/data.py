"""``lockstep data``: what a file holds, another format of it, and the sample that ships."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.commands.options import Json, Resample, Timerange

if TYPE_CHECKING:
    from markets.history import History

INSPECT_EPILOG = "Example: lockstep data inspect SOL-PERP.feather"
CONVERT_EPILOG = "Example: lockstep data convert SOL-PERP.csv SOL-PERP.feather --resample 5m"
SAMPLE_EPILOG = "Example: lockstep data sample ./sample"
File = Annotated[Path, typer.Argument(metavar="FILE", help="Candles, or Drift's trade records.")]


def inspect(
    file: File, timerange: Timerange = None, resample: Resample = None, json: Json = False
) -> None:
    """Tell what a file holds.

    Span, gaps, rows skipped and why, fields carried, digest.
    """
    from daemon.console import write_json, write_pairs

    history = _read(file, timerange, resample)
    facts = _facts(file, history)
    if json:
        write_json(facts)
    else:
        write_pairs(_told(facts))


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN")],
    target: Annotated[Path, typer.Argument(metavar="OUT")],
    timerange: Timerange = None,
    resample: Resample = None,
    bars_only: Annotated[
        bool, typer.Option("--bars-only", help="Leave out funding, marks and all else.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    json: Json = False,
) -> None:
    """Write a file's history in another format.

    As .feather, .parquet, .csv or .csv.gz, its sidecars inside.
    """
    from core.errors import ConfigError, DataError
    from daemon.console import write, write_json
    from markets.export import write as export

    if target.exists() and not force:
        raise ConfigError(f"{target}: is there already: name another file, or add --force")
    history = _read(source, timerange, resample)
    history = _bars_of(history) if bars_only else _on_closes(source, history)
    try:
        export(history, target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror}") from error
    facts = {"path": str(target), "bars": history.bar_count, "digest": history.digest}
    if json:
        write_json(facts)
    else:
        write(f"{target}: {facts['bars']:,} bars")


def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Created when it is not there.")],
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed, another market.")] = 7,
    bars: Annotated[int, typer.Option(metavar="N", min=2, help="Bars a perpetual.")] = 20_000,
    json: Json = False,
) -> None:
    """Write the synthetic sample.

    Two perpetuals with funding and books, three event contracts.
    """
    from core.errors import DataError
    from daemon.console import write, write_json
    from markets import synthetic
    from markets.export import write as export

    histories = {**synthetic.sample(seed=seed, bars=bars), **synthetic.binary_sample(seed=seed)}
    paths = {name: folder / f"{name}.feather" for name in histories}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, history in histories.items():
            export(history, paths[name])
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from error
    if json:
        write_json({"files": {name: str(path) for name, path in paths.items()}, "seed": seed})
        return
    for path in paths.values():
        write(str(path))
    first = next(iter(paths.values()))
    write(f"Next: lockstep replay --strategy trend --data {first}")


def _read(path: Path, timerange: str | None, resample: str | None) -> "History":
    from daemon.commands.histories import read_history
    from daemon.commands.names import parse_timerange
    from markets.history import crop

    history = read_history(path, resample)
    return crop(history, *parse_timerange(timerange)) if timerange else history


def _bars_of(history: "History") -> "History":
    from markets.history import assemble

    return assemble([history.bars], history.interval_ms, history.quality)


def _on_closes(path: Path, history: "History") -> "History":
    """The history, if a plain file has a place for each of its events."""
    import numpy as np

    from core.errors import DataError

    known = history.events["ts_known"]
    strays = int((~np.isin(known, history.bars["ts_known"])).sum())
    if strays:
        raise DataError(
            f"{path}: {strays:,} events beside the bars (funding, marks) fall on no bar's close: "
            "no row has a place for them, add --bars-only to leave them out"
        )
    return history


def _facts(path: Path, history: "History") -> dict[str, Any]:
    from dataclasses import asdict

    from daemon.commands.names import instrument_of
    from markets.history import utc
    from markets.intervals import format_interval

    quality = asdict(history.quality)
    first, last = quality.pop("first_ms"), quality.pop("last_ms")
    gaps = [
        {"start": utc(gap["start_ms"]), "bars": gap["bars"]} for gap in quality.pop("gaps_first")
    ]
    return {
        "path": str(path),
        "instrument": instrument_of(path),
        "bars": history.bar_count,
        "events": len(history.events),
        "interval": format_interval(history.interval_ms),
        "start": utc(first),
        "end": utc(last),
        "days": (last - first) / 86_400_000,
        "fields": sorted(history.fields),
        **quality,
        "gaps_first": gaps,
        "digest": history.digest,
    }


def _told(facts: dict[str, Any]) -> list[tuple[str, Any]]:
    counted = ", ".join(f"{why} {count:,}" for why, count in facts["skipped"].items())
    blanked = ", ".join(f"{why} {count:,}" for why, count in facts["blanked"].items())
    gaps = f"{facts['gaps']:,}, {facts['bars_missing']:,} bars missing"
    first = ", ".join(f"{gap['start']} ({gap['bars']})" for gap in facts["gaps_first"])
    return [
        ("file", facts["path"]),
        ("instrument", facts["instrument"]),
        ("bars", f"{facts['bars']:,} of {facts['interval']}, {facts['events']:,} events in all"),
        ("span", f"{facts['start']} to {facts['end']}, {facts['days']:.1f} days"),
        ("fields", ", ".join(facts["fields"])),
        ("rows", f"{facts['rows_read']:,} read, {facts['rows_used']:,} used"),
        ("skipped", counted or "none"),
        ("cells refused", blanked or "none"),
        ("duplicates", facts["duplicates"]),
        ("unsorted", facts["unsorted"]),
        ("gaps", gaps + (f", the first: {first}" if first else "")),
        *[("note", note) for note in facts["notes"]],
        ("digest", facts["digest"]),
    ]
