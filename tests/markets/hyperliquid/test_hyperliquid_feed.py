"""The live feed against a stand-in exchange: whatever the line does, every bar comes once."""

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from standin_exchange import (
    SETTLED_AFTER_MS,
    STREAM_FAULTS,
    TICKS,
    Fault,
    StandinExchange,
    candles_of,
)
from standin_stream import REQUEST_FAULTS
from worlds import MINUTE, START, walk

from core.errors import ConfigError, DataError
from core.model import Kind, Records
from markets.candles import read_candles
from markets.feeds.closing import Candle, ClosingRules
from markets.feeds.errors import FeedError
from markets.feeds.link import Trouble
from markets.feeds.stream import StreamSettings
from markets.history import History, crop, in_order, merge, select, stack
from markets.hyperliquid.client import InfoSettings
from markets.hyperliquid.feed import FeedSettings, HyperliquidFeed

pytestmark = pytest.mark.anyio
BARS = 310
HOUR = 3_600_000
RULES = ClosingRules(grace_ms=40_000, absent_ms=60_000, future_ms=HOUR)
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def histories(length: int) -> dict[str, History]:
    """The first minutes of BTC and SOL, real where the machine has them."""
    folder = Path(os.environ.get("LOCKSTEP_DATA", SHARED)) / "perps"
    coins = ("BTC", "SOL")
    if not folder.is_dir():
        return {coin: walk(length, seed) for seed, coin in enumerate(coins, 1)}
    files = {coin: folder / f"{coin}_USDT_USDT-1m-futures.feather" for coin in coins}
    read = {coin: read_candles(file) for coin, file in files.items()}
    first_ms = max(history.quality.first_ms for history in read.values())
    end_ms = first_ms + length * MINUTE
    return {coin: crop(history, first_ms, end_ms) for coin, history in read.items()}


def market(length: int = BARS, coins: tuple[str, ...] = ("BTC",)) -> dict[str, list[Candle]]:
    return {coin: candles_of(walk(length, seed)) for seed, coin in enumerate(coins, 1)}


def settings_for(exchange: StandinExchange, **more: Any) -> FeedSettings:
    """Times of milliseconds: a bar of the stand-in lasts a few."""
    given: dict[str, Any] = {
        "coins": tuple(exchange.candles),
        "interval_ms": exchange.interval_ms,
        "since_ms": dict.fromkeys(exchange.candles, exchange.now),
        "stream": StreamSettings(
            url=exchange.stream_url,
            open_timeout_s=1.0,
            close_timeout_s=0.02,
            silent_s=0.06,
            ping_s=0.02,
            wait_first_s=0.005,
            wait_longest_s=0.02,
            steady_s=0.1,
        ),
        "info": InfoSettings(
            url=exchange.info_url,
            timeout_s=1.0,
            wait_first_s=0.002,
            wait_longest_s=0.01,
            weight_per_minute=1e9,
        ),
        # a tick moves the time by seconds, often before its messages are read
        "rules": RULES,
        "look_s": 0.005,
        "ask_s": 0.005,
    }
    return FeedSettings(**(given | more))


def feed_of(exchange: StandinExchange, skew_ms: int = 0, **more: Any) -> HyperliquidFeed:
    chance = random.Random(1).random
    settings = settings_for(exchange, **more)
    return HyperliquidFeed(settings, lambda: exchange.now_ms() + skew_ms, chance)


async def keep_running(feed: HyperliquidFeed) -> None:
    """What a supervisor does."""
    while True:
        with suppress(FeedError, DataError):
            await feed.run()
        await anyio.sleep(0.005)


async def read_bars(feed: HyperliquidFeed, bars: int) -> Records:
    """Every event until so many bars came."""
    blocks: list[Records] = []
    with anyio.fail_after(10):
        async for block in feed:
            blocks.append(block)
            if sum((block["kind"] == Kind.BAR).sum() for block in blocks) >= bars:
                break
    return stack(blocks)


async def follow(
    exchange: StandinExchange, bars: int, *, skew_ms: int = 0, **more: Any
) -> tuple[Records, HyperliquidFeed]:
    """Play the exchange and read so many bars of it."""
    async with exchange.open(), anyio.create_task_group() as tasks:
        feed = feed_of(exchange, skew_ms, **more)
        tasks.start_soon(keep_running, feed)
        tasks.start_soon(exchange.play)
        events = await read_bars(feed, bars)
        tasks.cancel_scope.cancel()
    return events, feed


