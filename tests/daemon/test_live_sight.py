"""A line that stands but says nothing is noticed within two bars, for each instrument by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from standin_exchange import Fault, StandinExchange, candles_of
from test_hyperliquid_feed import settings_for
from test_live_equals_replay import COINS, setup_of
from worlds import MINUTE, walk

from backtest.assemble import assemble
from core.model import Kind, Result
from daemon.commands.run import CARRIED
from daemon.journal import open_journal, read_events, read_outcomes, sqlite_url
from daemon.live.recovery import fold
from daemon.live.service import open_service, paper_row, run_service
from daemon.live.sight import watch_sight
from daemon.supervisor import Task
from markets.feeds.stream import StreamSettings
from markets.hyperliquid.feed import HyperliquidFeed
from risk.gate import Rule

BTC, SOL = range(2)
BARS_BEFORE = 5
LOOK_S = 0.002


async def until(met: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not met():  # noqa: ASYNC110 - whatever is waited for tells nobody
            await anyio.sleep(LOOK_S)


class Scene:
    """A service that follows an exchange whose time moves only when the test says so."""

    def __init__(self, path: Path, first: int = 0) -> None:
        tapes = {coin: candles_of(walk(60 + first, seed)) for seed, coin in enumerate(COINS, 1)}
        self.refused: Fault | None = None
        self.exchange = StandinExchange(tapes, first=first, request_fault=lambda: self.refused)
        self.database = open_journal(sqlite_url(path))
        setup, clock = setup_of(), self.exchange.now_ms
        row, carried = paper_row("paper", setup, started_ms=0), dict.fromkeys(COINS, CARRIED)
        self.service = open_service(setup, carried, self.database, row, clock)
        self.looks = self.quiet_ms = 0

    def folded(self, name: str) -> list[int]:
        rows = self.service.engine.arrays["instruments"][name]
        return [int(value) for value in rows[: len(COINS)]]

    async def bar(self) -> None:
        """Play one bar, and let the watch look while it lasts."""
        end = self.exchange.now - self.exchange.now % MINUTE + MINUTE
        while self.exchange.now < end:
            await self.exchange.tick()
            enough = self.looks + 3
            await until(lambda enough=enough: self.looks >= enough)

    async def bars(self, count: int, *folded: int) -> None:
        """Play bars, each until it is folded of those instruments."""
        for _ in range(count):
            await self.bar()
            end = self.exchange.now - self.exchange.now % MINUTE
            await until(lambda end=end: all(self.folded("bar_ts")[i] >= end for i in folded))

    def fall_silent(self, *kinds: str, coin: str) -> set[tuple[str, str]]:
        """Take kinds of messages of a coin off the line; answers what was taken."""
        self.quiet_ms = self.exchange.now
        taken = {(kind, coin) for kind in kinds}
        self.exchange.clients[0].wanted -= taken
        return taken

    def played(self, act: Callable[[], Any], **more: Any) -> list[tuple[int, bool, float]]:
        """Play ``act`` after some bars. Answers what the gate was told since something fell silent:
        the instrument, whether it is in sight, and how many bars later."""

        async def scene() -> None:
            exchange, service = self.exchange, self.service
            async with exchange.open():
                patient = StreamSettings(url=exchange.stream_url, silent_s=60.0)
                settings = settings_for(exchange, stream=patient, **more)
                feed = HyperliquidFeed(settings, exchange.now_ms, lambda: 0.5)

                def clock() -> int:
                    self.looks += 1
                    return exchange.now_ms()

                async def sight() -> None:
                    await watch_sight(service, feed, MINUTE, clock, LOOK_S)

                async def play() -> None:
                    await exchange.listened.wait()
                    await self.bars(BARS_BEFORE, BTC, SOL)
                    await act()
                    service.stop()

                edges = [Task("line", feed.run), Task("sight", sight), Task("play", play)]
                with anyio.fail_after(60):
                    await run_service(service, feed, edges=lambda _: edges)

        anyio.run(scene)
        self.events = read_events(self.database, "paper")
        self.outcomes = read_outcomes(self.database, "paper")
        self.database.dispose()
        is_link = self.events["kind"] == Kind.LINK
        told = self.events[is_link & (self.events["ts_event"] > self.quiet_ms)]
        after = (told["ts_event"] - self.quiet_ms) / MINUTE
        return list(
            zip(told["instrument"].tolist(), (told["up"] == 1).tolist(), after, strict=True)
        )


def test_a_stream_that_falls_silent_whole_is_noticed_and_back_when_it_speaks(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path / "j.sqlite")

    async def act() -> None:
        scene.quiet_ms = scene.exchange.now
        scene.exchange.clients[0].muted = True
        await scene.bars(2)
        assert scene.folded("linked") == [0, 0]
        scene.exchange.clients[0].muted = False
        await scene.bars(2, BTC, SOL)
        await until(lambda: scene.folded("linked") == [1, 1])
        await scene.bars(3, BTC, SOL)

    told = scene.played(act)
    assert [(i, up) for i, up, _ in told] == [(BTC, False), (SOL, False), (BTC, True), (SOL, True)]
    assert all(after <= 2 for _, up, after in told if not up)


def test_one_silent_instrument_does_not_bind_the_other(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "j.sqlite")

    async def act() -> None:
        taken = scene.fall_silent("candle", "l2Book", "activeAssetCtx", coin="SOL")
        await scene.bars(3)
        assert scene.folded("linked") == [1, 0]
        scene.exchange.clients[0].wanted |= taken
        await scene.bars(2, BTC, SOL)
        await until(lambda: scene.folded("linked") == [1, 1])

    told = scene.played(act)
    assert [(i, up) for i, up, _ in told] == [(SOL, False), (SOL, True)]
    assert told[0][2] <= 2


def test_quotes_without_bars_are_blindness_and_the_other_goes_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "j.sqlite")

    async def act() -> None:
        scene.refused = Fault.SERVER_ERROR
        taken = scene.fall_silent("candle", coin="SOL")
        await scene.bars(3, BTC)
        assert scene.folded("linked") == [1, 0]
        assert scene.folded("bar_ts")[SOL] < scene.folded("bar_ts")[BTC]
        scene.refused = None
        scene.exchange.clients[0].wanted |= taken
        await scene.bars(2, BTC, SOL)
        await until(lambda: scene.folded("linked") == [1, 1])

    told = scene.played(act, wait_s=0.05)
    assert [(i, up) for i, up, _ in told] == [(SOL, False), (SOL, True)]
    bars = scene.events["instrument"][scene.events["kind"] == Kind.BAR].tolist()
    assert bars.count(BTC) == bars.count(SOL)


def test_what_a_feed_begins_with_is_learnt_from_and_not_traded(tmp_path: Path) -> None:
    warmup = 40
    scene = Scene(tmp_path / "j.sqlite", first=warmup)
    start_ms = scene.exchange.now

    async def act() -> None:
        await until(lambda: scene.folded("linked") == [1, 1])
        await scene.bars(20, BTC, SOL)

    scene.service.blind()
    scene.played(act, since_ms={}, warmup_bars=warmup)
    outcomes, is_link = scene.outcomes, scene.events["kind"] == Kind.LINK
    ordered = outcomes["ts"][outcomes["kind"] == Result.APPROVED]
    assert (scene.events["ts_known"] <= start_ms).sum() > 2 * warmup
    assert ordered.min() > start_ms
    assert (outcomes["rule"][outcomes["kind"] == Result.REFUSED] == Rule.LINK_DOWN).any()
    assert scene.events["up"][is_link].tolist() == [0, 0, 1, 1]
    seeing = assemble(setup_of(), dict.fromkeys(COINS, CARRIED))
    unguarded = fold(seeing, scene.events[~is_link])
    assert unguarded["ts"][unguarded["kind"] == Result.APPROVED].min() < start_ms
