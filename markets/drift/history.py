"""Drift's historical record files: trades into candles, funding records into settlements.

The files are daily csv, gzip without an extension or plain. A trade's price is quote filled over
base filled; ``oraclePrice`` is another price, and candles built from it never traded.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from core.errors import DataError
from core.events import make_events
from core.model import Kind, Records
from markets.bars import bars_from_trades
from markets.drift.units import FUNDING_HOURS, funding_from_decimal
from markets.feeds.funding import known_from
from markets.history import Flags, Floats, History, Places, Quality, Times, assemble, make_funding
from markets.intervals import as_interval_ms
from markets.sieve import Sieve
from markets.tables import NO_TIME, Table, parse_csv, read_bytes

_TRADE_NEEDS = ("ts", "baseAssetAmountFilled", "quoteAssetAmountFilled")
_TRADE_TAKES = (*_TRADE_NEEDS, "oraclePrice", "fillRecordId", "action", "marketType", "marketIndex")
_FUNDING_NEEDS = ("ts", "fundingRate", "oraclePriceTwap")
_FUNDING_TAKES = (*_FUNDING_NEEDS, "fundingRateLong", "markPriceTwap", "recordId")
_RATE_MAX = 1.0
_EXPECTED = "the decimal records of drift-historical-data-v2"


def read_trades(
    path: str | Path,
    *,
    interval: int | str = "1m",
    market_index: int = -1,
    fill_empty: bool = False,
) -> History:
    """Candles from a trade-record file or a directory of them, the oracle price as a QUOTE.

    ``market_index``: the perpetual to keep; -1 takes the first row's. Rows are ordered by time and
    ``fillRecordId``; missing ids are reported in the notes. DataError when nothing is usable.
    """
    interval_ms = as_interval_ms(interval)
    tables = _tables(path, _TRADE_NEEDS, _TRADE_TAKES, "a trade-record file")
    columns = _numbers(tables, ("baseAssetAmountFilled", "quoteAssetAmountFilled", "oraclePrice"))
    ids = _optional(tables, "fillRecordId")
    ts, sieve = _times(tables), _sieve(path, tables)
    base, quote = columns["baseAssetAmountFilled"], columns["quoteAssetAmountFilled"]
    _keep_market(tables, sieve, market_index)
    sieve.reject(ts == NO_TIME, "missing or unreadable time")
    sieve.reject(~(np.isfinite(base) & (base > 0)), "no base filled")
    sieve.reject(~(np.isfinite(quote) & (quote > 0)), "no quote filled")
    order, duplicates = _order(ts, ids, sieve.good)
    if not len(order):
        raise sieve.nothing_left(_EXPECTED)
    price = quote[order] / base[order]
    built = bars_from_trades(ts[order], price, base[order], interval_ms, fill_empty=fill_empty)
    quality = _quality(tables, sieve, duplicates, ts, built.bars, interval_ms)
    quality = quality.note(*_missing_ids(ids[order]))
    oracle = _last_oracle(ts[order], columns["oraclePrice"][order], interval_ms)
    return assemble([oracle, built.bars], interval_ms, quality)


def read_funding(path: str | Path) -> Records:
    """FUNDING and QUOTE events of a funding-record file or a directory of them.

    ``rate`` is what longs pay (their own rate where the file has it), as a fraction of the oracle
    TWAP, which is the ``settle_price``: rate times price times base is the cash paid. DataError
    when nothing is usable.
    """
    tables = _tables(path, _FUNDING_NEEDS, _FUNDING_TAKES, "a funding-record file")
    columns = _numbers(tables, ("fundingRate", "oraclePriceTwap", "fundingRateLong"))
    ts, ids = _times(tables), _optional(tables, "recordId")
    sieve = _sieve(path, tables)
    own, oracle = columns["fundingRateLong"], columns["oraclePriceTwap"]
    paid = np.where(np.isfinite(own), own, columns["fundingRate"])
    sieve.reject(ts == NO_TIME, "missing or unreadable time")
    sieve.reject(~(np.isfinite(oracle) & (oracle > 0)), "no oracle TWAP")
    sieve.reject(~(np.abs(paid) < _RATE_MAX * oracle), "no sane rate")
    order, _ = _order(ts, ids, sieve.good)
    if not len(order):
        raise sieve.nothing_left(_EXPECTED)
    rates = funding_from_decimal(paid[order], oracle[order])
    return make_funding(known_from(ts[order]), rates, FUNDING_HOURS, oracle[order])


def _tables(
    path: str | Path, needs: Iterable[str], takes: Iterable[str], purpose: str
) -> list[Table]:
    only = {name.lower() for name in takes}
    tables = [parse_csv(read_bytes(one), str(one), only) for one in _files(Path(path))]
    for table in tables:
        table.require(needs, purpose)
    return tables


def _files(path: Path) -> list[Path]:
    """The file, or the daily files below the directory in order of name."""
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    if not files:
        raise DataError(f"{path}: no file in this directory: expected daily files named YYYYMMDD")
    return files


def _sieve(path: str | Path, tables: list[Table]) -> Sieve:
    rows, malformed = sum(t.rows for t in tables), sum(t.malformed for t in tables)
    return Sieve(str(path), rows, malformed)


def _numbers(tables: list[Table], names: Iterable[str]) -> Mapping[str, Floats]:
    return {name: _optional(tables, name) for name in names}


def _optional(tables: list[Table], name: str) -> Floats:
    """A column over all files, NaN where a file lacks it."""
    parts = [
        table.numbers(name)[0] if name in table else np.full(table.rows, np.nan) for table in tables
    ]
    return np.concatenate(parts)


def _times(tables: list[Table]) -> Times:
    return np.concatenate([t.times("ts")[0] if t.rows else np.empty(0, np.int64) for t in tables])


def _keep_market(tables: list[Table], sieve: Sieve, market_index: int) -> None:
    """Reject what is no fill of the one perpetual."""
    for name, wanted, reason in (
        ("action", "fill", "not a fill"),
        ("marketType", "perp", "not a perpetual"),
    ):
        matches = [
            t.matches(name, wanted) if name in t else np.ones(t.rows, np.bool_) for t in tables
        ]
        sieve.reject(~np.concatenate(matches), reason)
    indices = _optional(tables, "marketIndex")
    known = indices[np.isfinite(indices) & sieve.good]
    kept = market_index if market_index >= 0 or not len(known) else known[0]
    sieve.reject(np.isfinite(indices) & (indices != kept), "another market")


def _order(ts: Times, ids: Floats, good: Flags) -> tuple[Places, int]:
    """Places of good rows by (time, record id), each id once, and how many came twice."""
    places: Places = np.flatnonzero(good)
    places = places[np.lexsort((ids[places], ts[places]))]
    numbered = np.isfinite(ids[places])
    _, first = np.unique(ids[places][numbered], return_index=True)
    once = ~numbered
    once[np.flatnonzero(numbered)[first]] = True
    return places[once], int((~once).sum())


def _missing_ids(ids: Floats) -> list[str]:
    """A note when numbered records are missing between the first and the last."""
    known = ids[np.isfinite(ids)]
    if not len(known):
        return []
    missing = int(known.max() - known.min()) + 1 - len(known)
    return [f"{missing} fill records missing by their ids"] if missing > 0 else []


def _last_oracle(ts: Times, oracle: Floats, interval_ms: int) -> Records:
    """The last oracle price of each bar, known when the bar closes."""
    there = np.isfinite(oracle) & (oracle > 0)
    closes = ts[there] // interval_ms * interval_ms + interval_ms
    last = np.flatnonzero(np.diff(closes, append=np.iinfo(np.int64).max))
    return make_events(Kind.QUOTE, closes[last], oracle=oracle[there][last])


def _quality(
    tables: list[Table], sieve: Sieve, twice: int, ts: Times, bars: Records, interval_ms: int
) -> Quality:
    quality = Quality(
        rows_read=sieve.rows_read,
        rows_used=int(sieve.good.sum()) - twice,
        skipped=sieve.skipped,
        duplicates=twice,
        unsorted=int((np.diff(ts[sieve.good]) < 0).sum()),
        notes=(f"bars built from trades in {len(tables)} files",),
    )
    return quality.spanning(bars["ts_event"], interval_ms)
