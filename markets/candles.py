"""Candles: files of bars, and of what is known beside them, into a History.

Two layouts are read: freqtrade's (``date``, and funding and mark in sibling files) and a plain one
(``ts`` in unix ms, and further columns named as in ``MARKET_FIELDS``). A bad row is skipped and
counted by reason, never repaired: a strategy must not trade on a price nobody saw.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from core.errors import DataError
from core.events import make_events
from core.model import PAYLOAD, Kind, Records
from markets.history import (
    Contract,
    Flags,
    Floats,
    History,
    Places,
    Quality,
    Times,
    assemble,
    make_bars,
)
from markets.intervals import as_interval_ms, format_interval, parse_interval
from markets.resample import resample
from markets.sieve import Sieve
from markets.tables import NO_TIME, Table, read_table, release_unused

__all__ = [
    "format_interval",
    "parse_candles",
    "parse_interval",
    "read_candles",
    "resample",
    "side_events",
]

TIME_COLUMNS = ("ts", "date", "timestamp", "time", "datetime", "open_time")
BAR_COLUMNS = PAYLOAD[Kind.BAR]
QUOTE_COLUMNS = PAYLOAD[Kind.QUOTE]
FUNDING_COLUMNS = {
    "rate": "funding_settled",
    "interval_hours": "funding_hours",
    "settle_price": "settle_price",
}
"""Payload fields of FUNDING and the columns of the plain layout that carry them."""
SETTLED_COLUMN = "funding_ts"
"""When a settlement became known (unix ms), where that is not the close of the bar it stands by."""

_PRICES = BAR_COLUMNS[:4]
_EXPECTED = "columns ts or date, open, high, low, close, volume"
# how far a value of an optional column may reach, ends included
_TINY = float(np.nextafter(0.0, 1.0))
_REACH = {
    **dict.fromkeys(("mark", "oracle", "bid", "ask", "settle_price"), (_TINY, np.inf)),
    **dict.fromkeys(("bid_depth", "ask_depth", "open_interest"), (0.0, np.inf)),
    **dict.fromkeys(("probability", "resolution"), (0.0, 1.0)),
    **dict.fromkeys(("funding_rate", "funding_settled"), (-1.0, 1.0)),
    "funding_hours": (_TINY, 24.0 * 31),
    SETTLED_COLUMN: (_TINY, np.inf),
}


def read_candles(path: str | Path, *, interval: int | str | None = None) -> History:
    """The bars of one file, and the further columns beside them, as a History.

    ``interval``: bar length wanted, as text or ms; coarser than the file's means resampling. A file
    of one row needs it. DataError when nothing usable is left.
    """
    wanted_ms = None if interval is None else as_interval_ms(interval)
    history = parse_candles(read_table(Path(path)), wanted_ms)
    release_unused()
    if wanted_ms is None or wanted_ms == history.interval_ms:
        return history
    try:
        return resample(history, wanted_ms)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def parse_candles(table: Table, single_ms: int | None = None) -> History:
    """As ``read_candles``, from a table; ``single_ms`` is the interval when one row is left."""
    sieve = Sieve(table.source, table.rows, table.malformed)
    opens, prices = _bars(table, sieve)
    order, unsorted = _sorted(opens, sieve.good)
    order, duplicates = _last_of_equal(order, opens)
    interval_ms = _interval(opens[order], single_ms, table.source)
    order = _without_overlap(order, opens, interval_ms, sieve)
    opens = opens[order]
    blanked: dict[str, int] = {}
    extras = _extras(table, order, blanked)
    _blank_other_bars(extras, opens + interval_ms, interval_ms, blanked)
    bars = make_bars(opens, interval_ms, **{name: prices[name][order] for name in prices})
    quality = Quality(
        rows_read=sieve.rows_read,
        rows_used=len(opens),
        skipped=sieve.skipped,
        blanked=blanked,
        duplicates=duplicates,
        unsorted=unsorted,
    ).spanning(opens, interval_ms)
    events = [*side_events(opens + interval_ms, extras), bars]
    return assemble(events, interval_ms, quality, _contract(table, extras))


def _contract(table: Table, extras: Mapping[str, Floats]) -> Contract | None:
    """Terms of a binary: a column ``expires`` (unix ms, one value), or that it has resolved."""
    if "expires" in table:
        stamps, _ = table.times("expires")
        told = np.unique(stamps[stamps != NO_TIME])
        if len(told) != 1:
            raise DataError(f"{table.source}: column 'expires' must hold one time, not {len(told)}")
        return Contract(expires_ms=int(told[0]))
    return Contract() if "resolution" in extras else None


def side_events(known: Times, columns: Mapping[str, Floats]) -> list[Records]:
    """Events of the columns beside the bars, at the bars' close times ``known`` (ms).

    Columns are named as in the plain layout; a row without a value makes no event. A settlement
    reveals the hourly rate: with a time of its own by a quote then, else where the row has none.
    """
    quotes = {name: columns[name] for name in QUOTE_COLUMNS if name in columns}
    settled = {key: columns[name] for key, name in FUNDING_COLUMNS.items() if name in columns}
    stamps = known
    events = []
    if "rate" in settled:
        hours = settled.setdefault("interval_hours", np.ones(len(known)))
        revealed = settled["rate"] / hours
        stamps = _settled_at(known, columns.get(SETTLED_COLUMN))
        own = stamps != known
        events.append(_sparse(Kind.QUOTE, stamps[own], {"funding_rate": revealed[own]}))
        stated = quotes.get("funding_rate", np.full(len(known), np.nan))
        quotes["funding_rate"] = np.where(np.isnan(stated) & ~own, revealed, stated)
    kinds = {
        Kind.FUNDING: settled if "rate" in settled else {},
        Kind.QUOTE: quotes,
        Kind.FORECAST: _one("probability", columns.get("probability")),
        Kind.RESOLUTION: _one("value", columns.get("resolution")),
    }
    for kind, payload in kinds.items():
        if payload:
            events.append(_sparse(kind, stamps if kind == Kind.FUNDING else known, payload))
    return events


def _bars(table: Table, sieve: Sieve) -> tuple[Times, dict[str, Floats]]:
    """Open times and price columns of all rows, with the bad rows rejected."""
    time = next((name for name in TIME_COLUMNS if name in table), "date")
    table.require((time, *BAR_COLUMNS), "a candle file")
    if table.rows == 0:
        raise sieve.nothing_left(_EXPECTED)
    opens, unreadable = table.times(time)
    sieve.reject(unreadable, "unreadable time")
    sieve.reject(opens == NO_TIME, "missing time or out of range")
    prices = {}
    for name in BAR_COLUMNS:
        prices[name], unreadable = table.numbers(name)
        sieve.reject(unreadable, f"unreadable {name}")
        sieve.reject(np.isnan(prices[name]), f"missing {name}")
        sieve.reject(np.isinf(prices[name]), f"non-finite {name}")
    _reject_impossible(prices, sieve)
    if not sieve.good.any():
        raise sieve.nothing_left(_EXPECTED)
    return opens, prices


def _reject_impossible(prices: Mapping[str, Floats], sieve: Sieve) -> None:
    first, high, low, last = (prices[name] for name in _PRICES)
    sieve.reject(np.minimum(np.minimum(first, last), low) <= 0, "price not positive")
    sieve.reject(high < low, "high below low")
    sieve.reject((first > high) | (first < low), "open outside the range")
    sieve.reject((last > high) | (last < low), "close outside the range")
    sieve.reject(prices["volume"] < 0, "negative volume")


def _sorted(opens: Times, good: Flags) -> tuple[Places, int]:
    """Places of the good rows by time, and how many stood before an earlier time."""
    places: Places = np.flatnonzero(good)
    unsorted = int((np.diff(opens[places]) < 0).sum())
    if unsorted:
        places = places[np.argsort(opens[places], kind="stable")]
    return places, unsorted


def _last_of_equal(places: Places, opens: Times) -> tuple[Places, int]:
    """Of rows with the same time the last one in the file, and how many gave way."""
    last = np.append(np.diff(opens[places]) != 0, True)
    return places[last], int((~last).sum())


def _interval(opens: Times, single_ms: int | None, source: str) -> int:
    """The most common step, the shorter of equally common ones."""
    if len(opens) < 2:
        if single_ms is None:
            raise DataError(f"{source}: one usable row has no interval: say which (such as 1m)")
        return single_ms
    steps, counts = np.unique(np.diff(opens), return_counts=True)
    return int(steps[np.argmax(counts)])


def _without_overlap(order: Places, opens: Times, interval_ms: int, sieve: Sieve) -> Places:
    """Drop rows that open before the bar before them has closed."""
    if (np.diff(opens[order]) >= interval_ms).all():
        return order
    kept: list[int] = []
    closed = NO_TIME
    for place in order.tolist():
        if opens[place] >= closed:
            kept.append(place)
            closed = int(opens[place]) + interval_ms
    sieve.count("overlaps the bar before", len(order) - len(kept))
    return np.array(kept, np.intp)


def _extras(table: Table, order: Places, blanked: dict[str, int]) -> dict[str, Floats]:
    """Optional columns at the rows used; cells out of reach become NaN and are counted."""
    extras: dict[str, Floats] = {}
    for name, (low, high) in _REACH.items():
        if name not in table:
            continue
        values, unreadable = (column[order] for column in table.numbers(name))
        bad = unreadable | np.isinf(values) | (values < low) | (values > high)
        extras[name] = np.where(bad, np.nan, values)
        if bad.any():
            blanked[name] = int(bad.sum())
    if "bid" in extras and "ask" in extras:
        crossed = extras["bid"] > extras["ask"]
        for name in ("bid", "ask"):
            extras[name] = np.where(crossed, np.nan, extras[name])
        if crossed.any():
            blanked["bid above ask"] = int(crossed.sum())
    return extras


def _blank_other_bars(
    extras: Mapping[str, Floats], closes: Times, interval_ms: int, blanked: dict[str, int]
) -> None:
    """A settlement stands by the bar that closes next; one told elsewhere counts at the close."""
    stamps = extras.get(SETTLED_COLUMN)
    if stamps is None:
        return
    before = np.concatenate([closes[:1] - interval_ms, closes[:-1]])
    outside = (stamps <= before) | (stamps > closes)
    stamps[outside] = np.nan
    if outside.any():
        blanked[SETTLED_COLUMN] = blanked.get(SETTLED_COLUMN, 0) + int(outside.sum())


def _settled_at(known: Times, stamps: Floats | None) -> Times:
    """When each row's settlement became known: at the close where no time is told."""
    if stamps is None:
        return known
    return np.where(np.isnan(stamps), known, np.nan_to_num(stamps).astype(np.int64))


def _one(name: str, values: Floats | None) -> dict[str, Floats]:
    return {} if values is None else {name: values}


def _sparse(kind: Kind, known: Times, payload: Mapping[str, Floats]) -> Records:
    """Events where the deciding columns have a value: any of a quote's, the first of others."""
    columns = list(payload.values())
    deciding = columns if kind == Kind.QUOTE else columns[:1]
    there = ~np.isnan(deciding).all(axis=0)
    return make_events(kind, known[there], **{name: payload[name][there] for name in payload})
