"""Every fault of the exchange, through the whole service: the gate's state, the metric that counts
it and the log line that names it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families
from standin_exchange import Client, Fault, StandinExchange, candles_of
from structlog.testing import capture_logs
from test_hyperliquid_feed import settings_for
from test_live_equals_replay import setup_of
from worlds import walk

from config.settings import Settings
from core.model import Mode, Records, Result
from daemon.commands.run import CARRIED
from daemon.journal import open_journal, read_outcomes, sqlite_url
from daemon.live.lookout import Lookout
from daemon.live.service import open_service, paper_row, run_service
from daemon.live.sight import watch_sight
from daemon.observe.redaction import Secrets
from daemon.supervisor import Task
from markets.hyperliquid.feed import HyperliquidFeed
from risk.gate import Rule

COINS = ("BTC", "SOL")
MINUTE, SILENT_S = 60_000, 0.4
BARS_BEFORE, BARS_BLIND, BARS_AFTER = 30, 40, 40
CUTS = (Fault.SILENT, Fault.HALF_OPEN, Fault.CLOSE, Fault.ABORT)


class CuttingExchange(StandinExchange):
    """Does its fault to every client for as long as it is set, new ones at their first word."""

    fault: Fault | None = None
    refused = 0
    refusal: Fault | None = None

    def __init__(self, skew_ms: int = 0) -> None:
        self.skew_ms = skew_ms
        tapes = {coin: candles_of(walk(200, seed)) for seed, coin in enumerate(COINS, 1)}
        self.asked = 0
        faults: Any = {"stream_fault": self._fault_now, "request_fault": self._refuse}
        super().__init__(tapes, **faults)

    def local_ms(self) -> int:
        """Our own clock, which may be wrong."""
        return self.now + self.skew_ms

    def _fault_now(self) -> Fault | None:
        self.asked += 1
        return self.fault if self.fault in CUTS or self.asked % 5 == 0 else None

    def _refuse(self) -> Fault | None:
        self.refused -= 1
        return self.refusal if self.refused >= 0 else None

    async def _hear(self, client: Client, said: dict[str, Any]) -> None:
        if self.fault in CUTS and not client.muted:
            await self._cut(client, self.fault)
        await super()._hear(client, said)


class Scene:
    """A daemon without its sockets to the operator, following an exchange whose time the test
    moves. Afterwards: ``log``, ``metrics`` by name and label, ``outcomes`` of each act."""

    def __init__(self, folder: Path, skew_ms: int = 0) -> None:
        self.exchange = CuttingExchange(skew_ms)
        self.database = open_journal(sqlite_url(folder / "j.sqlite"))
        row = paper_row("paper", setup_of(), started_ms=0)
        carried = dict.fromkeys(COINS, CARRIED)
        clock, self.start_ms = self.exchange.local_ms, self.exchange.now
        self.service = open_service(setup_of(), carried, self.database, row, clock)
        self.marks: list[int] = []
        self.looks = 0

    @property
    def linked(self) -> list[int]:
        rows = self.service.engine.arrays["instruments"]["linked"]
        return [int(linked) for linked in rows[: len(COINS)]]

    @property
    def mode(self) -> Mode:
        return Mode(self.service.engine.arrays["account"]["mode"][0])

    async def bars(self, count: int) -> None:
        """Play bars; each is waited for, but the last one may need the next to be known."""
        exchange = self.exchange
        for _ in range(count):
            await self._tick()
            await self._tick()
            due = exchange.now // MINUTE * MINUTE - MINUTE
            if due > self.start_ms:
                await until(lambda due=due: self._folded_ms() >= due)  # type: ignore[misc]

    async def _tick(self) -> None:
        """Move the time, and wait until it was heard of and looked at."""
        heard = self.feed.link.messages
        await self.exchange.tick()
        if self.exchange.fault not in CUTS:
            await until(lambda: self.feed.link.messages > heard)
        looks = self.looks
        await until(lambda: self.looks > looks + 1)

    def _folded_ms(self) -> int:
        return int(self.service.engine.arrays["instruments"]["bar_ts"][: len(COINS)].min())

    def act(self) -> None:
        """Another act begins: its outcomes are those of later events, its log later lines."""
        self.marks.append(self.service.journal.seq)
        self.lines = len(self.log)

    def play(self, acts: Callable[["Scene"], Awaitable[None]]) -> None:
        """Run the daemon while the acts are played."""

        async def scene() -> None:
            async with self.exchange.open():
                await self._serve(acts)

        with capture_logs() as self.log:
            anyio.run(scene)
        self.outcomes = read_outcomes(self.database, "paper")
        self.database.dispose()

    async def _serve(self, acts: Callable[["Scene"], Awaitable[None]]) -> None:
        exchange, service = self.exchange, self.service
        given = settings_for(exchange)
        # time stands still while the test waits for the loop: that is no silence yet
        given = replace(given, stream=replace(given.stream, silent_s=SILENT_S))
        feed = self.feed = HyperliquidFeed(given, exchange.local_ms, lambda: 0.5)
        settings = Settings.laid([{"api": {"enabled": False}}])
        lookout = Lookout(service, feed.link, settings, MINUTE, Secrets(), {})

        def looked() -> int:
            self.looks += 1
            return exchange.now

        async def sight() -> None:
            await watch_sight(service, feed, MINUTE, looked, 0.002)

        async def played() -> None:
            await exchange.listened.wait()
            await acts(self)
            self.troubled = dict(feed.link.counts)
            lookout.troubles.look()
            self.metrics = samples(lookout.metrics.exposition().decode())
            service.stop()

        # a core task: a failure of the test itself must not be taken for an outage
        play = Task("play", played, core=True)
        edges = [Task("line", feed.run), Task("sight", sight), play]
        with anyio.fail_after(120):
            await run_service(
                service,
                feed,
                begun=lookout.begun,
                ended=lookout.ended,
                edges=lambda watch: [*edges, *lookout.edges(watch)],
            )

    def of_act(self, act: int, kind: Result) -> Records:
        seqs = self.outcomes["seq"]
        kept = (seqs > self.marks[act]) & (self.outcomes["kind"] == kind)
        if act + 1 < len(self.marks):
            kept &= seqs <= self.marks[act + 1]
        rows: Records = self.outcomes[kept]
        return rows

    def logged(self, event: str) -> list[Any]:
        return [line for line in self.log if line["event"] == event]


def samples(text: str) -> dict[tuple[str, str], float]:
    """Values by name and the first label's value that tells something."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [value for name, value in sample.labels.items() if name != "feed"]
            found[sample.name, "/".join(labels)] = sample.value
    return found