def kinds(events: Records, kind: Kind, at: int | None = None) -> Records:
    which = events["kind"] == kind
    return select(events, which if at is None else which & (events["instrument"] == at))


def rows(bars: Records) -> list[tuple[float, ...]]:
    names = ("ts_event", "open", "high", "low", "close", "volume")
    return [tuple(bar[name].item() for name in names) for bar in bars]


def assert_as_played(events: Records, exchange: StandinExchange, first: int = 0) -> None:
    """Every bar of every coin exactly as played, and all events in order."""
    for at, candles in enumerate(exchange.candles.values()):
        told = rows(kinds(events, Kind.BAR, at))
        assert len(told) >= 300
        assert told == [tuple(candle[:6]) for candle in candles[first : first + len(told)]]
    assert in_order(events) is events


def sometimes(fault: Fault, every: int) -> Callable[[], Fault | None]:
    """The same fault at every n-th occasion."""
    occasions = iter(range(1, 10**9))
    return lambda: fault if next(occasions) % every == 0 else None


def at_random(faults: tuple[Fault, ...], share: float, seed: int) -> Callable[[], Fault | None]:
    chance = random.Random(seed)
    return lambda: chance.choice(faults) if chance.random() < share else None


async def test_a_calm_line_needs_no_questions_and_gives_the_events_of_a_replay() -> None:
    played = histories(BARS)
    exchange = StandinExchange({coin: candles_of(history) for coin, history in played.items()})
    # only the stream may close a bar: the clock is never late enough to ask
    events, feed = await follow(exchange, 2 * 301, rules=replace(RULES, grace_ms=HOUR))
    assert_as_played(events, exchange)
    bars = kinds(events, Kind.BAR)
    assert bars.tobytes() == kinds(merge(list(played.values())), Kind.BAR)[: len(bars)].tobytes()
    asked = [request["type"] for request in exchange.requests]
    assert asked.count("candleSnapshot") == feed.link.counts[Trouble.BACKFILLED] == 0
    assert feed.link.reconnects == 0


@pytest.mark.parametrize(
    ("fault", "every", "trouble"),
    [
        (Fault.SILENT, 300, Trouble.SILENT),
        (Fault.HALF_OPEN, 300, Trouble.SILENT),
        (Fault.CLOSE, 100, Trouble.CLOSED),
        (Fault.ABORT, 100, Trouble.CLOSED),
        (Fault.DUPLICATE, 5, Trouble.DUPLICATE),
        (Fault.OUT_OF_ORDER, 4, Trouble.OUT_OF_ORDER),
        (Fault.LATE, 7, Trouble.LATE_CORRECTION),
        (Fault.MALFORMED, 7, Trouble.NOT_JSON),
    ],
)
async def test_every_bar_comes_once_through_a_fault_of_the_stream(
    fault: Fault, every: int, trouble: Trouble
) -> None:
    exchange = StandinExchange(market(), stream_fault=sometimes(fault, every))
    events, feed = await follow(exchange, 301)
    assert_as_played(events, exchange)
    assert exchange.done > 2
    assert feed.link.counts[trouble] > 0
    cuts = (Fault.SILENT, Fault.HALF_OPEN, Fault.CLOSE, Fault.ABORT)
    assert (feed.link.reconnects > 0) == (fault in cuts)
    assert (feed.link.counts[Trouble.BACKFILLED] > 0) == (fault in cuts)


@pytest.mark.parametrize("fault", REQUEST_FAULTS)
async def test_every_bar_comes_once_when_requests_fail_too(fault: Fault) -> None:
    exchange = StandinExchange(
        market(), stream_fault=sometimes(Fault.ABORT, 70), request_fault=sometimes(fault, 3)
    )
    events, feed = await follow(exchange, 301)
    assert_as_played(events, exchange)
    counted = Trouble.NOT_JSON if fault is Fault.NOT_JSON else Trouble.RETRIED
    assert feed.link.counts[counted] > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_bar_comes_once_through_everything_at_once(seed: int) -> None:
    exchange = StandinExchange(
        {coin: candles_of(history) for coin, history in histories(BARS).items()},
        stream_fault=at_random(STREAM_FAULTS, 0.02, seed),
        request_fault=at_random(REQUEST_FAULTS, 0.3, seed),
    )
    events, feed = await follow(exchange, 2 * 301, skew_ms=(seed - 2) * 5_000)
    assert_as_played(events, exchange)
    assert feed.link.reconnects > 0


