"""Drift's messages and answers: what they say, and what is refused and why."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin_dlob import GARBAGE

from markets.drift.parse import (
    Acknowledged,
    Heartbeat,
    Page,
    Snapshot,
    Trade,
    read_candle,
    read_message,
    read_page,
    read_settlement,
    read_snapshot,
    read_trade,
)
from markets.feeds.closing import Candle
from markets.feeds.link import Trouble
from markets.feeds.reading import Unreadable

BOOK: dict[str, Any] = {
    "marketName": "SOL-PERP",
    "marketIndex": 0,
    "ts": 1_746_316_800_123,
    "slot": 337_000_000,
    "marketSlot": 336_999_998,
    "oracle": 150_250_000,
    "bids": [
        {"price": "150300000", "size": "9000000000", "sources": {"indicative": "9000000000"}},
        {"price": "150200000", "size": "1500000000", "sources": {"dlob": "1500000000"}},
        {"price": "150100000", "size": "2000000000", "sources": {"vamm": "2000000000"}},
    ],
    "asks": [{"price": "150400000", "size": "500000000", "sources": {"dlob": "500000000"}}],
}
TRADE: dict[str, Any] = {
    "ts": 1_746_316_805,
    "marketIndex": 0,
    "marketType": "perp",
    "baseAssetAmountFilled": 2.5,
    "quoteAssetAmountFilled": "375.625",
    "fillRecordId": 41,
    "action": "fill",
}
CANDLE: dict[str, Any] = {
    "ts": 1_746_316_800,
    "fillOpen": 150,
    "fillHigh": 152.5,
    "fillLow": "149",
    "fillClose": 151,
    "oracleClose": 151.1,
    "baseVolume": 12.5,
    "quoteVolume": 1_880,
}


def said(channel: str, data: Any, *, double: bool = True) -> str:
    return json.dumps({"channel": channel, "data": json.dumps(data) if double else data})


@pytest.mark.parametrize("double", [True, False])
def test_a_book_is_integers_and_what_binds_nobody_is_left_out(*, double: bool) -> None:
    reading = read_message(said("orderbook_perp_0_grouped_1", BOOK, double=double))
    assert reading.refused == []
    (told,) = reading.messages
    assert told == Snapshot(
        market=0,
        slot=337_000_000,
        time_ms=1_746_316_800_123,
        bid=150.2,
        ask=150.4,
        bid_depth=3.5,
        ask_depth=0.5,
        mark=pytest.approx(150.3),
        oracle=150.25,
    )


def test_mark_and_oracle_are_taken_where_they_are_told() -> None:
    older = {name: value for name, value in BOOK.items() if name != "oracle"}
    told = read_snapshot({**older, "markPrice": "150310000", "oracleData": {"price": "150240000"}})
    assert (told.mark, told.oracle) == (150.31, 150.24)
    assert math.isnan(read_snapshot(older).oracle)
    empty = read_snapshot({**BOOK, "bids": []})
    assert math.isnan(empty.bid)
    assert math.isnan(empty.mark)


@pytest.mark.parametrize("double", [True, False])
def test_a_trade_is_decimals_and_seconds(*, double: bool) -> None:
    told = Trade(0, 41, 1_746_316_805_000, 150.25, 2.5)
    assert read_message(said("trades_perp_0", TRADE, double=double)).messages == [told]
    assert read_message(said("trades_perp_0", [TRADE, TRADE])).messages == [told, told]


def test_what_is_no_data_says_so() -> None:
    assert read_message('{"channel":"heartbeat"}').messages == (Heartbeat(),)
    assert read_message('{"message":"Subscribe received"}').messages == (Acknowledged(),)


@pytest.mark.parametrize(
    ("changed", "trouble"),
    [
        ({"ts": 1_746_316_800}, None),
        ({"ts": None}, Trouble.BAD_NUMBER),
        ({"ts": -1}, Trouble.BAD_NUMBER),
        ({"slot": "now"}, Trouble.BAD_NUMBER),
        ({"slot": True}, Trouble.BAD_NUMBER),
        ({"oracle": 0}, Trouble.BAD_NUMBER),
        ({"oracle": "150.25"}, Trouble.BAD_NUMBER),
        ({"bids": None}, Trouble.BAD_SHAPE),
        ({"bids": [3]}, Trouble.BAD_SHAPE),
        ({"bids": [{"price": "150.2", "size": "1"}]}, Trouble.BAD_NUMBER),
        ({"bids": [{"price": "150200000", "size": "-1"}]}, Trouble.BAD_NUMBER),
        ({"bids": [{"price": "150200000", "size": 1.5}]}, Trouble.BAD_NUMBER),
        ({"bids": [{"price": "150400000", "size": "1"}]}, Trouble.CROSSED_BOOK),
        ({"marketIndex": 1}, Trouble.UNKNOWN_COIN),
        ({"marketIndex": None}, Trouble.BAD_NUMBER),
    ],
)
def test_a_book_that_is_not_one_is_refused_by_name(
    changed: dict[str, Any], trouble: Trouble | None
) -> None:
    reading = read_message(said("orderbook_perp_0", BOOK | changed))
    assert list(reading.refused) == ([] if trouble is None else [trouble])
    assert len(reading.messages) == (trouble is None)


@pytest.mark.parametrize(
    ("changed", "trouble"),
    [
        ({"fillRecordId": "42"}, None),
        ({"fillRecordId": None}, Trouble.BAD_NUMBER),
        ({"fillRecordId": 1.5}, Trouble.BAD_NUMBER),
        ({"ts": 1_746_316_805_000}, Trouble.BAD_NUMBER),
        ({"ts": "soon"}, Trouble.BAD_NUMBER),
        ({"baseAssetAmountFilled": 0}, Trouble.BAD_NUMBER),
        ({"quoteAssetAmountFilled": "nan"}, Trouble.BAD_NUMBER),
        ({"quoteAssetAmountFilled": "-3"}, Trouble.BAD_NUMBER),
        ({"action": "place"}, Trouble.BAD_SHAPE),
        ({"marketType": "spot"}, Trouble.BAD_SHAPE),
        ({"marketIndex": 2}, Trouble.UNKNOWN_COIN),
    ],
)
def test_a_trade_that_is_not_one_is_refused_by_name(
    changed: dict[str, Any], trouble: Trouble | None
) -> None:
    reading = read_message(said("trades_perp_0", TRADE | changed))
    assert list(reading.refused) == ([] if trouble is None else [trouble])
    assert len(reading.messages) == (trouble is None)


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_counted_and_never_raises(text: str) -> None:
    reading = read_message(text)
    assert not reading.messages
    assert len(reading.refused) == 1


@pytest.mark.parametrize(
    "channel", ["orderbook_spot_0", "orderbook_perp_x", "orderbook_perp_0_indicative", 7]
)
def test_a_channel_nobody_asked_for_is_named(channel: Any) -> None:
    assert read_message(json.dumps({"channel": channel, "data": BOOK})).refused == (
        Trouble.UNKNOWN_CHANNEL,
    )


@given(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_no_message_whatever_raises(channel: str, data: Any) -> None:
    for name in (channel, "trades_perp_0", "orderbook_perp_0"):
        reading = read_message(json.dumps({"channel": name, "data": data}))
        assert reading.messages or reading.refused or data == []


def test_a_candle_is_of_fills_and_without_any_it_is_none() -> None:
    told = read_candle(CANDLE)
    assert told.candle == Candle(1_746_316_800_000, 150, 152.5, 149, 151, 12.5, 0)
    assert told.oracle == 151.1
    idle = read_candle(CANDLE | {"baseVolume": 0, "fillOpen": None})
    assert (idle.candle, idle.open_ms) == (None, 1_746_316_800_000)


@pytest.mark.parametrize(
    ("changed", "trouble"),
    [
        ({"fillHigh": 150.5}, Trouble.IMPOSSIBLE_BAR),
        ({"fillLow": 0}, Trouble.BAD_NUMBER),
        ({"baseVolume": -1}, Trouble.BAD_NUMBER),
        ({"ts": 1.5}, Trouble.BAD_NUMBER),
        ({"oracleClose": "x"}, Trouble.BAD_NUMBER),
    ],
)
def test_a_candle_that_is_not_one_is_refused(changed: dict[str, Any], trouble: Trouble) -> None:
    with pytest.raises(Unreadable) as refused:
        read_candle(CANDLE | changed)
    assert refused.value.trouble is trouble


def test_funding_is_what_longs_paid_of_the_oracle() -> None:
    row = {"ts": 1_746_316_807, "fundingRate": "0.0015", "oraclePriceTwap": "150"}
    told = read_settlement(row)
    assert (told.time_ms, told.price) == (1_746_316_807_000, 150)
    assert told.rate == pytest.approx(1e-5)
    assert read_settlement(row | {"fundingRateLong": "0.003"}).rate == pytest.approx(2e-5)
    # the chain's integer in the place of a decimal
    for wrong in ({"fundingRate": "1500000"}, {"oraclePriceTwap": 0}, {"fundingRate": None}):
        with pytest.raises(Unreadable):
            read_settlement(row | wrong)


def test_a_page_says_whether_it_succeeded_and_what_follows() -> None:
    assert read_page({"success": True, "records": [1], "meta": {"nextPage": "a"}}) == Page([1], "a")
    assert read_page({"success": True, "records": []}).next_page is None
    wrong: list[Any] = [[], {}, {"success": False}, {"success": True, "meta": {"nextPage": True}}]
    for body in wrong:
        with pytest.raises(Unreadable):
            read_page(body)


@given(st.integers(1, 10**15), st.integers(1, 10**18))
def test_prices_and_sizes_come_as_the_integers_they_were(price: int, size: int) -> None:
    book = {**BOOK, "bids": [{"price": str(price), "size": str(size)}], "asks": []}
    told = read_snapshot(book)
    assert abs(round(told.bid * 1e6) - price) <= 1
    assert abs(round(told.bid_depth * 1e9) - size) <= max(1, size * 2**-50)
    fill = read_trade(TRADE | {"baseAssetAmountFilled": size / 1e9, "quoteAssetAmountFilled": 1.0})
    assert fill.size == size / 1e9
