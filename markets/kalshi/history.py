"""Kalshi's settled temperature ladders: hourly bars from trades, and how each market ended.

Events are read as the public API wrote them in 2024 and 2025 (integer cents). What a market's body
says of its end (last price, open interest, result) was unknown while it traded, so none of it gets
into an event before the settlement. ``strike_type`` is lacking on 75 markets of January 2025, all
of them winners: strikes are therefore taken from the subtitle where the field is absent.
"""

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DataError
from core.events import make_events
from core.model import Kind, Records
from markets.history import Contract, Flags, History, Places, Quality, assemble, make_bars
from markets.sieve import Sieve
from markets.tables import NO_TIME, Table, read_table

HOUR_MS = 3_600_000
LADDER_FILE = "ladder_hourly_from_trades.parquet"
_PRICES = ("open", "high", "low", "close")
_COLUMNS = ("ticker", "end_period_ts", *_PRICES, "volume")
_RESULTS = {"yes": 1.0, "no": 0.0}
_RANGE = re.compile(r"(-?\d+)° to (-?\d+)°")
_EDGE = re.compile(r"(-?\d+)° or (below|above)")


@dataclass(frozen=True)
class Market:
    """Terms of one event contract. Of the markets of a ``cluster`` exactly one settles at 1.

    ``strike_type`` less: below ``cap``; greater: above ``floor``; between: both ends included.
    Strikes are in deg F, NaN where open. ``resolved_ms`` and ``value`` are None when unsettled.
    """

    ticker: str
    series: str
    cluster: str
    title: str
    strike_type: str
    floor: float
    cap: float
    open_ms: int
    close_ms: int
    resolved_ms: int | None
    value: float | None


@dataclass(frozen=True)
class Ladder:
    """Markets and their histories by ticker, and what was left out, counted by reason."""

    markets: Mapping[str, Market]
    histories: Mapping[str, History]
    skipped: Mapping[str, int]


def read_ladder(folder: str | Path, *, series: str | None = None) -> Ladder:
    """The ladders of a folder with ``events_*.jsonl.gz`` and the hourly parquet file.

    ``series`` keeps one, such as ``KXHIGHNY``. Histories carry prices in dollars (0 to 1), volume
    in contracts and, at the settlement, a RESOLUTION. DataError when nothing matches.
    """
    folder = Path(folder)
    table = read_table(folder / LADDER_FILE)
    table.require(_COLUMNS, "a ladder file")
    skipped: dict[str, int] = {}
    markets = {
        market.ticker: market
        for path in sorted(folder.glob("events_*.jsonl.gz"))
        for market in read_markets(path, skipped)
        if series in (None, market.series)
    }
    histories = {}
    for ticker, bars, quality in _hours(table, set(markets), skipped):
        histories[ticker] = _history(markets[ticker], bars, quality)
    if not histories:
        raise DataError(f"{folder}: no market of series {series or 'any'} has both terms and bars")
    known = {ticker: market for ticker, market in markets.items() if ticker in histories}
    if len(known) < len(markets):
        skipped["market without a trade"] = len(markets) - len(known)
    return Ladder(known, histories, skipped)


