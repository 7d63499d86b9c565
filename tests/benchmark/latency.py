"""How soon a closed bar becomes an order in a venue's hands, and where the time goes.

    .venv/bin/python tests/benchmark/latency.py [--bars 200] [--json]

An exchange in another process closes a bar of every instrument at once, over a real socket; every
instrument trades at an outside venue, here one that notes the time and fills. Measured from the
moment before the exchange sends the message that closes the last of the bars, when those of the
others may still lie unread, until the venue port has the first order of them, and the last.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import anyio
import numpy as np
from soak import DAY_MS, FIRST_MS, MINUTE_MS, Clock, process

from core.strategy import Strategy

WIDTHS = (1, 20, 200)
BARS, BARS_WARMING_UP = 200, 20
HOUR_MS = 3_600_000
REST_S, REST_AFTER_FUNDING_S = 0.01, 1.5
STAGES = {
    "feed": "parse, close, hand over",
    "inbox": "wait for the loop",
    "advance": "the step",
    "journal": "until durable",
    "submit": "to the venue port",
    "first": "bar to first order",
    "last": "bar to last order",
}
"""The first five follow each other without a gap; where a bar takes several steps, each is their
sum."""


class Reason(IntEnum):
    """The only one there is."""

    TURN = 0


def _in_and_out(_features: Any, position: Any, _params: Any) -> tuple[float, float, int]:
    # in and out: a turn from long to short would take two orders
    return (0.0 if position.target > 0.0 else 1.0), 1.0, 0


IN_AND_OUT = Strategy(
    name="in_and_out", decide=_in_and_out, reasons=Reason, features={"close": "close"}, params={}
)


class Wire(Clock):
    """What both processes see: also the second (of the machine's steady clock) at which the message
    that closes the last bar was sent."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self.sent_s: Any = multiprocessing.get_context("spawn").Value("d", 0.0, lock=False)


def coins_of(width: int) -> tuple[str, ...]:
    return tuple(f"C{i}" for i in range(width))


def exchange_process(width: int, bars: int, wire: Wire, told: Connection) -> None:
    """Close one bar after the other, each when the one before has been answered."""
    from standin_exchange import StandinExchange, candles_of
    from worlds import walk

    coins = coins_of(width)

    class Exchange(StandinExchange):
        now = property(lambda _self: wire.now_ms(), lambda _self, ms: wire.set_ms(ms))

        async def _tell(self, kind: str, coin: str, message: str) -> None:
            if (kind, coin) == ("l2Book", coins[-1]):
                wire.sent_s.value = time.perf_counter()
            await super()._tell(kind, coin, message)

    exchange = Exchange({coin: candles_of(walk(bars + 1, seed)) for seed, coin in enumerate(coins)})

    async def play() -> None:
        async with exchange.open():
            told.send((exchange.stream_url, exchange.info_url))
            await exchange.listened.wait()
            while exchange.now < exchange.end:
                await exchange.tick()
                closed_ms = exchange.now - exchange.now % MINUTE_MS
                while wire.folded.value < closed_ms:  # noqa: ASYNC110 - another process's
                    await anyio.sleep(0.001)
                # an hour's funding is asked for in the minute after it
                await anyio.sleep(REST_S if closed_ms % HOUR_MS else REST_AFTER_FUNDING_S)
            await anyio.sleep_forever()

    anyio.run(play)


@dataclass
class Probe:
    """Stands at every border of the path, as feed, journal and venue, and takes the time."""

    wire: Wire
    service: Any
    feed: Any
    journal: Any = None
    tasks: Any = ()
    rows: list[dict[str, float]] = field(default_factory=list)
    row: dict[str, float] = field(default_factory=dict)
    lap_s: float = 0.0
    orders: int = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        from core.model import Kind

        async for block in self.feed:
            if (block["kind"] == Kind.BAR).any():
                self.row, self.orders = dict.fromkeys(STAGES, 0.0), 0
                self.lap_s = self.wire.sent_s.value
                self.lap("feed")
            yield block

    def lap(self, stage: str) -> None:
        now_s = time.perf_counter()
        self.row[stage] = self.row.get(stage, 0.0) + now_s - self.lap_s
        self.lap_s = now_s

    def begun(self, _block: Any) -> None:
        if self.orders < len(self.service.engine.instruments):
            self.lap("inbox")

    def around(self, journal: Any) -> "Probe":
        self.journal = journal
        return self

    async def append(self, events: Any, outcomes: Any, track: Any) -> None:
        self.lap("advance")
        await self.journal.append(events, outcomes, track)
        self.lap("journal")

    async def submit(self, approved: Any) -> None:
        """Note the time and fill; the last order of a bar completes its row."""
        from core.events import fill_event

        self.lap("submit")
        self.orders += 1
        if self.orders == 1:
            self.row["first"] = self.lap_s - self.wire.sent_s.value
        if self.orders == len(self.service.engine.instruments):
            self.rows.append({**self.row, "last": self.lap_s - self.wire.sent_s.value})
        filled = {"quantity": float(approved["quantity"]), "price": float(approved["limit"])}
        order, place = int(approved["id"]), int(approved["instrument"])
        event = fill_event(order, place, **filled, fee=0.0, final=True, ts=self.wire.now_ms())
        await self.service.inbox.put(event)

    async def recover(self, working: Any) -> None:
        assert not len(working)

    async def halt(self) -> None:
        """Nothing works for longer than a moment."""

    def close(self) -> None:
        """Nothing is open."""


def daemon_process(width: int, bars: int, wire: Wire, urls: Any, told: Connection) -> None:
    """Answer every bar with an order of each instrument; tells the seconds of each stage."""
    from worlds import NO_LIMITS

    from backtest.assemble import BookSetup, Setup
    from core.engine import Book
    from core.instrument import Instrument
    from daemon.commands.run import CARRIED
    from daemon.journal import open_journal, sqlite_url
    from daemon.live.service import open_service, paper_row
    from risk.limits import Sizing, SizingRule

    coins = coins_of(width)
    sizing = Sizing(rule=SizingRule.NOTIONAL, value=100.0)
    setup = Setup(
        instruments=tuple(Instrument(name=coin, external=True) for coin in coins),
        books=tuple(
            BookSetup(
                book=Book(name=coin, strategy=IN_AND_OUT, instrument=coin),
                sizing=sizing,
                limits=NO_LIMITS,
            )
            for coin in coins
        ),
        equity=1e6,
        limits=NO_LIMITS,
    )
    with tempfile.TemporaryDirectory() as folder:
        database = open_journal(sqlite_url(Path(folder) / "journal.sqlite"))
        row = paper_row("latency", setup, started_ms=FIRST_MS)
        service = open_service(setup, dict.fromkeys(coins, CARRIED), database, row, wire.now_ms)
        told.send(anyio.run(_probed, service, coins, bars, wire, urls))
        database.dispose()


async def _probed(
    service: Any, coins: tuple[str, ...], bars: int, wire: Wire, urls: tuple[str, str]
) -> list[dict[str, float]]:
    from daemon.live.service import run_service
    from daemon.supervisor import Task
    from markets.feeds.closing import ClosingRules
    from markets.feeds.stream import StreamSettings
    from markets.hyperliquid.client import InfoSettings
    from markets.hyperliquid.feed import FeedSettings, HyperliquidFeed

    settings = FeedSettings(
        coins=coins,
        stream=StreamSettings(url=urls[0]),
        info=replace(InfoSettings(url=urls[1]), weight_per_minute=1e9),
        # a tick moves the time by seconds at once
        rules=ClosingRules(grace_ms=40_000, absent_ms=60_000, future_ms=DAY_MS),
    )
    feed = HyperliquidFeed(settings, wire.now_ms, lambda: 0.5)
    probe = Probe(wire, service, feed)
    account = service.engine.arrays["account"][0]
    closes = service.engine.arrays["instruments"]["bar_ts"][: len(coins)]

    async def answer() -> None:
        """Ask for the next bar when every order of this one is filled."""
        while len(probe.rows) < bars:
            await anyio.sleep(0.001)
            if closes.all() and probe.orders == len(coins) and not account["working"]:
                wire.folded.value = int(closes.min())
        service.stop()

    edges = [Task("line", feed.run), Task("answer", answer)]
    await run_service(
        service, probe, probe, begun=probe.begun, edges=lambda _: edges, wrap=probe.around
    )
    return probe.rows


def measure(width: int, bars: int = BARS) -> dict[str, tuple[float, float]]:
    """p50 and p99 of every stage in milliseconds, for so many instruments."""
    wire = Wire(FIRST_MS)
    with process(exchange_process, width, bars + 2, wire) as exchange:
        urls = exchange.recv()
        with process(daemon_process, width, bars, wire, urls) as daemon:
            rows = daemon.recv()[min(BARS_WARMING_UP, bars // 4) :]
    cuts = {stage: np.percentile([row[stage] for row in rows], [50, 99]) * 1e3 for stage in STAGES}
    return {stage: (float(p50), float(p99)) for stage, (p50, p99) in cuts.items()}


def _told(ms: float) -> str:
    return f"{ms:.2f}" if ms < 100.0 else f"{ms:.0f}"


def main() -> None:
    """Print the table, or with ``--json`` the figures."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reader.add_argument("--bars", type=int, default=BARS)
    reader.add_argument("--json", action="store_true")
    given = reader.parse_args()
    figures = {width: measure(width, given.bars) for width in WIDTHS}
    if given.json:
        print(json.dumps(figures, indent=1))
        return
    print(f"{'milliseconds, p50 / p99':<34}" + "".join(f"{width:>15}" for width in WIDTHS))
    for stage, about in STAGES.items():
        cells = (figures[width][stage] for width in WIDTHS)
        told = "".join(f"{f'{_told(p50)} / {_told(p99)}':>15}" for p50, p99 in cells)
        print(f"{f'{stage}: {about}':<34}{told}")


if __name__ == "__main__":
    main()