async def until(met: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not met():  # noqa: ASYNC110 - what is waited for tells nobody
            await anyio.sleep(0.002)


def troubled(scene: Scene, reasons: set[str]) -> None:
    """One of these was counted by the metric and named by the log."""
    counted = {name for name in reasons if scene.metrics["lockstep_feed_troubles_total", name] > 0}
    named = {name for line in scene.logged("line troubled") for name in line if name in reasons}
    assert counted, scene.troubled
    assert named == counted


def blind_then_seeing(scene: Scene) -> None:
    """The second act was blind, the third was not: openings are refused in the one alone."""
    refused = scene.of_act(1, Result.REFUSED)
    assert (refused["rule"] == Rule.LINK_DOWN).any()
    assert not (scene.of_act(2, Result.REFUSED)["rule"] == Rule.LINK_DOWN).any()
    assert len(scene.of_act(2, Result.APPROVED)) > 0
    # after the line came back no position that was held is lost sight of, and none was opened
    assert {line["instrument"] for line in scene.logged("out of sight")} == set(COINS)
    assert {line["instrument"] for line in scene.logged("in sight")} == set(COINS)
    by_rule = sum(
        value
        for (name, labels), value in scene.metrics.items()
        if name == "lockstep_intents_total" and "link_down" in labels.split("/")
    )
    assert by_rule == (scene.outcomes["rule"] == Rule.LINK_DOWN).sum()


async def outage(scene: Scene, fault: Fault) -> None:
    """See, be blind for a while, see again."""
    scene.act()
    await scene.bars(BARS_BEFORE)
    assert scene.linked == [1, 1]
    scene.exchange.fault = fault
    await scene.bars(3)
    await until(lambda: scene.linked == [0, 0])
    scene.act()
    await scene.bars(BARS_BLIND)
    assert (scene.linked, scene.mode) == ([0, 0], Mode.ACTIVE)
    scene.exchange.fault = None
    for client in scene.exchange.clients:
        client.socket.transport.abort()
    await anyio.sleep(0.1)
    await scene.bars(3)
    await until(lambda: scene.linked == [1, 1])
    scene.act()
    await scene.bars(BARS_AFTER)
    assert scene.linked == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.SILENT, "silent"),
        (Fault.HALF_OPEN, "silent"),
        (Fault.CLOSE, "closed"),
        (Fault.ABORT, "closed"),
    ],
)
def test_while_the_line_is_cut_nothing_is_opened(fault: Fault, reason: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.play(lambda scene: outage(scene, fault))
    blind_then_seeing(scene)
    troubled(scene, {reason})
    assert scene.metrics["lockstep_link_up", "BTC"] == 1.0
    assert scene.metrics["lockstep_feed_connections_total", ""] > 1


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        (Fault.DUPLICATE, {"duplicate"}),
        (Fault.OUT_OF_ORDER, {"out_of_order"}),
        (Fault.LATE, {"late", "late_correction"}),
        (Fault.MALFORMED, {"not_json", "bad_shape", "unknown_channel"}),
    ],
)
def test_a_bad_message_blinds_nobody(fault: Fault, reasons: set[str], tmp_path: Path) -> None:
    async def acts(scene: Scene) -> None:
        await scene.bars(5)
        scene.act()
        scene.exchange.fault = fault
        await scene.bars(BARS_BEFORE)
        scene.exchange.fault = None
        await scene.bars(3)
        assert (scene.linked, scene.mode) == ([1, 1], Mode.ACTIVE)

    scene = Scene(tmp_path)
    scene.play(acts)
    assert len(scene.of_act(0, Result.APPROVED)) > 0
    # a bar's last word that comes with the next half bar holds it up so long that it is missed
    blinks = fault is Fault.OUT_OF_ORDER
    assert blinks or "out of sight" not in [line["event"] for line in scene.log[scene.lines :]]
    troubled(scene, reasons)


