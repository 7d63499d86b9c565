"""``lockstep data fetch``: a venue's own records into a file that ``lockstep replay`` reads."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from daemon.commands.options import Json

if TYPE_CHECKING:
    from markets.history import History

EPILOG = (
    "Example: lockstep data fetch --venue drift --market SOL-PERP --from 20240101 --to 20240107 "
    "--out drift\n\n"
    "Drift's own hosts stopped: its archive ends on 2025-01-08, its Data API on 2026-04-01. Give "
    "--url of a mirror, or of a service that speaks the same dialect. A fetch that was cut off "
    "goes on where it was."
)
CLOSED = (
    "drift's own hosts stopped (archive 2025-01-08, Data API 2026-04-01): give --url of a mirror"
)


class Venue(StrEnum):
    """Venues whose records can be fetched."""

    DRIFT = "drift"


class Source(StrEnum):
    """What is fetched: daily record files, or the Data API's candles or trades."""

    ARCHIVE = "archive"
    CANDLES = "candles"
    TRADES = "trades"


Market = Annotated[str, typer.Option(metavar="NAME", help="As the venue spells it: SOL-PERP.")]
From = Annotated[str, typer.Option("--from", metavar="DAY", help="UTC, such as 20240101.")]
To = Annotated[str, typer.Option("--to", metavar="DAY", help="Where it stops, not its last day.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Created when it is not there.")]


def fetch(
    market: Market,
    from_: From,
    to: To,
    out: Out,
    venue: Annotated[Venue, typer.Option(help="Whose records.")] = Venue.DRIFT,
    source: Annotated[Source, typer.Option(help="What is fetched.")] = Source.ARCHIVE,
    interval: Annotated[str, typer.Option(metavar="1m", help="Length of the bars.")] = "1m",
    url: Annotated[str, typer.Option(metavar="URL", help="Another host of the same layout.")] = "",
    headers: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="NAME=VALUE", help="Sent with each question. Repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Fetch a market's bars and funding into one file.

    From trades, or from candles.
    """
    import anyio

    from core.errors import ConfigError
    from daemon.commands.names import parse_timerange
    from daemon.console import write, write_json
    from markets.export import write as export
    from markets.feeds.errors import FeedError
    from markets.intervals import parse_interval

    since_ms, until_ms = parse_timerange(f"{from_}/{to}")
    if since_ms is None or until_ms is None:
        raise ConfigError("--from and --to: give both")
    span = since_ms, until_ms
    asked = _Asked(market, parse_interval(interval), span, url, _headers(headers or []))
    try:
        if source is Source.ARCHIVE:
            history = anyio.run(_from_archive, asked, out / "records" / market)
        else:
            history = anyio.run(_from_api, asked, source)
    except FeedError as error:
        raise FeedError(f"{error}; {CLOSED}") from error
    path = out / f"{market}-{interval}.feather"
    out.mkdir(parents=True, exist_ok=True)
    export(history, path)
    facts = _facts(path, history)
    if json:
        write_json(facts)
    else:
        write(f"{path}: {facts['bars']:,} bars; {'; '.join(facts['notes'])}")


class _Asked(NamedTuple):
    """What was asked for on the command line."""

    market: str
    interval_ms: int
    span: tuple[int, int]
    url: str
    headers: Mapping[str, str]


async def _from_archive(asked: _Asked, folder: Path) -> "History":
    import random
    from dataclasses import replace

    from core.errors import DataError
    from daemon.clock import now_ms
    from markets.drift.archive import Archive, ArchiveSettings, Record
    from markets.drift.gather import from_files

    settings = ArchiveSettings(headers=asked.headers)
    settings = replace(settings, url=asked.url) if asked.url else settings
    async with Archive(settings, now_ms, random.random) as archive:
        found = {
            record: await archive.gather(asked.market, record, *asked.span, folder / record)
            for record in Record
        }
    if not found[Record.TRADES].files:
        raise DataError(
            f"{settings.url} has no trades of {asked.market} on any of these days "
            f"(names are as in SOL-PERP); {CLOSED}"
        )
    trades, funding = (folder / record for record in Record)
    history = from_files(trades, funding, asked.interval_ms, *asked.span)
    gaps = [
        f"{len(gathered.absent)} days without {record}: {', '.join(gathered.absent)}"
        for record, gathered in found.items()
        if gathered.absent
    ]
    return replace(history, quality=history.quality.note(*gaps))


async def _from_api(asked: _Asked, source: Source) -> "History":
    import random
    import time
    from dataclasses import replace

    from core.errors import ConfigError
    from daemon.clock import now_ms
    from markets.drift.data_api import DataApi, DataSettings
    from markets.drift.gather import from_candles, from_trades, join_settlements, settlement_events
    from markets.feeds.link import Link, VenueClock
    from markets.history import crop

    if not asked.url:
        raise ConfigError(f"--source {source} needs --url: {CLOSED}")
    settings = DataSettings(url=asked.url)
    settings = replace(settings, headers={**settings.headers, **asked.headers})
    shared = VenueClock(now_ms), Link(time.monotonic), random.random
    async with DataApi(settings, *shared) as api:
        if source is Source.CANDLES:
            rows = await api.candle_rows(asked.market, asked.interval_ms, *asked.span)
            history = from_candles(rows, asked.interval_ms)
        else:
            rows = await api.trades(asked.market, *asked.span)
            history = from_trades(rows, asked.interval_ms)
        funding = await api.funding(asked.market, *asked.span)
    history = crop(history, *asked.span)
    refused = [f"{count} funding records: {why.value}" for why, count in funding.refused.items()]
    history = replace(history, quality=history.quality.note(*refused))
    return join_settlements(history, settlement_events(funding.good))


def _headers(given: list[str]) -> dict[str, str]:
    from core.errors import ConfigError

    pairs = [text.partition("=") for text in given]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise ConfigError(f"--header {name}: write NAME=VALUE, such as Origin=https://a.site")
    return {name: value for name, _, value in pairs}


def _facts(path: Path, history: "History") -> dict[str, Any]:
    quality = history.quality
    return {
        "path": str(path),
        "bars": history.bar_count,
        "fields": sorted(history.fields),
        "skipped": dict(quality.skipped),
        "duplicates": quality.duplicates,
        "bars_missing": quality.bars_missing,
        "notes": list(quality.notes),
        "digest": history.digest,
    }
