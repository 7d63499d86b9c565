"""Drift's live feed against a stand-in: whatever the line does, every bar comes once."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin_dlob import (
    HOUR,
    MINUTE,
    SETTLED_AFTER_MS,
    STREAM_FAULTS,
    Fault,
    Fill,
    StandinDlob,
    fills_of,
)
from standin_stream import CUTS, REQUEST_FAULTS
from worlds import START, walk

from core.errors import ConfigError, DataError
from core.model import Kind, Records
from markets.drift.book import BookSettings
from markets.drift.data_api import DataSettings
from markets.drift.feed import NO_PING_S, DriftFeed, FeedSettings
from markets.drift.parse import Trade
from markets.drift.slots import SLOT_MS, SlotClock
from markets.drift.tape import HELD_MAX, TradeTape
from markets.feeds.closing import BarCloser, Candle, ClosingRules
from markets.feeds.errors import FeedError
from markets.feeds.link import Link, Trouble
from markets.feeds.stream import StreamSettings
from markets.history import in_order, select, stack

pytestmark = pytest.mark.anyio
BARS = 75
# a tick moves the time by seconds, often before its messages are read
RULES = ClosingRules(settle_ms=0, grace_ms=40_000, absent_ms=60_000, future_ms=HOUR)
ASKING = {
    "timeout_s": 1.0,
    "wait_first_s": 0.002,
    "wait_longest_s": 0.01,
    "weight_per_minute": 1e9,
}


def market(length: int = BARS, names: tuple[str, ...] = ("SOL-PERP",)) -> dict[str, list[Fill]]:
    return {name: fills_of(walk(length, seed)) for seed, name in enumerate(names, 1)}


def settings_for(standin: StandinDlob, **more: Any) -> FeedSettings:
    """Times of milliseconds: a bar of the stand-in lasts a few."""
    given: dict[str, Any] = {
        "coins": tuple(standin.fills),
        "since_ms": dict.fromkeys(standin.fills, standin.now),
        "stream": StreamSettings(
            url=standin.stream_url,
            open_timeout_s=1.0,
            close_timeout_s=0.02,
            silent_s=0.08,
            ping_s=NO_PING_S,
            wait_first_s=0.005,
            wait_longest_s=0.02,
            steady_s=0.1,
        ),
        "books": BookSettings(url=standin.url, **ASKING),
        "data": DataSettings(url=standin.url, **ASKING),
        "rules": RULES,
        "look_s": 0.005,
        "ask_s": 0.005,
    }
    return FeedSettings(**(given | more))


def feed_of(standin: StandinDlob, **more: Any) -> DriftFeed:
    chance = random.Random(1).random
    return DriftFeed(settings_for(standin, **more), standin.now_ms, chance)


async def keep_running(feed: DriftFeed) -> None:
    """What a supervisor does."""
    while True:
        with suppress(FeedError, DataError):
            await feed.run()
        await anyio.sleep(0.005)


async def read_bars(feed: DriftFeed, bars: int) -> Records:
    blocks: list[Records] = []
    with anyio.fail_after(20):
        async for block in feed:
            blocks.append(block)
            if sum((block["kind"] == Kind.BAR).sum() for block in blocks) >= bars:
                break
    return stack(blocks)


async def follow(standin: StandinDlob, bars: int, **more: Any) -> tuple[Records, DriftFeed]:
    """Play the stand-in and read so many bars of it."""
    async with standin.open(), anyio.create_task_group() as tasks:
        feed = feed_of(standin, **more)
        tasks.start_soon(keep_running, feed)
        tasks.start_soon(standin.play)
        events = await read_bars(feed, bars)
        tasks.cancel_scope.cancel()
    return events, feed


def kinds(events: Records, kind: Kind, at: int = 0) -> Records:
    return select(events, (events["kind"] == kind) & (events["instrument"] == at))


def rows(bars: Records) -> list[tuple[float, ...]]:
    names = ("ts_event", "open", "high", "low", "close", "volume")
    return [tuple(bar[name].item() for name in names) for bar in bars]


def assert_as_played(events: Records, standin: StandinDlob, least: int) -> None:
    """Every bar of every market exactly as its fills make it, and all events in order."""
    for at, candles in enumerate(standin.candles.values()):
        told = rows(kinds(events, Kind.BAR, at))
        assert len(told) >= least
        assert told == [tuple(candle[:6]) for candle in candles[: len(told)]]
    assert in_order(events) is events


def sometimes(fault: Fault, every: int) -> Callable[[], Fault | None]:
    occasions = iter(range(1, 10**9))
    return lambda: fault if next(occasions) % every == 0 else None


async def test_a_calm_line_gives_both_markets_and_asks_of_the_first_bar_only() -> None:
    standin = StandinDlob(market(names=("SOL-PERP", "BTC-PERP")))
    # only the stream may close a bar: the clock is never late enough to ask
    patient = replace(RULES, grace_ms=10 * MINUTE)
    events, feed = await follow(standin, 2 * 70, rules=patient)
    assert_as_played(events, standin, 68)
    assert feed.link.reconnects == 0
    # the bar under way when the tape began, and whatever waited with it
    assert feed.link.counts[Trouble.BACKFILLED] <= 2 * 12
    assert feed.link.counts[Trouble.RECORDS_MISSING] == 0
    assert (feed.marks() > 0).all()


@pytest.mark.parametrize(
    ("fault", "every", "trouble"),
    [
        (Fault.SILENT, 150, Trouble.SILENT),
        (Fault.HEARTBEATS, 150, Trouble.SILENT),
        (Fault.CLOSE, 100, Trouble.CLOSED),
        (Fault.OVERFLOW, 100, Trouble.CLOSED),
        (Fault.ABORT, 100, Trouble.CLOSED),
        (Fault.DUPLICATE, 5, Trouble.DUPLICATE),
        (Fault.OUT_OF_ORDER, 4, Trouble.OUT_OF_ORDER),
        (Fault.LOST, 60, Trouble.BACKFILLED),
        (Fault.MALFORMED, 7, Trouble.NOT_JSON),
        (Fault.STALE, 5, Trouble.STALE_SLOT),
    ],
)
async def test_every_bar_comes_once_through_a_fault_of_the_stream(
    fault: Fault, every: int, trouble: Trouble
) -> None:
    standin = StandinDlob(market(), stream_fault=sometimes(fault, every))
    events, feed = await follow(standin, 70)
    assert_as_played(events, standin, 70)
    assert standin.done > 1
    assert feed.link.counts[trouble] > 0
    assert (feed.link.reconnects > 0) == (fault in CUTS)


@pytest.mark.parametrize("fault", REQUEST_FAULTS)
async def test_every_bar_comes_once_when_requests_fail_too(fault: Fault) -> None:
    standin = StandinDlob(
        market(),
        stream_fault=sometimes(Fault.ABORT, 100),
        request_fault=sometimes(fault, 2),
    )
    events, _ = await follow(standin, 70)
    assert_as_played(events, standin, 70)
    assert standin.done > 2


async def test_everything_at_once_and_still_every_bar_once() -> None:
    chance = random.Random(7)

    def fault() -> Fault | None:
        return chance.choice(STREAM_FAULTS) if chance.random() < 0.02 else None

    standin = StandinDlob(market(names=("SOL-PERP", "BTC-PERP")), stream_fault=fault)
    events, feed = await follow(standin, 2 * 70)
    assert_as_played(events, standin, 60)
    assert feed.link.reconnects > 0


async def test_a_minute_without_a_trade_is_no_bar_and_holds_nothing_up() -> None:
    quiet = [START + minute * MINUTE for minute in (10, 11, 12, 40)]
    standin = StandinDlob({"SOL-PERP": fills_of(walk(BARS, 1), quiet)})
    events, feed = await follow(standin, 65)
    assert_as_played(events, standin, 65)
    assert not np.isin(quiet, kinds(events, Kind.BAR)["ts_event"]).any()
    assert feed.link.counts[Trouble.BAR_ABSENT] == 4


async def test_quotes_come_at_closes_in_units_and_funding_with_its_oracle() -> None:
    standin = StandinDlob(market())
    events, _ = await follow(standin, 70)
    quotes = kinds(events, Kind.QUOTE)
    books = select(quotes, ~np.isnan(quotes["bid"]))
    assert (books["ts_known"] % MINUTE == 0).all()
    assert len(np.unique(books["ts_known"])) == len(books) > 60
    assert books["ask"] - books["bid"] == pytest.approx(np.full(len(books), 0.002))
    assert (books["bid"] < books["mark"]).all()
    assert books["oracle"] - books["mark"] == pytest.approx(np.full(len(books), 0.001))
    assert set(books["bid_depth"]) == {15.0}
    settled = kinds(events, Kind.FUNDING)
    # the feed goes on after START, so what was settled there is known already
    assert settled["ts_known"].tolist() == [START + HOUR + SETTLED_AFTER_MS]
    assert settled["rate"] == pytest.approx([standin.rate(START + HOUR)])
    assert set(settled["settle_price"]) == {150.0}


async def test_a_server_whose_slot_stands_still_is_no_longer_heard() -> None:
    standin = StandinDlob(market())
    async with standin.open(), anyio.create_task_group() as tasks:
        feed = feed_of(standin, since_ms={})
        tasks.start_soon(keep_running, feed)
        await standin.listened.wait()
        with anyio.fail_after(10):
            while feed.link.messages < 8:
                await standin.tick()
                await anyio.sleep(0.005)
        slot = feed.slots.slot
        with anyio.fail_after(10):
            while not feed.link.counts[Trouble.SILENT]:
                # its stamps go on, its slot does not
                standin.now += 10_000
                standin.slot_lag = standin.now // SLOT_MS - slot
                await standin.say(standin.book_message("SOL-PERP"))
                await anyio.sleep(0.005)
        assert feed.link.counts[Trouble.STALE_SLOT] > 0
        assert feed.slots.slot == slot
        tasks.cancel_scope.cancel()


async def test_the_past_is_fetched_when_warming_up_and_after_a_restart() -> None:
    standin = StandinDlob(market(), start_ms=START + 40 * MINUTE)
    events, _ = await follow(standin, 70, since_ms={}, warmup_bars=40)
    assert_as_played(events, standin, 70)
    assert kinds(events, Kind.BAR)["ts_event"][0] == START


async def test_a_market_nobody_has_is_one_clear_error() -> None:
    standin = StandinDlob(market())
    async with standin.open():
        with pytest.raises(DataError, match="has no sol-perp: names are as in SOL-PERP"):
            await feed_of(standin, coins=("sol-perp",)).run()


async def test_an_interval_the_venue_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="no candles of 3m: it has 1m, 5m, 15m, 1h, 4h, 1d"):
        settings_for(StandinDlob(market(3)), interval_ms=3 * MINUTE)


async def test_messages_that_say_nothing_of_the_market_are_no_data() -> None:
    standin = StandinDlob(market(3))
    feed = feed_of(standin)
    for said in ({"channel": "heartbeat"}, {"message": "Subscribe received"}):
        assert not feed.receive(json.dumps(said))
    assert not feed.link.counts


# -- the tape


def tape(count: Link) -> tuple[TradeTape, BarCloser]:
    closer = BarCloser(MINUTE, START, ClosingRules(settle_ms=0), count.count)
    return TradeTape(closer, count), closer


def trades(count: int, step_ms: int = 20_000) -> list[Trade]:
    return [Trade(0, 7 + at, START + at * step_ms, 100.0 + at, 1.0) for at in range(count)]


def closed(closer: BarCloser, until_ms: int) -> list[Candle]:
    closer.tell(until_ms)
    return closer.take(until_ms)


@given(st.permutations(list(range(1, 13))), st.sets(st.integers(0, 12)))
@settings(max_examples=60, deadline=None)
def test_trades_in_any_order_and_twice_make_the_same_bars(
    order: list[int], twice: set[int]
) -> None:
    said = trades(13)
    calm, closer = tape(Link(lambda: 0.0))
    mixed, other = tape(Link(lambda: 0.0))
    closer.open_ms = other.open_ms = START + MINUTE
    for trade in said:
        calm.add(trade, START + 10 * MINUTE)
    # the tape begins with what it hears first, so that one stands first
    for at in [0, *order]:
        for _ in range(1 + (at in twice)):
            mixed.add(said[at], START + 10 * MINUTE)
    made = closed(other, said[-1].time_ms)
    assert made == closed(closer, said[-1].time_ms)
    assert [bar.open_ms for bar in made] == [START + MINUTE * at for at in (1, 2, 3)]


def test_a_bar_with_a_record_missing_is_never_offered() -> None:
    link = Link(lambda: 0.0)
    heard, closer = tape(link)
    closer.open_ms = START + MINUTE
    said = trades(HELD_MAX + 20, step_ms=5_000)
    for trade in (*said[:14], *said[15:]):
        heard.add(trade, START + 100 * MINUTE)
    assert link.counts[Trouble.RECORDS_MISSING] == 1
    # nothing of the bar with the hole: whoever asks the venue for it goes on from the next
    assert closed(closer, said[-1].time_ms) == []
    closer.open_ms = START + 2 * MINUTE
    opens = [bar.open_ms for bar in closed(closer, said[-1].time_ms)]
    assert opens == [START + 2 * MINUTE, START + 3 * MINUTE]


# -- slots


def test_a_book_is_as_old_as_the_slots_that_must_have_passed() -> None:
    slots = SlotClock(behind_max=50)
    assert slots.judge(1_000, 0) is None
    assert slots.judge(1_000, 50 * SLOT_MS) is None
    assert slots.judge(1_000, 51 * SLOT_MS) is Trouble.STALE_SLOT
    assert slots.judge(1_001, 3_000 * SLOT_MS) is None
    assert slots.judge(951, 3_000 * SLOT_MS) is None
    assert slots.judge(950, 3_000 * SLOT_MS) is Trouble.STALE_SLOT


def test_a_slot_from_the_future_is_believed_only_when_it_stays() -> None:
    slots = SlotClock()
    slots.judge(1_000, 0)
    assert slots.judge(10**15, 0) is Trouble.FROM_THE_FUTURE
    assert slots.judge(1_001, 0) is None
    verdicts = [slots.judge(10**6 + at, 0) for at in range(17)]
    assert verdicts == [Trouble.FROM_THE_FUTURE] * 16 + [None]
