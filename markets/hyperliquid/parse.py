"""Hyperliquid's messages and answers, read into records; what cannot be read is named, not raised.

The venue writes numbers as decimal text and times as unix milliseconds. Everything from outside is
taken for what it is only after its shape, its numbers and their sense are checked.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from markets.feeds.closing import Candle
from markets.feeds.funding import Settlement
from markets.feeds.link import Trouble
from markets.feeds.quotes import Book, Context
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
_HOURLY_RATE_MAX = 1.0
_PRICE_DECIMALS, _PRICE_FIGURES = 6, 5


class CandleUpdate(NamedTuple):
    """A candle of one coin as it stands."""

    coin: str
    interval: str
    candle: Candle


class Trade(NamedTuple):
    """One trade; ``size`` in units."""

    coin: str
    time_ms: int
    price: float
    size: float


class Listing(NamedTuple):
    """A perpetual the venue lists."""

    coin: str
    size_decimals: int
    leverage_max: int
    delisted: bool


class Acknowledged(NamedTuple):
    """A subscription the venue confirmed."""

    kind: str
    coin: str


class Pong(NamedTuple):
    """The answer to our ping."""


Message: TypeAlias = CandleUpdate | Book | Context | Trade | Acknowledged | Pong


def read_message(text: str | bytes) -> Reading[Message]:
    """The records of a websocket message."""
    try:
        message = as_object(as_json(text))
        channel, data = message.get("channel"), message.get("data")
        reader = _READERS.get(channel) if isinstance(channel, str) else None
        if reader is None:
            raise Unreadable(Trouble.UNKNOWN_CHANNEL)
        # the documents say that candles come in lists; the venue sends them singly
        rows = data if channel in _LISTED and isinstance(data, list) else [data]
    except Unreadable as error:
        return Reading((), (error.trouble,))
    return Reading(*read_rows(rows, reader))


def read_candle(row: Any) -> CandleUpdate:
    """A candle of ``candle`` messages and of ``candleSnapshot``."""
    cells = as_object(row)
    open_ms, trades = as_time(cells.get("t")), as_count(cells.get("n"))
    first, high, low, last = (as_price(cells.get(name)) for name in "ohlc")
    if not low <= min(first, last) <= max(first, last) <= high:
        raise Unreadable(Trouble.IMPOSSIBLE_BAR)
    candle = Candle(open_ms, first, high, low, last, as_amount(cells.get("v")), trades)
    return CandleUpdate(as_text(cells.get("s")), as_text(cells.get("i")), candle)


def read_book(row: Any) -> Book:
    """``l2Book``: two lists of levels, best first."""
    cells = as_object(row)
    sides = cells.get("levels")
    if not isinstance(sides, list) or len(sides) != 2:
        raise Unreadable(Trouble.BAD_SHAPE)
    (bid, bid_depth), (ask, ask_depth) = _side(sides[0]), _side(sides[1])
    if bid >= ask:
        raise Unreadable(Trouble.CROSSED_BOOK)
    return Book(
        as_text(cells.get("coin")), as_time(cells.get("time")), bid, ask, bid_depth, ask_depth
    )


def read_context(row: Any) -> Context:
    """``activeAssetCtx``: mark, oracle, open interest and the rate of the hour under way."""
    cells = as_object(row)
    context = as_object(cells.get("ctx"))
    return Context(
        as_text(cells.get("coin")),
        as_price(context.get("markPx")),
        as_price(context.get("oraclePx")),
        as_amount(context.get("openInterest")),
        _rate(context.get("funding")),
    )


def read_trade(row: Any) -> Trade:
    """One row of ``trades``."""
    cells = as_object(row)
    return Trade(
        as_text(cells.get("coin")),
        as_time(cells.get("time")),
        as_price(cells.get("px")),
        as_price(cells.get("sz")),
    )


def read_settlement(row: Any) -> Settlement:
    """One row of ``fundingHistory``."""
    cells = as_object(row)
    return Settlement(
        as_text(cells.get("coin")), as_time(cells.get("time")), _rate(cells.get("fundingRate"))
    )


def read_listing(row: Any) -> Listing:
    """One row of the ``universe`` of ``meta``."""
    cells = as_object(row)
    decimals, leverage = as_count(cells.get("szDecimals")), as_count(cells.get("maxLeverage"))
    if decimals > _PRICE_DECIMALS or leverage < 1:
        raise Unreadable(Trouble.BAD_NUMBER)
    delisted = cells.get("isDelisted", False) is True
    return Listing(as_text(cells.get("name")), decimals, leverage, delisted)


def instrument_terms(listing: Listing, price: float) -> dict[str, float]:
    """The terms an Instrument takes from the venue, for prices near this one.

    A price has at most five significant figures and ``6 - size_decimals`` decimals, but may always
    be whole. The maintenance margin is half the initial margin at the greatest leverage. Fees are
    those of the lowest tier.
    """
    by_figures = math.floor(math.log10(price)) + 1 - _PRICE_FIGURES
    exponent = min(max(by_figures, listing.size_decimals - _PRICE_DECIMALS), 0)
    return {
        "tick": float(f"1e{exponent}"),
        "lot": float(f"1e-{listing.size_decimals}"),
        "notional_min": 10.0,
        "fee_rate": 0.00045,
        "fee_rate_maker": 0.00015,
        "leverage": float(min(5, listing.leverage_max)),
        "maintenance": 0.5 / listing.leverage_max,
    }


def _acknowledged(row: Any) -> Acknowledged:
    subscription = as_object(as_object(row).get("subscription"))
    return Acknowledged(as_text(subscription.get("type")), as_text(subscription.get("coin")))


def _pong(_row: Any) -> Pong:
    return Pong()


def _refused(_row: Any) -> Message:
    raise Unreadable(Trouble.VENUE_ERROR)


_READERS: dict[str, Callable[[Any], Message]] = {
    "candle": read_candle,
    "l2Book": read_book,
    "activeAssetCtx": read_context,
    "trades": read_trade,
    "subscriptionResponse": _acknowledged,
    "pong": _pong,
    "error": _refused,
}
_LISTED = ("candle", "trades")


def _side(levels: Any) -> tuple[float, float]:
    """Best price of a side and the units on its first levels."""
    if not isinstance(levels, list):
        raise Unreadable(Trouble.BAD_SHAPE)
    if not levels:
        return math.nan, math.nan
    rows = [as_object(level) for level in levels[:DEPTH_LEVELS]]
    return as_price(rows[0].get("px")), sum(as_amount(row.get("sz")) for row in rows)


def _rate(value: Any) -> float:
    rate = as_number(value)
    if abs(rate) > _HOURLY_RATE_MAX:
        raise Unreadable(Trouble.BAD_NUMBER)
    return rate
