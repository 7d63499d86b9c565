"""Questions to /info over a real socket: what is asked again, what is not, and for how long."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from standin_exchange import Fault, StandinExchange, candles_of
from worlds import MINUTE, START, walk

from core.errors import DataError
from markets.feeds.errors import FeedError
from markets.feeds.link import Link, Trouble, VenueClock
from markets.hyperliquid.client import Info, InfoSettings
from markets.hyperliquid.history import fetch_history

pytestmark = pytest.mark.anyio
HOUR = 3_600_000


@asynccontextmanager
async def asking(
    exchange: StandinExchange, skew_ms: int = 0, **more: Any
) -> AsyncIterator[tuple[Info, Link]]:
    link = Link(anyio.current_time)
    clock = VenueClock(lambda: exchange.now + skew_ms)
    async with exchange.open():
        waits = {"wait_first_s": 0.005, "wait_longest_s": 0.01, "timeout_s": 0.5}
        settings = InfoSettings(url=exchange.info_url, **(waits | more))
        async with Info(settings, clock, link, lambda: 0.5) as info:
            yield info, link


def exchange_at(minutes: int, *faults: Fault | None, **more: Any) -> StandinExchange:
    """A stand-in that is so many minutes into its market, and answers the first requests so."""
    coming = iter(faults)
    market = {"BTC": candles_of(walk(400))}
    return StandinExchange(market, first=minutes, request_fault=lambda: next(coming, None), **more)


async def test_candles_come_in_pages_up_to_the_one_under_way() -> None:
    exchange = exchange_at(200)
    exchange.now += 30_000
    async with asking(exchange, bars_per_page=150) as (info, _):
        first = await info.candles("BTC", MINUTE, START, START + 300 * MINUTE)
        second = await info.candles("BTC", MINUTE, first.until_ms, START + 300 * MINUTE)
    assert list(first.candles) == exchange.candles["BTC"][:150]
    assert first.until_ms == START + 150 * MINUTE
    assert list(second.candles[:50]) == exchange.candles["BTC"][150:200]
    assert [candle.trades for candle in second.candles[50:]] == [1]
    assert second.until_ms == START + 300 * MINUTE
    assert exchange.now - 1_000 < second.venue_ms <= exchange.now


async def test_a_passing_failure_is_asked_again_and_counted() -> None:
    exchange = exchange_at(5, Fault.SERVER_ERROR, Fault.DROPPED, Fault.TOO_MANY)
    async with asking(exchange) as (info, link):
        assert len((await info.candles("BTC", MINUTE, START, START + MINUTE)).candles) == 1
    assert len(exchange.requests) == 4
    assert (link.counts[Trouble.RETRIED], link.counts[Trouble.THROTTLED]) == (3, 1)
    assert link.counts[Trouble.FAILED] == 0


async def test_patience_ends() -> None:
    exchange = exchange_at(5, *[Fault.SERVER_ERROR] * 9)
    async with asking(exchange, attempts_max=3) as (info, link):
        with pytest.raises(FeedError, match="status 500"):
            await info.listings()
    assert len(exchange.requests) == 3
    assert link.counts[Trouble.FAILED] == 1


async def test_a_question_the_venue_does_not_understand_is_asked_once() -> None:
    exchange = exchange_at(5)
    async with asking(exchange) as (info, _):
        with pytest.raises(FeedError, match="status 422"):
            await info.candles("DOGE", MINUTE, START, START + MINUTE)
    assert len(exchange.requests) == 1


@pytest.mark.parametrize("date", [False, True])
async def test_a_venue_that_says_when_to_come_back_is_obeyed(date: bool) -> None:
    exchange = exchange_at(5, Fault.TOO_MANY, retry_after="1")
    if date:
        exchange.retry_after = "Sun, 04 May 2025 00:05:01 GMT"
    async with asking(exchange) as (info, _):
        began_s = anyio.current_time()
        await info.listings()
        assert 1.0 <= anyio.current_time() - began_s < 2.0


async def test_a_pause_too_long_fails_at_once_and_is_kept_for_the_next_question() -> None:
    exchange = exchange_at(5, Fault.TOO_MANY, retry_after="900")
    async with asking(exchange) as (info, _):
        for _ in range(2):
            with pytest.raises(FeedError, match="for 900 s"):
                await info.listings()
    assert len(exchange.requests) == 1


async def test_a_venue_that_hangs_is_given_up() -> None:
    async def hang(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep(0.3)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    link = Link(anyio.current_time)
    settings = InfoSettings(
        url=f"http://127.0.0.1:{port}", timeout_s=0.05, attempts_max=2, wait_first_s=0.01
    )
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, hang)
        async with Info(settings, VenueClock(lambda: START), link, lambda: 0.5) as info:
            with pytest.raises(FeedError, match="ReadTimeout"):
                await info.listings()
        tasks.cancel_scope.cancel()


async def test_an_answer_that_cannot_be_used_is_not_half_used() -> None:
    exchange = exchange_at(5, Fault.NOT_JSON)
    bad = exchange.candles["BTC"][2]
    exchange.by_open["BTC"][bad.open_ms] = bad._replace(high=bad.low / 2)
    async with asking(exchange) as (info, link):
        with pytest.raises(DataError, match="not JSON"):
            await info.listings()
        with pytest.raises(DataError, match="impossible bar"):
            await info.candles("BTC", MINUTE, START, START + 5 * MINUTE)
    assert (link.counts[Trouble.NOT_JSON], link.counts[Trouble.IMPOSSIBLE_BAR]) == (1, 1)


@pytest.mark.parametrize("skew_ms", [-60_000, 0, 7_000])
async def test_the_date_of_an_answer_tells_the_skew_to_a_second(skew_ms: int) -> None:
    exchange = exchange_at(5)
    exchange.now += 400
    async with asking(exchange, skew_ms) as (info, _):
        await info.listings()
        assert info.clock.skew_ms is not None
        assert skew_ms <= info.clock.skew_ms < skew_ms + 1_000


async def test_the_weight_of_questions_is_kept_within_the_limit() -> None:
    exchange = exchange_at(5)
    async with asking(exchange, weight_per_minute=6_000.0, bars_per_page=60_000) as (info, _):
        began_s = anyio.current_time()
        for _ in range(6):
            await info.candles("BTC", MINUTE, START, START + 60_000 * MINUTE)
        # 6 times 20 + 1,000, of which 6,000 are there and 100 a second come
        assert 1.1 < anyio.current_time() - began_s < 3.0


async def test_history_is_fetched_whole_and_without_the_bar_under_way() -> None:
    exchange = exchange_at(200)
    exchange.now += 30_000
    async with asking(exchange, bars_per_page=64) as (info, _):
        until_ms = START + 300 * MINUTE
        history = await fetch_history(info, "BTC", MINUTE, START, until_ms)
        with pytest.raises(DataError, match="no BTC bar"):
            await fetch_history(info, "BTC", MINUTE, START + 250 * MINUTE, until_ms)
    assert history.bars.tobytes() == walk(400).bars[:200].tobytes()
    assert (history.events["kind"] == 1).sum() == 4
    assert history.quality.gaps == 0
