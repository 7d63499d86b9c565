"""Live equals replay: fed over sockets, faults and all, it decides what a replay decides."""

import random
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from standin_exchange import (
    SETTLED_AFTER_MS,
    STREAM_FAULTS,
    Fault,
    StandinExchange,
    candles_of,
)
from test_hyperliquid_feed import settings_for
from worlds import walk

from backtest.assemble import BookSetup, Setup
from backtest.replay import replay
from backtest.run import decisions_hash
from core.engine import Book
from core.instrument import Instrument
from core.model import Kind, Result
from daemon.clock import now_ms
from daemon.commands.run import CARRIED
from daemon.journal import open_journal, read_events, read_outcomes, sqlite_url
from daemon.live.recovery import where
from daemon.live.service import Service, open_service, paper_row, run_service
from daemon.live.sight import watch_sight
from daemon.supervisor import Task
from markets.history import History, assemble, make_funding
from markets.hyperliquid.feed import HyperliquidFeed
from risk.limits import Limits, Sizing, SizingRule
from strategies.trend import TREND

COINS = ("BTC", "SOL")
BARS = 200
HOUR = 3_600_000
PARAMS = {"fast": 5, "slow": 12, "stop_loss": 0.02}


def setup_of() -> Setup:
    """A trend on both coins; its own spread is wider than any the exchange shows, because quotes
    depend on the moment a book was read and candles do not."""
    terms = {"half_spread_bps": 50.0, "lot": 1e-4, "tick": 0.01}
    limits = Limits(cooldown_ms=120_000.0)
    return Setup(
        instruments=tuple(Instrument(name=coin, **terms) for coin in COINS),
        books=tuple(
            BookSetup(
                book=Book(name=coin, strategy=TREND, instrument=coin, params=PARAMS, offset=0.1),
                sizing=Sizing(rule=SizingRule.NOTIONAL, value=1_000.0),
                limits=limits,
            )
            for coin in COINS
        ),
        limits=limits,
    )


def at_random(share: float, seed: int) -> Any:
    chance = random.Random(seed)
    faults = [fault for fault in STREAM_FAULTS if fault is not Fault.SILENT]

    def fault() -> Fault | None:
        return chance.choice(faults) if chance.random() < share else None

    return fault


def played(path: Path, exchange: StandinExchange, *, watched: bool) -> Service:
    """Follow the exchange into a journal until every bar of its tape is folded. A line that is cut
    is not watched: what the gate refuses while it is down depends on the moment of a look."""
    setup = setup_of()
    database = open_journal(sqlite_url(path))
    row = paper_row("paper", setup, started_ms=0)
    carried = dict.fromkeys(COINS, CARRIED)
    service = open_service(setup, carried, database, row, exchange.now_ms)

    def done(*_: Any) -> None:
        last = where(service.engine).last_bar_ms
        if len(last) == len(COINS) and min(last.values()) >= exchange.end - exchange.interval_ms:
            service.stop()

    async def scene() -> None:
        async with exchange.open(), anyio.create_task_group() as tasks:
            chance = random.Random(1).random
            feed = HyperliquidFeed(settings_for(exchange), exchange.now_ms, chance)

            async def watch() -> None:
                # by our own clock: the exchange's minutes last a thousandth of one
                await watch_sight(service, feed, exchange.interval_ms, now_ms)

            tasks.start_soon(exchange.play)
            edges = [Task("line", feed.run), *([Task("sight", watch)] if watched else [])]
            with anyio.fail_after(60):
                await run_service(service, feed, ended=done, edges=lambda _: edges)
            tasks.cancel_scope.cancel()

    anyio.run(scene)
    return service


def candles_only(history: History, exchange: StandinExchange, until_ms: int) -> History:
    """The same candles and the exchange's hourly funding, as a file would have them."""
    bars = history.bars
    first = int(bars["ts_event"][0])
    stamps = np.arange(-(-first // HOUR) * HOUR, until_ms, HOUR, dtype=np.int64) + SETTLED_AFTER_MS
    rates = np.array([exchange.rate(int(stamp)) for stamp in stamps])
    bars = bars[bars["ts_known"] <= until_ms]
    parts = [make_funding(stamps, rates, 1.0, np.nan), bars]
    return assemble(parts, history.interval_ms, history.quality)


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_the_daemon_decides_what_a_replay_of_the_same_candles_does(
    share: float, tmp_path: Path
) -> None:
    world = {coin: walk(BARS, seed) for seed, coin in enumerate(COINS, 1)}
    candles = {coin: candles_of(history) for coin, history in world.items()}
    exchange = StandinExchange(candles, stream_fault=at_random(share, 3))
    service = played(tmp_path / "j.sqlite", exchange, watched=share == 0.0)
    database = service.journal.engine
    events, outcomes = read_events(database, "paper"), read_outcomes(database, "paper")
    database.dispose()
    until = int(min(where(service.engine).last_bar_ms.values()))
    assert (events["kind"] == Kind.BAR).sum() >= 2 * (BARS - 1)
    assert share == 0.0 or exchange.connections > 1
    files = {coin: candles_only(world[coin], exchange, until) for coin in COINS}
    again = replay(setup_of(), files)
    assert len(again.of(Result.TRADE)) > 5
    assert len(again.of(Result.FUNDING)) > 0
    assert decisions_hash(service.engine.digests, outcomes) == again.decisions_hash