def read_markets(path: Path, skipped: dict[str, int]) -> Iterator[Market]:
    """Markets of one events file; lines and markets that cannot be read are counted."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    for line in lines:
        try:
            body = json.loads(line)
            event, markets = body["event"], body["markets"]
        except (ValueError, KeyError, TypeError):
            skipped["unreadable event"] = skipped.get("unreadable event", 0) + 1
            continue
        for market in markets:
            try:
                yield _market(event, market)
            except (ValueError, KeyError, TypeError):
                skipped["unreadable market"] = skipped.get("unreadable market", 0) + 1


def _market(event: Mapping[str, Any], body: Mapping[str, Any]) -> Market:
    strike_type, floor, cap = _strikes(body)
    value = _RESULTS.get(body["result"])
    return Market(
        ticker=body["ticker"],
        series=event["series_ticker"],
        cluster=body["event_ticker"],
        title=f"{event['title']} {body['subtitle']}",
        strike_type=strike_type,
        floor=floor,
        cap=cap,
        open_ms=_unix_ms(body["open_time"]),
        close_ms=_unix_ms(body["close_time"]),
        resolved_ms=None if value is None else _resolved_ms(body),
        value=value,
    )


def _resolved_ms(body: Mapping[str, Any]) -> int:
    """When the result was known: the stated settlement, or else the latest that is plausible.

    The 2024-25 bodies have no ``settlement_ts``. Their rules determine the result at 10:00 local
    after the report (``expected_expiration_time``) and pay ``settlement_timer_seconds`` later;
    ``expiration_time`` is only the last resort, a week on, and ``close_time`` is too early.
    """
    if body.get("settlement_ts"):
        return _unix_ms(body["settlement_ts"])
    expected = _unix_ms(body["expected_expiration_time"])
    return expected + 1000 * int(body["settlement_timer_seconds"])


def _strikes(body: Mapping[str, Any]) -> tuple[str, float, float]:
    """(type, floor, cap), from the subtitle where the fields are absent."""
    if "strike_type" in body:
        floor, cap = body.get("floor_strike", np.nan), body.get("cap_strike", np.nan)
        return str(body["strike_type"]), float(floor), float(cap)
    if found := _RANGE.fullmatch(body["subtitle"]):
        return "between", float(found[1]), float(found[2])
    found = _EDGE.fullmatch(body["subtitle"])
    if found is None:
        raise ValueError(body["subtitle"])
    edge = float(found[1])
    return ("less", np.nan, edge + 1) if found[2] == "below" else ("greater", edge - 1, np.nan)


def _unix_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _hours(
    table: Table, wanted: set[str], skipped: dict[str, int]
) -> Iterator[tuple[str, Records, Quality]]:
    """Ticker, hourly bars and quality of each wanted ticker; a bar is known when its hour ends."""
    tickers = np.array(table.texts("ticker"))
    ends = table.times("end_period_ts")[0]
    columns = {name: table.numbers(name)[0] for name in (*_PRICES, "volume")}
    sieve = Sieve(table.source, table.rows)
    sieve.reject(~np.isin(tickers, sorted(wanted)), "hour of another market")
    sieve.reject(ends == NO_TIME, "missing or unreadable time")
    sieve.reject(~_possible(columns), "impossible price")
    skipped.update(sieve.skipped)
    places: Places = np.flatnonzero(sieve.good)
    places = places[np.lexsort((ends[places], tickers[places]))]
    bars = make_bars(
        ends[places] - HOUR_MS, HOUR_MS, **{name: columns[name][places] for name in columns}
    )
    names = tickers[places]
    changes = np.flatnonzero(names[1:] != names[:-1]) + 1
    edges = np.concatenate([[0], changes, [len(names)]])
    for start, end in itertools.pairwise(edges if len(names) else []):
        hours = bars[start:end]
        quality = Quality(rows_read=len(hours), rows_used=len(hours))
        yield str(names[start]), hours, quality.spanning(hours["ts_event"], HOUR_MS)


def _possible(columns: Mapping[str, Any]) -> Flags:
    first, high, low, last = (columns[name] for name in _PRICES)
    inside = (low >= 0) & (high <= 1) & (columns["volume"] >= 0)
    ordered = (low <= np.minimum(first, last)) & (high >= np.maximum(first, last))
    return np.asarray(inside & ordered)


def _history(market: Market, bars: Records, quality: Quality) -> History:
    parts = [bars]
    if market.resolved_ms is not None and market.value is not None:
        end = [market.resolved_ms]
        parts.append(make_events(Kind.RESOLUTION, end, value=[market.value]))
    return assemble(parts, HOUR_MS, quality, Contract(market.close_ms, market.cluster))
