"""Fetched records into one History that a file of bars can hold.

Bars and funding are dated as the live feed dates them, so that a replay of what was fetched decides
what the daemon decided. A file has one row a bar, which holds one settlement.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.errors import DataError
from core.events import make_events
from core.model import Kind, Records
from markets.bars import bars_from_trades
from markets.drift.data_api import Rows
from markets.drift.history import read_funding, read_trades
from markets.drift.parse import Trade
from markets.feeds.funding import Settlement, known_from
from markets.history import (
    Floats,
    History,
    Quality,
    Times,
    assemble,
    crop,
    make_bars,
    make_funding,
    select,
)


def from_files(
    trades: Path, funding: Path, interval_ms: int, since_ms: int, until_ms: int
) -> History:
    """Candles of the trade records in a folder, with the funding records of another if any."""
    history = crop(read_trades(trades, interval=interval_ms), since_ms, until_ms)
    return join_settlements(history, read_funding(funding)) if any(funding.iterdir()) else history


def from_candles(rows: Rows, interval_ms: int) -> History:
    """The Data API's candles, the oracle's price at each close as a QUOTE."""
    traded = [row for row in rows.good if row.candle is not None]
    opens = np.array([row.open_ms for row in traded], np.int64)
    _refuse_nothing(opens, rows, "candle with a trade")
    names = ("open", "high", "low", "close", "volume")
    prices = {name: [getattr(row.candle, name) for row in traded] for name in names}
    oracle = np.array([row.oracle for row in traded], float)
    there = np.isfinite(oracle)
    quotes = make_events(Kind.QUOTE, opens[there] + interval_ms, oracle=oracle[there])
    parts = [quotes, make_bars(opens, interval_ms, **prices)]
    quality = _quality(rows, len(opens), {"no trade": len(rows.good) - len(traded)})
    return assemble(parts, interval_ms, quality.spanning(opens, interval_ms))


def from_trades(rows: Rows, interval_ms: int) -> History:
    """Candles of the Data API's trades."""
    trades: Sequence[Trade] = rows.good
    ts = np.array([trade.time_ms for trade in trades], np.int64)
    _refuse_nothing(ts, rows, "trade")
    price = np.array([trade.price for trade in trades], float)
    size = np.array([trade.size for trade in trades], float)
    built = bars_from_trades(ts, price, size, interval_ms)
    missing = trades[-1].record - trades[0].record + 1 - len(trades)
    quality = _quality(rows, len(trades) - built.late, {"late": built.late})
    if missing:
        quality = quality.note(f"{missing} fill records missing by their ids")
    spanned = quality.spanning(built.bars["ts_event"], interval_ms)
    return assemble([built.bars], interval_ms, spanned)


def settlement_events(settlements: Sequence[Settlement]) -> Records:
    """FUNDING and QUOTE events of settlements, as ``read_funding`` gives them."""
    stamps = np.array([row.time_ms for row in settlements], np.int64)
    rates = np.array([row.rate for row in settlements], float)
    prices = np.array([row.price for row in settlements], float)
    return make_funding(known_from(stamps), rates, 1.0, prices)


def join_settlements(history: History, funding: Records) -> History:
    """The candles with the settlements of their span, each when it was known.

    Where no bar closes between two of them they become the last: of the same cash for a position
    held through both, over the hours of both.
    """
    settled = select(funding, funding["kind"] == Kind.FUNDING)
    closes: Times = history.bars["ts_known"]
    known = settled["ts_known"]
    settled = select(settled, (known > history.quality.first_ms) & (known <= closes[-1]))
    if not len(settled):
        return replace(history, quality=history.quality.note("no funding records inside"))
    _, first = np.unique(np.searchsorted(closes, settled["ts_known"]), return_index=True)
    last = np.append(first[1:], len(settled)) - 1
    price: Floats = settled["settle_price"][last]
    cash = np.add.reduceat(settled["rate"] * settled["settle_price"], first)
    hours = np.add.reduceat(settled["interval_hours"], first)
    # a rate that stands alone is kept to the bit
    rates = np.where(first == last, settled["rate"][last], cash / price)
    events = make_funding(settled["ts_known"][last], rates, hours, price)
    joined = len(settled) - len(last)
    quality = history.quality.note(f"{len(settled)} hourly funding records inside")
    if joined:
        quality = quality.note(f"{joined} of them joined with the next: no bar closed between")
    return assemble([events, history.events], history.interval_ms, quality)


def _refuse_nothing(stamps: Times, rows: Rows, what: str) -> None:
    if not len(stamps):
        reasons = ", ".join(f"{count} {why.value}" for why, count in rows.refused.items())
        raise DataError(f"drift's data api: no usable {what}: {reasons or 'it told none'}")


def _quality(rows: Rows, used: int, left_out: dict[str, int]) -> Quality:
    skipped = Counter({why.value: count for why, count in rows.refused.items()})
    skipped.update({why: count for why, count in left_out.items() if count})
    read = len(rows.good) + sum(rows.refused.values())
    return Quality(rows_read=read, rows_used=used, skipped=dict(skipped))
