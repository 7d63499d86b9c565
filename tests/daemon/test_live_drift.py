"""The daemon on Drift's feed: its settings, and a run on paper that decides what a replay does."""

import random
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from standin_dlob import HOUR, SETTLED_AFTER_MS, Fault, StandinDlob, fills_of
from test_drift_feed import settings_for, sometimes
from worlds import walk

from backtest.assemble import BookSetup, Setup
from backtest.replay import replay
from config.settings import Line
from core.engine import Book
from core.errors import ConfigError
from core.instrument import Instrument
from core.model import Kind, Result
from daemon.commands.run import CARRIED, UNTOLD, drift_feed
from daemon.journal import open_journal, read_events, read_outcomes, sqlite_url
from daemon.live.recovery import where
from daemon.live.service import open_service, paper_row, run_service
from daemon.supervisor import Task
from markets.drift.data_api import BROWSER
from markets.drift.feed import DriftFeed
from markets.history import Quality, assemble, make_bars, make_funding
from risk.limits import Limits, Sizing, SizingRule
from strategies.trend import TREND

SOL, BARS, MINUTE = "SOL-PERP", 90, 60_000


def setup_of() -> Setup:
    """A trend; its own spread is wider than the book's, because quotes depend on the moment a book
    was read and fills do not."""
    params = {"fast": 5, "slow": 12, "stop_loss": 0.003}
    book = Book(name=SOL, strategy=TREND, instrument=SOL, params=params, offset=0.1)
    limits = Limits(cooldown_ms=120_000.0)
    sizing = Sizing(rule=SizingRule.NOTIONAL, value=1_000.0)
    return Setup(
        instruments=(Instrument(name=SOL, half_spread_bps=50.0, lot=1e-4, tick=0.01),),
        books=(BookSetup(book=book, sizing=sizing, limits=limits),),
        limits=limits,
    )


def test_over_sockets_and_cuts_it_decides_what_a_replay_of_the_fills_does(tmp_path: Path) -> None:
    fills = fills_of(walk(BARS))
    standin = StandinDlob({SOL: fills}, stream_fault=sometimes(Fault.ABORT, 150))
    setup, database = setup_of(), open_journal(sqlite_url(tmp_path / "j.sqlite"))
    row = paper_row("paper", setup, started_ms=0)
    service = open_service(setup, {SOL: CARRIED}, database, row, standin.now_ms)
    end_ms = standin.end - 2 * MINUTE

    def done(*_: Any) -> None:
        if max(where(service.engine).last_bar_ms.values(), default=0) >= end_ms:
            service.stop()

    async def scene() -> None:
        async with standin.open(), anyio.create_task_group() as tasks:
            feed = DriftFeed(settings_for(standin), standin.now_ms, random.Random(1).random)
            tasks.start_soon(standin.play)
            with anyio.fail_after(60):
                await run_service(service, feed, ended=done, edges=lambda _: [Task("l", feed.run)])
            tasks.cancel_scope.cancel()

    anyio.run(scene)
    events, outcomes = read_events(database, "paper"), read_outcomes(database, "paper")
    database.dispose()
    bars = events[events["kind"] == Kind.BAR]
    last_ms = int(bars["ts_known"][-1])
    played = [candle for candle in standin.candles[SOL] if candle.open_ms < last_ms]
    assert standin.connections > 1
    assert len(bars) == len(played)

    opens = np.array([candle.open_ms for candle in played], np.int64)
    names = ("open", "high", "low", "close", "volume")
    columns = {name: [getattr(candle, name) for candle in played] for name in names}
    hours = np.arange(-(-int(opens[0] + 1) // HOUR) * HOUR, last_ms, HOUR, dtype=np.int64)
    rates = np.array([standin.rate(int(hour)) for hour in hours])
    funding = make_funding(hours + SETTLED_AFTER_MS, rates, 1.0, np.full(len(hours), 150.0))
    told = make_bars(opens, MINUTE, **columns)
    history = assemble([funding, told], MINUTE, Quality().spanning(opens, MINUTE))
    run = replay(setup, {SOL: history})
    fields = ["ts", "kind", "reason", "quantity", "price"]
    live, replayed = (one[one["kind"] == Result.FILL][fields] for one in (outcomes, run.outcomes))
    assert len(live) > 2
    assert live.tolist() == replayed.tolist()


def test_the_feed_takes_its_addresses_and_headers_from_the_settings() -> None:
    followed = {"coins": (SOL,)}
    given = {"stream": "ws://a/ws", "books": "http://a", "info": "http://b"}
    line = Line(venue="drift", **given)
    feed = drift_feed(line, followed, lambda: 0, lambda: 0.5)
    assert feed.settings.stream.url == "ws://a/ws"
    assert (feed.settings.books.url, feed.settings.data.url) == ("http://a", "http://b")
    assert feed.settings.data.headers == BROWSER
    assert CARRIED - UNTOLD["drift"] >= {"bid", "mark", "oracle", "funding_rate"}
    own = Line(venue="drift", headers={"Origin": "https://c"}, **given)
    feed = drift_feed(own, followed, lambda: 0, lambda: 0.5)
    assert feed.settings.data.headers == {"Origin": "https://c"}


@pytest.mark.parametrize("missing", ["stream", "books", "info"])
def test_without_an_address_it_says_that_the_hosts_stopped(missing: str) -> None:
    given = {"stream": "ws://a/ws", "books": "http://a", "info": "http://b"}
    line = Line(venue="drift", **(given | {missing: ""}))
    with pytest.raises(ConfigError, match=rf"live.feed.{missing}: give its address: drift's own"):
        drift_feed(line, {"coins": (SOL,)}, lambda: 0, lambda: 0.5)