async def test_the_last_quote_before_the_close_comes_with_the_bar_and_before_it() -> None:
    exchange = StandinExchange(market(30, ("BTC", "SOL")), pause_s=0.002)
    events, _ = await follow(exchange, 2 * 25)
    for at in (0, 1):
        bars, quotes = kinds(events, Kind.BAR, at), kinds(events, Kind.QUOTE, at)
        quotes = select(quotes, ~np.isnan(quotes["bid"]))
        assert bars["ts_known"].tolist() == quotes["ts_known"].tolist()
        assert (quotes["ts_event"] == bars["ts_event"] + int(TICKS[-1] * MINUTE)).all()
        assert quotes["mark"].tolist() == bars["close"].tolist()
        assert quotes["bid_depth"].tolist() == [15.0] * len(bars)
        assert (quotes["bid"] < quotes["mark"]).all()
        assert (quotes["open_interest"] == 1_000.0).all()
        assert quotes["funding_rate"][0] == exchange.rate(START)
    at_one_close = events[events["ts_known"] == START + 5 * MINUTE]
    order = [(event["kind"], event["instrument"]) for event in at_one_close]
    assert order == [(Kind.QUOTE, 0), (Kind.QUOTE, 1), (Kind.BAR, 0), (Kind.BAR, 1)]


async def test_funding_is_settled_once_an_hour_with_the_stamp_of_the_venue() -> None:
    exchange = StandinExchange(market(250), stream_fault=sometimes(Fault.ABORT, 90))
    events, feed = await follow(exchange, 245)
    settled = kinds(events, Kind.FUNDING)
    stamps = [START + hour * HOUR + SETTLED_AFTER_MS for hour in range(5)]
    assert settled["ts_known"].tolist() == stamps
    assert settled["rate"].tolist() == [exchange.rate(stamp) for stamp in stamps]
    assert (settled["interval_hours"] == 1).all()
    assert feed.link.counts[Trouble.SETTLEMENT_ABSENT] == 0
    assert in_order(events) is events


async def test_bars_come_on_while_funding_cannot_be_asked_and_it_comes_late() -> None:
    exchange = StandinExchange(market(200), pause_s=0.001)
    answer = exchange._settled

    def refuse(body: dict[str, Any]) -> Any:
        return answer(body) if exchange.now > START + 130 * MINUTE else [{"time": "soon"}]

    exchange._settled = refuse  # type: ignore[method-assign]
    events, _ = await follow(exchange, 190)
    assert len(rows(kinds(events, Kind.BAR))) >= 190
    settled = kinds(events, Kind.FUNDING)
    stamps = [START + hour * HOUR + SETTLED_AFTER_MS for hour in range(4)]
    assert settled["ts_event"].tolist() == stamps
    assert settled["ts_known"][0] > START + 129 * MINUTE
    assert in_order(events) is events


async def test_a_restart_fetches_what_was_missed_and_the_warm_up_before() -> None:
    exchange = StandinExchange(market(400, ("BTC", "SOL")), first=320)
    since = {"BTC": START + 100 * MINUTE, "SOL": START + 110 * MINUTE}
    settled = {"BTC": START + HOUR + SETTLED_AFTER_MS}
    settings = {"since_ms": since, "settled_ms": settled, "warmup_bars": 20}
    async with exchange.open(), anyio.create_task_group() as tasks:
        info = InfoSettings(url=exchange.info_url, weight_per_minute=1e9, bars_per_page=64)
        feed = feed_of(exchange, **settings, info=info)
        tasks.start_soon(feed.run)
        tasks.start_soon(exchange.play)
        events = await read_bars(feed, 600)
        tasks.cancel_scope.cancel()
    for at, (coin, first) in enumerate({"BTC": 80, "SOL": 90}.items()):
        told = rows(kinds(events, Kind.BAR, at))
        assert told == [tuple(row[:6]) for row in exchange.candles[coin][first : first + len(told)]]
    assert kinds(events, Kind.FUNDING, 0)["ts_event"][0] == START + 2 * HOUR + SETTLED_AFTER_MS
    assert in_order(events) is events


