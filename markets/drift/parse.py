"""Drift's messages and answers, read into records; what cannot be read is named, not raised.

Its services write one market in two ways. The book server's books are integers in text (1e6 a unit
of price, 1e9 of size) with milliseconds; its trades, like all of the Data API, are decimals with
seconds. Each reader below knows one of the two and refuses the other.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from markets.drift.units import base_from_chain, funding_from_decimal, price_from_chain
from markets.feeds.closing import Candle
from markets.feeds.funding import Settlement
from markets.feeds.link import Trouble
from markets.feeds.reading import (
    Reading,
    Unreadable,
    as_amount,
    as_count,
    as_json,
    as_number,
    as_object,
    as_price,
    as_text,
    as_time,
    read_rows,
)

DEPTH_LEVELS = 5
_RATE_MAX = 1.0
_CHANNEL = re.compile(r"(orderbook|trades)_perp_([0-9]{1,5})(?:_grouped_[0-9]+)?")
_INTEGER = re.compile(r"[0-9]{1,30}")
_UNTRADED = ("indicative",)


class Snapshot(NamedTuple):
    """The book of a market, by its number, as of a slot.

    Depths are units over the best levels, ``time_ms`` is when the server told it. NaN: that side is
    empty, or was not told.
    """

    market: int
    slot: int
    time_ms: int
    bid: float
    ask: float
    bid_depth: float
    ask_depth: float
    mark: float
    oracle: float


class Trade(NamedTuple):
    """One fill in a market, by its number; ``size`` is in units, and ``record`` numbers the fills
    of its market without a gap."""

    market: int
    record: int
    time_ms: int
    price: float
    size: float


class Acknowledged(NamedTuple):
    """The server heard a subscription; that it accepts it shows in what it sends."""


class Heartbeat(NamedTuple):
    """The connection stands. It says nothing of the market."""


class CandleRow(NamedTuple):
    """A candle of the Data API and the oracle's price at its close; without a trade it is None."""

    open_ms: int
    candle: Candle | None
    oracle: float


Message: TypeAlias = Snapshot | Trade | Acknowledged | Heartbeat


class Page(NamedTuple):
    """Rows of a Data API answer, and what to ask for the next ones; None after the last."""

    rows: Any
    next_page: int | str | None


def read_message(text: str | bytes) -> Reading[Message]:
    """The records of a message of the book server's websocket."""
    try:
        message = as_object(as_json(text))
        if "error" in message:
            raise Unreadable(Trouble.VENUE_ERROR)
        channel = message.get("channel")
        if channel is None and isinstance(message.get("message"), str):
            return Reading((Acknowledged(),))
        if channel == "heartbeat":
            return Reading((Heartbeat(),))
        kind, number = _channel(channel)
        data = message.get("data")
        data = as_json(data) if isinstance(data, str) else data
    except Unreadable as error:
        return Reading((), (error.trouble,))
    reader: Callable[[Any], Message] = read_snapshot if kind == "orderbook" else read_trade
    rows = data if kind == "trades" and isinstance(data, list) else [data]
    good, refused = read_rows(rows, lambda row: _of_market(reader(row), number))
    return Reading(good, refused)


def read_snapshot(row: Any) -> Snapshot:
    """A book as ``/l2`` and the websocket tell it, in integers."""
    cells = as_object(row)
    (bid, bid_depth), (ask, ask_depth) = _side(cells.get("bids")), _side(cells.get("asks"))
    if bid >= ask:
        raise Unreadable(Trouble.CROSSED_BOOK)
    mark = cells.get("markPrice")
    return Snapshot(
        as_count(cells.get("marketIndex")),
        as_count(cells.get("slot")),
        as_time(cells.get("ts")),
        bid,
        ask,
        bid_depth,
        ask_depth,
        # the venue's own mark is the middle of its book
        (bid + ask) / 2 if mark is None else _price(mark),
        _oracle(cells),
    )


def read_trade(row: Any) -> Trade:
    """A fill, in decimals: its price is quote over base."""
    cells = as_object(row)
    if cells.get("action", "fill") != "fill" or cells.get("marketType", "perp") != "perp":
        raise Unreadable(Trouble.BAD_SHAPE)
    base, quote = (as_price(cells.get(f"{what}AssetAmountFilled")) for what in ("base", "quote"))
    record = as_number(cells.get("fillRecordId"))
    if record < 0 or record != int(record):
        raise Unreadable(Trouble.BAD_NUMBER)
    return Trade(
        as_count(cells.get("marketIndex")), int(record), _seconds(cells), quote / base, base
    )


