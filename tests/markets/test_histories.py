"""Histories: order, merging, cropping, and what a field being carried means."""

import hashlib
import time

import numpy as np
import pytest
from candle_files import MINUTE, START, bars_at
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.events import make_events
from core.model import EVENT, Kind
from markets.history import (
    PAYLOAD,
    Quality,
    assemble,
    crop,
    in_order,
    make_bars,
    make_funding,
    merge,
    select,
    stack,
    utc,
)

KINDS = sorted(PAYLOAD)
KEYS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(KINDS), st.integers(0, 2)))


@given(KEYS)
def test_order_is_by_time_kind_and_instrument_and_is_stable(
    keys: list[tuple[int, Kind, int]],
) -> None:
    events = np.zeros(len(keys), EVENT)
    for event, (ts, kind, instrument) in zip(events, keys, strict=True):
        event["ts_known"], event["kind"], event["instrument"] = ts, kind, instrument
    events["ts_event"] = np.arange(len(keys))
    ordered = in_order(events)
    expected = sorted(range(len(keys)), key=lambda place: keys[place])
    assert ordered["ts_event"].tolist() == expected


def test_a_quote_at_a_close_stands_before_its_bar() -> None:
    assert bars_at([0, 1]).events["kind"].tolist() == [Kind.QUOTE, Kind.BAR] * 2


def test_a_bar_is_known_at_its_close() -> None:
    bar = bars_at([3]).bars[0]
    assert (bar["ts_event"], bar["ts_known"]) == (START + 3 * MINUTE, START + 4 * MINUTE)


def test_every_payload_field_of_every_kind_is_one_of_the_record_type() -> None:
    for kind in KINDS:
        event = make_events(kind, [5], **{name: [1.5] for name in PAYLOAD[kind]})[0]
        assert [event[name] for name in PAYLOAD[kind]] == [1.5] * len(PAYLOAD[kind])


def test_a_payload_field_not_given_is_nan() -> None:
    quote = make_events(Kind.QUOTE, [5], mark=[1.0])[0]
    assert quote["mark"] == 1.0
    assert np.isnan(quote["oracle"])


def test_a_column_of_nan_is_not_carried_and_one_value_is_enough() -> None:
    opens = np.array([START, START + MINUTE])
    bars = make_bars(opens, MINUTE, open=[1, 1], high=[1, 1], low=[1, 1], close=[1, 1])
    quotes = make_events(Kind.QUOTE, opens + MINUTE, mark=[np.nan, 2.0])
    history = assemble([bars, quotes], MINUTE, Quality())
    assert history.fields == {"open", "high", "low", "close", "mark"}


def test_a_settlement_reveals_its_hourly_rate_at_the_same_stamp() -> None:
    events = in_order(make_funding(np.array([START]), np.array([0.0008]), 8.0, np.nan))
    assert events["kind"].tolist() == [Kind.FUNDING, Kind.QUOTE]
    assert events["ts_known"].tolist() == [START, START]
    assert events["funding_rate"][1] == pytest.approx(0.0001)


def test_events_of_a_history_are_read_only_and_one_merged_alone_is_not_copied() -> None:
    history = bars_at([0])
    with pytest.raises(ValueError, match="read-only"):
        history.events["open"] = 1
    assert merge([history]) is history.events
    merge([history, history])["open"] = 1


def test_merging_numbers_the_instruments_and_orders_all_events() -> None:
    one, two = bars_at([0, 2]), bars_at([0, 1])
    block = merge([one, two])
    assert block["instrument"].tolist() == [0, 1, 0, 1, 1, 1, 0, 0]
    assert (np.diff(block["ts_known"]) >= 0).all()
    assert one.events["instrument"].tolist() == [0] * 4


def test_merging_nothing_gives_an_empty_block() -> None:
    assert len(merge([])) == 0


def test_copies_keep_every_byte() -> None:
    events = bars_at([0, 1, 2]).events
    assert stack([events]).tobytes() == events.tobytes()
    assert select(events, np.array([1])).tobytes() == events[1].tobytes()


def test_the_digest_is_of_the_event_bytes_and_sees_a_change() -> None:
    history = bars_at([0, 1])
    assert history.digest == hashlib.sha256(history.events.tobytes()).hexdigest()
    assert history.digest == bars_at([0, 1]).digest
    assert history.digest != bars_at([0, 2]).digest


def test_a_year_of_minutes_merges_in_well_under_a_second() -> None:
    history = bars_at(list(range(525_600)))
    started = time.perf_counter()
    assert len(merge([history])) == 2 * 525_600
    assert time.perf_counter() - started < 1.0


def test_crops_that_share_an_edge_share_no_event_and_lose_none() -> None:
    history = bars_at(list(range(10)))
    edges = [START, START + 4 * MINUTE, START + 10 * MINUTE]
    first, second = crop(history, *edges[:2]), crop(history, *edges[1:])
    assert stack([first.events, second.events]).tobytes() == history.events.tobytes()
    assert (first.quality.first_ms, first.quality.last_ms) == tuple(edges[:2])


def test_a_crop_without_edges_is_the_whole() -> None:
    assert crop(bars_at([0, 1])).digest == bars_at([0, 1]).digest


def test_a_crop_that_leaves_no_bar_is_refused_with_the_span_there_is() -> None:
    with pytest.raises(DataError, match="2024-01-01T00:00:00Z to 2024-01-01T00:02:00Z"):
        crop(bars_at([0, 1]), START + 5 * MINUTE)


def test_gaps_are_counted_in_bars_with_their_first_time() -> None:
    quality = bars_at([0, 1, 4, 5, 11]).quality
    assert (quality.gaps, quality.bars_missing, quality.gap_largest) == (2, 7, 5)
    assert [(gap.start_ms, gap.bars) for gap in quality.gaps_first] == [
        (START + 2 * MINUTE, 2),
        (START + 6 * MINUTE, 5),
    ]


def test_no_gap_is_no_gap() -> None:
    quality = bars_at([0, 1, 2]).quality
    assert (quality.gaps, quality.bars_missing, quality.gap_largest) == (0, 0, 0)


def test_times_read_as_utc() -> None:
    assert utc(START) == "2024-01-01T00:00:00Z"