async def test_without_a_journal_it_begins_at_the_bar_under_way_and_the_warm_up() -> None:
    exchange = StandinExchange(market(60), first=30)
    events, _ = await follow(exchange, 15, since_ms={}, warmup_bars=5)
    assert kinds(events, Kind.BAR)["ts_event"][0] == START + 25 * MINUTE


async def test_a_minute_that_never_traded_holds_nobody_up_for_ever() -> None:
    candles = market(60, ("BTC", "SOL"))
    gone = [candles["SOL"].pop(20) for _ in range(2)]
    exchange = StandinExchange(candles, pause_s=0.002)
    events, feed = await follow(exchange, 100)
    assert feed.link.counts[Trouble.BAR_ABSENT] == len(gone)
    opens = kinds(events, Kind.BAR, 1)["ts_event"]
    assert not set(opens) & {candle.open_ms for candle in gone}
    assert kinds(events, Kind.BAR, 0)["ts_event"][20] == gone[0].open_ms
    assert in_order(events) is events


async def test_with_confirm_every_bar_is_asked_for() -> None:
    exchange = StandinExchange(market(60), pause_s=0.002)
    rules = replace(RULES, confirm=True)
    events, feed = await follow(exchange, 40, rules=rules)
    assert feed.link.counts[Trouble.BACKFILLED] >= len(kinds(events, Kind.BAR))


@pytest.mark.parametrize("skew_ms", [-90_000, 0, 5_000])
async def test_the_skew_of_our_clock_is_reported_and_does_no_harm(skew_ms: int) -> None:
    exchange = StandinExchange(market(40), pause_s=0.002)
    events, feed = await follow(exchange, 30, skew_ms=skew_ms)
    assert feed.link.skew_ms == skew_ms
    assert rows(kinds(events, Kind.BAR)) == [tuple(row[:6]) for row in exchange.candles["BTC"][:30]]


async def test_a_slow_reader_gets_larger_blocks_and_every_bar() -> None:
    exchange = StandinExchange(market(80))
    rules = replace(RULES, bars_pending_max=10)
    async with exchange.open(), anyio.create_task_group() as tasks:
        feed = feed_of(exchange, rules=rules)
        tasks.start_soon(feed.run)
        await exchange.play()
        blocks = aiter(feed)
        first = await anext(blocks)
        assert 1 < len(kinds(first, Kind.BAR)) <= 10
        rest = await read_bars(feed, 79 - len(kinds(first, Kind.BAR)))
        tasks.cancel_scope.cancel()
    told = rows(kinds(stack([first, rest]), Kind.BAR))
    assert told == [tuple(row[:6]) for row in exchange.candles["BTC"][: len(told)]]


async def test_it_ends_when_told_and_leaves_no_task_and_no_socket() -> None:
    before = len(asyncio.all_tasks())
    exchange = StandinExchange(market(30))
    async with exchange.open():
        async with anyio.create_task_group() as tasks:
            feed = feed_of(exchange)
            tasks.start_soon(feed.run)
            tasks.start_soon(exchange.play)
            await read_bars(feed, 10)
            feed.finish()
            with anyio.fail_after(1):
                assert all([len(block) async for block in feed])
            tasks.cancel_scope.cancel()
        with anyio.fail_after(1):
            await exchange.left.wait()
        assert not exchange.clients
        assert not feed.link.connected
    assert len(asyncio.all_tasks()) == before


async def test_it_refuses_what_the_venue_does_not_have() -> None:
    exchange = StandinExchange(market(3))
    async with exchange.open():
        with pytest.raises(DataError, match="DOGE"):
            await feed_of(exchange, coins=("BTC", "DOGE")).run()
    with pytest.raises(ConfigError, match="2m"):
        FeedSettings(coins=("BTC",), interval_ms=2 * MINUTE)
    with pytest.raises(ConfigError, match="once"):
        FeedSettings(coins=("BTC", "BTC"))
