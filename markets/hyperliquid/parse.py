"""Hyperliquid's messages and answers, read into records; what cannot be read is named, not raised.

The venue writes numbers as decimal text and times as unix milliseconds. Everything from outside is
taken for what it is only after its shape, its numbers and their sense are checked.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from markets.feeds.closing import Candle
from markets.feeds.link import Trouble

DEPTH_LEVELS = 5
TIME_MS_MAX = 4_102_444_800_000  # the year 2100
_HOURLY_RATE_MAX = 1.0
_PRICE_DECIMALS, _PRICE_FIGURES = 6, 5


class CandleUpdate(NamedTuple):
    """A candle of one coin as it stands."""

    coin: str
    interval: str
    candle: Candle


class Book(NamedTuple):
    """Top of the order book; depths are units over the best levels. NaN: that side is empty."""

    coin: str
    time_ms: int
    bid: float
    ask: float
    bid_depth: float
    ask_depth: float


class Context(NamedTuple):
    """What the venue knows of a perpetual beside its book; ``funding_rate`` is per hour."""

    coin: str
    mark: float
    oracle: float
    open_interest: float
    funding_rate: float


class Trade(NamedTuple):
    """One trade; ``size`` in units."""

    coin: str
    time_ms: int
    price: float
    size: float


class Settlement(NamedTuple):
    """Funding that was paid: ``rate`` is the fraction of notional longs paid for one hour."""

    coin: str
    time_ms: int
    rate: float


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


class Reading(NamedTuple):
    """What a message held; ``refused`` names what was wrong with the parts that are left out."""

    messages: Sequence[Message]
    refused: Sequence[Trouble] = ()


class Unreadable(Exception):
    """Something from outside is not what it should be; never leaves this package's parsers."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.value)
        self.trouble = trouble


Row = TypeVar("Row")


def read_message(text: str | bytes) -> Reading:
    """The records of a websocket message."""
    try:
        message = _object(_json(text))
        channel, data = message.get("channel"), message.get("data")
        reader = _READERS.get(channel) if isinstance(channel, str) else None
        if reader is None:
            raise Unreadable(Trouble.UNKNOWN_CHANNEL)
        # the documents say that candles come in lists; the venue sends them singly
        rows = data if channel in _LISTED and isinstance(data, list) else [data]
    except Unreadable as error:
        return Reading((), (error.trouble,))
    return Reading(*read_rows(rows, reader))


def read_rows(rows: Any, reader: Callable[[Any], Row]) -> tuple[list[Row], list[Trouble]]:
    """The records of a list, and what was wrong with those left out."""
    if not isinstance(rows, list):
        return [], [Trouble.BAD_SHAPE]
    good: list[Row] = []
    refused = []
    for row in rows:
        try:
            good.append(reader(row))
        except Unreadable as error:
            refused.append(error.trouble)
    return good, refused


def read_candle(row: Any) -> CandleUpdate:
    """A candle of ``candle`` messages and of ``candleSnapshot``."""
    cells = _object(row)
    open_ms, trades = _time(cells.get("t")), _count(cells.get("n"))
    first, high, low, last = (_price(cells.get(name)) for name in "ohlc")
    if not low <= min(first, last) <= max(first, last) <= high:
        raise Unreadable(Trouble.IMPOSSIBLE_BAR)
    candle = Candle(open_ms, first, high, low, last, _amount(cells.get("v")), trades)
    return CandleUpdate(_text(cells.get("s")), _text(cells.get("i")), candle)


def read_book(row: Any) -> Book:
    """``l2Book``: two lists of levels, best first."""
    cells = _object(row)
    sides = cells.get("levels")
    if not isinstance(sides, list) or len(sides) != 2:
        raise Unreadable(Trouble.BAD_SHAPE)
    (bid, bid_depth), (ask, ask_depth) = _side(sides[0]), _side(sides[1])
    if bid >= ask:
        raise Unreadable(Trouble.CROSSED_BOOK)
    return Book(_text(cells.get("coin")), _time(cells.get("time")), bid, ask, bid_depth, ask_depth)


def read_context(row: Any) -> Context:
    """``activeAssetCtx``: mark, oracle, open interest and the rate of the hour under way."""
    cells = _object(row)
    context = _object(cells.get("ctx"))
    return Context(
        _text(cells.get("coin")),
        _price(context.get("markPx")),
        _price(context.get("oraclePx")),
        _amount(context.get("openInterest")),
        _rate(context.get("funding")),
    )


def read_trade(row: Any) -> Trade:
    """One row of ``trades``."""
    cells = _object(row)
    return Trade(
        _text(cells.get("coin")),
        _time(cells.get("time")),
        _price(cells.get("px")),
        _price(cells.get("sz")),
    )


def read_settlement(row: Any) -> Settlement:
    """One row of ``fundingHistory``."""
    cells = _object(row)
    return Settlement(
        _text(cells.get("coin")), _time(cells.get("time")), _rate(cells.get("fundingRate"))
    )


def read_listing(row: Any) -> Listing:
    """One row of the ``universe`` of ``meta``."""
    cells = _object(row)
    decimals, leverage = _count(cells.get("szDecimals")), _count(cells.get("maxLeverage"))
    if decimals > _PRICE_DECIMALS or leverage < 1:
        raise Unreadable(Trouble.BAD_NUMBER)
    delisted = cells.get("isDelisted", False) is True
    return Listing(_text(cells.get("name")), decimals, leverage, delisted)


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
    subscription = _object(_object(row).get("subscription"))
    return Acknowledged(_text(subscription.get("type")), _text(subscription.get("coin")))


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


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable(Trouble.NOT_JSON) from None


def _side(levels: Any) -> tuple[float, float]:
    """Best price of a side and the units on its first levels."""
    if not isinstance(levels, list):
        raise Unreadable(Trouble.BAD_SHAPE)
    if not levels:
        return math.nan, math.nan
    rows = [_object(level) for level in levels[:DEPTH_LEVELS]]
    return _price(rows[0].get("px")), sum(_amount(row.get("sz")) for row in rows)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(Trouble.BAD_SHAPE)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Unreadable(Trouble.BAD_SHAPE)
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Unreadable(Trouble.BAD_NUMBER)
    return value


def _time(value: Any) -> int:
    time_ms = _count(value)
    if not 0 < time_ms < TIME_MS_MAX:
        raise Unreadable(Trouble.BAD_NUMBER)
    return time_ms


def _number(value: Any) -> float:
    """A finite number, written as decimal text or plainly."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unreadable(Trouble.BAD_NUMBER)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise Unreadable(Trouble.BAD_NUMBER) from None
    if not math.isfinite(number):
        raise Unreadable(Trouble.BAD_NUMBER)
    return number


def _price(value: Any) -> float:
    price = _number(value)
    if price <= 0:
        raise Unreadable(Trouble.BAD_NUMBER)
    return price


def _amount(value: Any) -> float:
    amount = _number(value)
    if amount < 0:
        raise Unreadable(Trouble.BAD_NUMBER)
    return amount


def _rate(value: Any) -> float:
    rate = _number(value)
    if abs(rate) > _HOURLY_RATE_MAX:
        raise Unreadable(Trouble.BAD_NUMBER)
    return rate
