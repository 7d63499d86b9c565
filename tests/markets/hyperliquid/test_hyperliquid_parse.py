"""Hyperliquid's messages: what they say, and what is refused and why."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin_exchange import GARBAGE

from core.instrument import Instrument
from markets.feeds.closing import Candle
from markets.feeds.link import Trouble
from markets.feeds.reading import Reading
from markets.hyperliquid.parse import (
    Acknowledged,
    Book,
    CandleUpdate,
    Context,
    Listing,
    Message,
    Pong,
    Settlement,
    Trade,
    instrument_terms,
    read_listing,
    read_message,
    read_rows,
    read_settlement,
)

CANDLE = {
    "t": 1681923600000,
    "T": 1681924499999,
    "s": "BTC",
    "i": "15m",
    "o": "29295.0",
    "c": "29258.0",
    "h": "29309.0",
    "l": "29250.0",
    "v": "0.98639",
    "n": 189,
}
CONTEXT = {
    "dayNtlVlm": "1169046.29406",
    "funding": "0.0000125",
    "impactPxs": ["14.3047", "14.3444"],
    "markPx": "14.3161",
    "midPx": "14.314",
    "openInterest": "688.11",
    "oraclePx": "14.32",
    "premium": "0.00031774",
    "prevDayPx": "15.322",
}
LEVELS = [
    [{"px": "19900", "sz": "1", "n": 1}, {"px": "19800", "sz": "2", "n": 2}],
    [{"px": "20100", "sz": "3", "n": 1}],
]
BOOK = {"coin": "BTC", "levels": LEVELS, "time": 1754450974231}
TRADE = {"coin": "SOL", "side": "A", "px": "13.6", "sz": "3.1", "time": 1754450974231, "tid": 7}


def said(channel: str, data: Any) -> Reading[Message]:
    return read_message(json.dumps({"channel": channel, "data": data}))


def test_every_message_the_feed_asks_for_is_read() -> None:
    read = Candle(1681923600000, 29295.0, 29309.0, 29250.0, 29258.0, 0.98639, 189)
    assert said("candle", CANDLE) == Reading([CandleUpdate("BTC", "15m", read)], [])
    assert said("candle", [CANDLE, CANDLE]).messages == [CandleUpdate("BTC", "15m", read)] * 2
    assert said("l2Book", BOOK).messages == [
        Book("BTC", 1754450974231, 19900.0, 20100.0, 3.0, 3.0),
    ]
    assert said("activeAssetCtx", {"coin": "HPOS", "ctx": CONTEXT}).messages == [
        Context("HPOS", 14.3161, 14.32, 688.11, 0.0000125)
    ]
    assert said("trades", [TRADE]).messages == [Trade("SOL", 1754450974231, 13.6, 3.1)]
    assert said("pong", None).messages == [Pong()]
    subscription = {"method": "subscribe", "subscription": {"type": "candle", "coin": "SOL"}}
    assert said("subscriptionResponse", subscription).messages == [Acknowledged("candle", "SOL")]


def test_depth_counts_the_best_five_levels_and_an_empty_side_is_unknown() -> None:
    asks = [{"px": str(100 + level), "sz": "2", "n": 1} for level in range(20)]
    (book,) = said("l2Book", BOOK | {"levels": [[], asks]}).messages
    assert isinstance(book, Book)
    assert math.isnan(book.bid)
    assert (book.ask, book.ask_depth) == (100.0, 10.0)


@pytest.mark.parametrize(
    ("channel", "data", "trouble"),
    [
        ("candle", CANDLE | {"h": "29000"}, Trouble.IMPOSSIBLE_BAR),
        ("candle", CANDLE | {"o": "-1"}, Trouble.BAD_NUMBER),
        ("candle", CANDLE | {"o": "NaN"}, Trouble.BAD_NUMBER),
        ("candle", CANDLE | {"v": "-0.1"}, Trouble.BAD_NUMBER),
        ("candle", CANDLE | {"c": None}, Trouble.BAD_NUMBER),
        ("candle", CANDLE | {"t": 1.5}, Trouble.BAD_NUMBER),
        ("candle", CANDLE | {"t": 10**30}, Trouble.BAD_NUMBER),
        ("candle", CANDLE | {"n": True}, Trouble.BAD_NUMBER),
        ("candle", CANDLE | {"s": ""}, Trouble.BAD_SHAPE),
        ("candle", "soon", Trouble.BAD_SHAPE),
        ("l2Book", BOOK | {"levels": LEVELS[::-1]}, Trouble.CROSSED_BOOK),
        ("l2Book", BOOK | {"levels": [[]]}, Trouble.BAD_SHAPE),
        ("l2Book", BOOK | {"levels": [[], {}]}, Trouble.BAD_SHAPE),
        ("activeAssetCtx", {"coin": "X", "ctx": CONTEXT | {"funding": "7"}}, Trouble.BAD_NUMBER),
        ("activeAssetCtx", {"coin": "X"}, Trouble.BAD_SHAPE),
        ("trades", [TRADE | {"px": "1e999"}], Trouble.BAD_NUMBER),
        ("allMids", {}, Trouble.UNKNOWN_CHANNEL),
        ("error", "Invalid subscription", Trouble.VENUE_ERROR),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(channel: str, data: Any, trouble: Trouble) -> None:
    reading = said(channel, data)
    assert (list(reading.messages), list(reading.refused)) == ([], [trouble])


def test_one_bad_row_does_not_take_the_good_ones_with_it() -> None:
    reading = said("trades", [TRADE, TRADE | {"sz": "0"}])
    assert len(reading.messages) == 1
    assert reading.refused == [Trouble.BAD_NUMBER]


@pytest.mark.parametrize(
    "text", [*GARBAGE, "", b"\xff\xfe", "NaN", '{"channel":"candle","data":[]']
)
def test_garbage_is_named_and_never_raised(text: str | bytes) -> None:
    reading = read_message(text)
    assert len(reading.messages) == 0
    assert len(reading.refused) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(["candle", "l2Book", "activeAssetCtx", "trades", "subscriptionResponse"]),
    st.sampled_from([CANDLE, BOOK, TRADE, {"coin": "BTC", "ctx": CONTEXT}]),
    st.sampled_from([*CANDLE, "levels", "ctx", "time", "px", "sz", "coin", "subscription"]),
    JSON,
)
def test_any_value_in_any_place_is_read_or_named(
    channel: str, data: dict[str, Any], place: str, value: Any
) -> None:
    for changed in (data | {place: value}, value, [data, value]):
        reading = said(channel, changed)
        assert all(isinstance(trouble, Trouble) for trouble in reading.refused)
        for message in reading.messages:
            numbers = [part for part in message if isinstance(part, float)]
            assert all(math.isfinite(number) or isinstance(message, Book) for number in numbers)


def test_settlements_and_listings_are_read() -> None:
    paid = {
        "coin": "ETH",
        "fundingRate": "-0.00022196",
        "premium": "-0.0005",
        "time": 1683849600076,
    }
    rows, refused = read_rows([paid, paid | {"time": "x"}], read_settlement)
    assert rows == [Settlement("ETH", 1683849600076, -0.00022196)]
    assert refused == [Trouble.BAD_NUMBER]
    row = {"name": "LOOM", "szDecimals": 1, "maxLeverage": 3, "isDelisted": True}
    good, bad = read_rows([row, row | {"szDecimals": 9}, 5], read_listing)
    assert good == [Listing("LOOM", 1, 3, True)]
    assert bad == [Trouble.BAD_NUMBER, Trouble.BAD_SHAPE]
    assert read_rows({"universe": []}, read_listing) == ([], [Trouble.BAD_SHAPE])


@pytest.mark.parametrize(
    ("size_decimals", "price", "tick"),
    [
        (5, 97_000.0, 1.0),
        (5, 123_456.0, 1.0),
        (2, 150.0, 0.01),
        (0, 0.001234, 1e-6),
        (1, 0.01, 1e-5),
    ],
)
def test_the_tick_follows_the_figures_and_the_decimals(
    size_decimals: int, price: float, tick: float
) -> None:
    terms = instrument_terms(Listing("X", size_decimals, 20, False), price)
    instrument = Instrument(name="X", **terms)
    assert instrument.tick == pytest.approx(tick, rel=1e-12)
    assert instrument.lot == pytest.approx(10**-size_decimals, rel=1e-12)
    assert instrument.maintenance == 0.025