@pytest.mark.parametrize(
    ("refusal", "reasons"),
    [
        (Fault.TOO_MANY, {"request_throttled"}),
        (Fault.SERVER_ERROR, {"request_retried"}),
        (Fault.DROPPED, {"request_retried"}),
        (Fault.NOT_JSON, {"not_json"}),
    ],
)
def test_a_refused_request_is_asked_again(
    refusal: Fault, reasons: set[str], tmp_path: Path
) -> None:
    """Bars that a broken line missed are asked for, and refused a few times."""

    async def acts(scene: Scene) -> None:
        scene.act()
        await scene.bars(5)
        scene.exchange.refused, scene.exchange.refusal = 4, refusal
        scene.exchange.fault = Fault.CLOSE
        await scene.bars(5)
        scene.exchange.fault = None
        await anyio.sleep(0.05)
        await scene.bars(BARS_BEFORE)
        await until(lambda: scene.linked == [1, 1])
        await scene.bars(5)

    scene = Scene(tmp_path)
    scene.play(acts)
    assert scene.exchange.refused < 0
    assert len(scene.of_act(0, Result.APPROVED)) > 0
    troubled(scene, reasons)


@pytest.mark.parametrize("skew_ms", [90_000, -90_000, 0])
def test_a_wrong_clock_of_ours_is_told_and_trading_goes_on(skew_ms: int, tmp_path: Path) -> None:
    async def acts(scene: Scene) -> None:
        scene.act()
        await scene.bars(BARS_BEFORE)
        assert (scene.linked, scene.mode) == ([1, 1], Mode.ACTIVE)

    scene = Scene(tmp_path, skew_ms)
    scene.play(acts)
    assert len(scene.of_act(0, Result.APPROVED)) > 0
    assert abs(scene.metrics["lockstep_clock_skew_seconds", ""] - skew_ms / 1000) < 60
    told = scene.logged("clock skewed")
    assert [line["skew_ms"] > 0 for line in told] == ([skew_ms > 0] if skew_ms else [])