def read_page(body: Any) -> Page:
    """An answer of the Data API that says it succeeded."""
    cells = as_object(body)
    if cells.get("success") is not True:
        raise Unreadable(Trouble.VENUE_ERROR)
    meta = cells.get("meta") or {}
    next_page = as_object(meta).get("nextPage")
    if next_page is not None and (isinstance(next_page, bool) or not isinstance(next_page, int)):
        next_page = as_text(next_page)
    return Page(cells.get("records"), next_page)


def read_candle(row: Any) -> CandleRow:
    """A candle of the Data API, in decimals, of fills; ``ts`` is its open."""
    cells = as_object(row)
    open_ms, volume = _seconds(cells), as_amount(cells.get("baseVolume"))
    oracle = cells.get("oracleClose")
    oracle = math.nan if oracle is None else as_price(oracle)
    if volume == 0:
        return CandleRow(open_ms, None, oracle)
    first, high, low, last = (
        as_price(cells.get(f"fill{name}")) for name in ("Open", "High", "Low", "Close")
    )
    if not low <= min(first, last) <= max(first, last) <= high:
        raise Unreadable(Trouble.IMPOSSIBLE_BAR)
    candle = Candle(open_ms, first, high, low, last, volume, trades=0)
    return CandleRow(open_ms, candle, oracle)


def read_settlement(row: Any) -> Settlement:
    """A row of ``/market/{symbol}/fundingRates``, in decimals: what longs paid, of the oracle."""
    cells = as_object(row)
    oracle = as_price(cells.get("oraclePriceTwap"))
    own = cells.get("fundingRateLong")
    paid = as_number(cells.get("fundingRate") if own is None else own)
    rate = funding_from_decimal(paid, oracle)
    if abs(rate) >= _RATE_MAX:
        raise Unreadable(Trouble.BAD_NUMBER)
    return Settlement("", _seconds(cells), rate, oracle)


def _channel(channel: Any) -> tuple[str, int]:
    found = _CHANNEL.fullmatch(channel) if isinstance(channel, str) else None
    if found is None:
        raise Unreadable(Trouble.UNKNOWN_CHANNEL)
    return found[1], int(found[2])


def _of_market(message: Message, number: int) -> Message:
    """The message, if it is of the market whose channel it came on."""
    if isinstance(message, Snapshot | Trade) and message.market != number:
        raise Unreadable(Trouble.UNKNOWN_COIN)
    return message


def _side(levels: Any) -> tuple[float, float]:
    """Best price of a side and the units on its first levels, of what can be traded."""
    if not isinstance(levels, list):
        raise Unreadable(Trouble.BAD_SHAPE)
    firm = [level for level in map(_level, levels) if level[1] > 0][:DEPTH_LEVELS]
    if not firm:
        return math.nan, math.nan
    return firm[0][0], base_from_chain(sum(size for _, size in firm))


def _level(row: Any) -> tuple[float, int]:
    """Price of a level, and its integer size less what nobody is bound to."""
    cells = as_object(row)
    sources = as_object(cells.get("sources") or {})
    loose = sum(_integer(sources[name]) for name in _UNTRADED if name in sources)
    return _price(cells.get("price")), _integer(cells.get("size")) - loose


def _oracle(cells: Mapping[str, Any]) -> float:
    """The oracle's price, which stands bare or in an object; NaN where it is not told."""
    told = cells.get("oracle")
    if told is None and "oracleData" in cells:
        told = as_object(cells["oracleData"]).get("price")
    return math.nan if told is None else _price(told)


def _integer(value: Any) -> int:
    """A whole number, written as text or plainly; never a decimal, whose unit would be another."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return as_count(value)


def _price(value: Any) -> float:
    price = _integer(value)
    if price == 0:
        raise Unreadable(Trouble.BAD_NUMBER)
    return price_from_chain(price)


def _seconds(cells: Mapping[str, Any]) -> int:
    """The stamp of a row, as milliseconds."""
    stamp = as_number(cells.get("ts"))
    if stamp != int(stamp):
        raise Unreadable(Trouble.BAD_NUMBER)
    return as_time(int(stamp) * 1_000)
