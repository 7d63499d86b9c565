"""A daemon of its own that trades on the Drift stand-in, and may kill itself at a boundary.

    python tests/daemon/drift_child.py FOLDER URL[,URL] WORLD BARS [BOUNDARY COUNT]

FOLDER holds key.json, and the journal. WORLD is e3; or script, which trades at most bars; or pair,
where another book takes the other side of it, two hours of funding are paid, the second otherwise
than is told, and all ends flat. The tape's time is the chain's: each bar moves oracle and book to
its prices, then comes to the daemon, and the next one waits until its orders have ended.
"""

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "markets" / "drift")]

from dataclasses import replace  # noqa: E402
from functools import cache  # noqa: E402

from shelf import shelf_setup, shelf_world  # noqa: E402
from standin_drift import RemoteDesk  # noqa: E402
from worlds import MINUTE, SCRIPT, START, one_book, scripted, walk  # noqa: E402

from backtest.assemble import Setup  # noqa: E402
from config.settings import Drift, Live  # noqa: E402
from core.model import Kind, Records  # noqa: E402
from daemon.journal import RunMode, open_journal, read_events, sqlite_url  # noqa: E402
from daemon.journal.attempts import SqlAttempts  # noqa: E402
from daemon.live.service import Service, open_service, paper_row, run_service  # noqa: E402
from daemon.venues.drift import Mailbox, open_drift, read_key  # noqa: E402
from markets.drift import rpc  # noqa: E402
from markets.drift.layout import codes  # noqa: E402
from markets.drift.program import load_driftpy  # noqa: E402
from markets.history import History, make_funding, merge  # noqa: E402
from risk.limits import Sizing, SizingRule  # noqa: E402

RUN = "drift-test"
LOTS = {"SOL-PERP": 0.01, "BTC-PERP": 0.0001}
SPEED = 100
"""The chain's seconds in one of ours."""
SLOTS_PER_S = SPEED / 0.4
TTL_S = 150.0
PRICES = {"SOL-PERP": 150.0, "BTC-PERP": 60_000.0}
PAID = {"SOL-PERP": 15_000_000, "BTC-PERP": 6_000_000_000}
"""Funding of an hour, in 1e9 quote a unit: whole micros a lot."""
HOUR, FLAT_BARS = 60 * MINUTE, 10
PAIR_START = START + 50 * MINUTE


def _against(f: Any, _position: Any, _p: Any) -> tuple[float, float, int]:
    return -f.signal, 1.0, 0


AGAINST = replace(SCRIPT, name="against", decide=_against)


def setup_of(name: str) -> Setup:
    """The strategy on both perpetuals, its orders sent out."""
    if name == "e3":
        setup = shelf_setup(name)
        terms = {"external": True}
    else:
        legs = [one_book(SCRIPT, book={"offset": 0.01}) for _ in LOTS]
        books = tuple(
            replace(leg.books[0], book=replace(leg.books[0].book, name=name, instrument=name))
            for leg, name in zip(legs, LOTS, strict=True)
        )
        instruments = tuple(replace(legs[0].instruments[0], name=name) for name in LOTS)
        sizing = Sizing(rule=SizingRule.NOTIONAL, value=1_500.0)
        books = tuple(replace(book, sizing=sizing) for book in books)
        if name == "pair":
            against = replace(books[0].book, name="against", strategy=AGAINST)
            books += (replace(books[0], book=against, sizing=replace(sizing, value=1_000.0)),)
        setup, terms = replace(legs[0], instruments=instruments, books=books), {"external": True}
    instruments = tuple(replace(one, lot=LOTS[one.name], **terms) for one in setup.instruments)
    return replace(setup, instruments=instruments)


@cache
def world(name: str, bars: int) -> dict[str, History]:
    """E3's own world, or two walks on which a script wants something else at most bars (among a
    pair every sixth time, or there would be no bar between orders)."""
    if name == "e3":
        return dict(shelf_world(name, bars))
    histories = {}
    for seed, (symbol, price) in enumerate(PRICES.items()):
        closes = walk(bars, seed, price=price).bars["close"]
        targets = np.random.default_rng(seed).choice([-1.0, 0.0, 0.5, 1.0], bars)
        more: dict[str, Any] = {}
        if name == "pair":
            targets = targets[np.arange(bars) // 6 * 6]
            targets[-FLAT_BARS:] = 0.0
            more = {"start": PAIR_START, "extra": [hourly(PAID[symbol], bars)]}
        opens = list(np.r_[price, closes[:-1]])
        histories[symbol] = scripted(list(targets), opens, list(closes), **more)
    return histories


def warmth() -> tuple[Setup, dict[str, History]]:
    """What a process has to have compiled and at hand before this one is forked from it."""
    load_driftpy()
    codes()
    return setup_of("script"), world("script", 20)


def hourly(paid: int, bars: int) -> Records:
    """The funding of every whole hour of a tape, told as a rate of any price at all."""
    hours = np.arange(START + HOUR, PAIR_START + bars * MINUTE, HOUR, dtype=np.int64)
    price = np.full(len(hours), 100.0)
    return make_funding(hours, paid / 1e9 / price, 1.0, price)


class TapeClock:
    """The tape's time, which goes on while its orders live."""

    def __init__(self) -> None:
        self.base_ms, self.at_s = 0, time.monotonic()

    def __call__(self) -> int:
        return self.base_ms + round((time.monotonic() - self.at_s) * 1_000 * SPEED)

    def leap(self, to_ms: int) -> int:
        now = max(self(), to_ms)
        self.base_ms, self.at_s = now, time.monotonic()
        return now


class MarketFeed:
    """The tape, and the market on the stand-in that goes with it."""

    def __init__(self, service: Service, clock: TapeClock, desk: RemoteDesk, tape: Records) -> None:
        self.service, self.clock, self.desk, self.tape = service, clock, desk, tape
        self.pays = any(book.strategy is AGAINST for book in service.engine.books)

    async def __aiter__(self) -> AsyncIterator[Records]:
        events = self.tape[self.tape["ts_known"] > self.heard()[self.tape["instrument"]]]
        for block in np.split(events, np.flatnonzero(np.diff(events["ts_known"])) + 1):
            if not len(block):
                continue
            await anyio.to_thread.run_sync(self.move, block)
            yield block
            await self.quiet()
        self.service.stop()
        await anyio.sleep_forever()

    def heard(self) -> Any:
        """The close of each instrument's last bar in the journal, as the tape has it: an order's
        end may have come later, and have put off when a bar became known."""
        journal = self.service.journal
        events = read_events(journal.engine, journal.run_id)
        bars = events[events["kind"] == Kind.BAR]
        closes = np.zeros(len(LOTS), np.int64)
        np.maximum.at(closes, bars["instrument"], bars["ts_event"] + MINUTE)
        return closes

    async def quiet(self) -> None:
        """Until all is folded and no order is under way."""
        engine, inbox = self.service.engine, self.service.inbox
        await anyio.sleep(0.005)
        while inbox.waiting or len(engine.sent()):  # noqa: ASYNC110 - an onlooker has no event
            await anyio.sleep(0.005)

    def move(self, block: Records) -> None:
        """Oracle and book follow the bar; at times there is little to trade with, or nothing."""
        now_ms = self.clock.leap(int(block["ts_known"][0]))
        self.desk.set_time(now_ms)
        if self.pays:
            self.settle(block)
        for bar in block[block["kind"] == Kind.BAR]:
            index, close = int(bar["instrument"]), round(bar["close"] * 1e6)
            self.desk.set_oracle(index, price=close)
            step = round(LOTS[self.service.engine.instruments[index].name] * 1e9)
            sizes = [(3, 40), (1, 2), (0, 0), (400, 4_000)][int(bar["ts_event"]) // 60_000 % 4]
            away = close // 10_000
            levels = [(k * away, size * step) for k, size in enumerate(sizes, 1) if size]
            self.desk.set_book(
                self.desk.maker_key("maker"),
                index,
                bids=[(close - far, size) for far, size in levels],
                asks=[(close + far, size) for far, size in levels],
            )

    def settle(self, block: Records) -> None:
        """The chain pays the first hour as it is told, and what follows twice."""
        for told in block[block["kind"] == Kind.FUNDING]:
            i, hour_ms = int(told["instrument"]), int(told["ts_event"])
            paid = PAID[self.service.engine.instruments[i].name]
            self.desk.settle_hour(i, paid * (1 + (hour_ms > START + HOUR)), hour_ms // 1_000)


class Deadly:
    """Kills the process at the COUNT-th passing of a boundary."""

    def __init__(self, boundary: str, count: int) -> None:
        self.boundary, self.left = boundary, count

    def pass_by(self, boundary: str) -> None:
        if boundary == self.boundary:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, holder: type, method: str) -> None:
        """Let every call of a method pass by ``before-method`` and ``after-method``."""
        kept: Callable[..., Awaitable[Any]] = getattr(holder, method)

        async def call(*args: Any, **more: Any) -> Any:
            self.pass_by(f"before-{method}")
            answer = await kept(*args, **more)
            self.pass_by(f"after-{method}")
            return answer

        setattr(holder, method, call)


async def trade(folder: Path, urls: list[str], histories: dict[str, History], setup: Setup) -> None:
    clock = TapeClock()
    database = open_journal(sqlite_url(folder / "journal.sqlite"))
    carried = {name: history.fields for name, history in histories.items()}
    row = replace(paper_row(RUN, setup, started_ms=0), mode=RunMode.LIVE)
    service = open_service(setup, carried, database, row, clock, codes())
    desk = RemoteDesk(urls[0])
    clock.leap(max(desk.set_time(0), service.recovered.last_ms))
    desk.set_time(clock())
    settings = Drift(
        endpoints=tuple(urls),
        key_file=folder / "key.json",
        makers=(desk.maker_key("maker"),),
        ttl_s=TTL_S,
        resend_s=0.1,
        reconcile_s=0.5,
    )
    key = read_key(settings, {})
    async with open_drift(settings, Live(venue="drift"), service, key, flag=False) as venue:
        feed = MarketFeed(service, clock, desk, merge(list(histories.values())))
        await run_service(service, feed, venue=venue, snapshot_events=200)
    database.dispose()


def main() -> None:
    folder, urls, name, bars, boundary, count = [*sys.argv[1:], "never", "0"][:6]
    deadly = Deadly(boundary, int(count))
    rpc.Node.__init__.__kwdefaults__["timeout_s"] = 0.5  # type: ignore[index]
    for holder, methods in (
        (SqlAttempts, ("write_signed", "write_verdict")),
        (rpc.Node, ("send",)),
        (Mailbox, ("put",)),
    ):
        for method in methods:
            deadly.around(holder, method)
    from daemon.journal import SqlJournal

    deadly.around(SqlJournal, "append")
    anyio.run(trade, Path(folder), urls.split(","), world(name, int(bars)), setup_of(name))


if __name__ == "__main__":
    main()
