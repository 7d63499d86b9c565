"""Whether the daemon can be left alone: a month of its life, sped up, and what it costs by then.

    .venv/bin/python tests/benchmark/soak.py [--days 30] [--instruments 20] [--minutes 5] [--json]

An exchange in one process plays candles over real sockets, the daemon in another is composed as
``lockstep run`` composes it, and this one scrapes it. The exchange's clock is also the daemon's,
and waits when the loop is more than two bars behind, so the daemon is at work all the time: its lag
is that of a machine at its limit. Beside it stands the lag of a process that idles, for on a busy
machine none can be less. Bars are of five minutes, for a month of single minutes takes five times
as long: 16 minutes at 900 bars a second.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "markets" / "hyperliquid")]

import anyio  # noqa: E402
import httpx  # noqa: E402
import numpy as np  # noqa: E402

DAY_MS, MINUTE_MS = 86_400_000, 60_000
LEAD_BARS = 2
TICK_S, PACE_S, SCRAPE_S = 0.005, 0.001, 1.0
GROWTH_MAX, LAG_P99_MS_MAX = 0.05, 20.0
FILES_MORE_MAX = 3  # a busy moment's further connection, which its pool then keeps
FIRST_MS = 1_746_316_800_000  # a midnight, UTC
LOOKS_A_HOLDING = 20
TOKEN = "a-token-of-the-soak-run"
PROFILE = """
[account]
equity = 1_000_000
[api]
port = {port}
[live.feed]
interval = "{minutes}m"
warmup_bars = 0
stream = "{stream}"
info = "{info}"
[paths]
journal = "sqlite:///{folder}/journal.sqlite"
runs = "{folder}/runs"
[sizing]
rule = "notional"
value = 500
[limits]
cooldown_ms = 0
[strategies.trend]
params = {{ fast = 5, slow = 12 }}
[strategies.e3]
profile = "high-trade"
[strategies.funding_fade]
params = {{ funding = 0.00001 }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, how wide, and in bars of how many minutes."""

    days: int = 30
    instruments: int = 20
    minutes: int = 5

    @property
    def coins(self) -> tuple[str, ...]:
        return tuple(f"C{i}" for i in range(self.instruments))

    @property
    def bars(self) -> int:
        """Of each instrument."""
        return self.days * DAY_MS // (self.minutes * MINUTE_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What the daemon held when a day ended, and the least tasks and open files of its second half:
    what leaks is there at every moment, what works comes and goes."""

    rss_bytes: int
    tasks: int
    files: int


@dataclass(kw_only=True)
class Figures:
    """What was measured in the daemon. ``days`` is after each simulated day, the first included."""

    days: list[Holdings] = field(default_factory=list)
    bars: int = 0
    trades: int = 0
    seconds: float = 0.0
    lag_ms_p50: float = 0.0
    lag_ms_p99: float = 0.0
    lag_ms_max: float = 0.0
    machine_ms_p99: float = 0.0
    journal_bytes: int = 0
    scrapes: int = 0

    @property
    def growth(self) -> float:
        """Of memory since the first day, as a fraction."""
        return self.days[-1].rss_bytes / self.days[0].rss_bytes - 1.0


class Clock:
    """Two moments that the processes share (unix ms): the exchange's now, and the close of the last
    bar that every instrument has folded."""

    def __init__(self, now_ms: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.now: Any = context.Value("q", now_ms, lock=False)
        self.folded: Any = context.Value("q", now_ms, lock=False)

    def now_ms(self) -> int:
        return int(self.now.value)

    def set_ms(self, ms: int) -> None:
        self.now.value = ms


def exchange_process(plan: Plan, clock: Clock, told: Connection) -> None:
    """Play the whole tape, never far ahead of the daemon; then serve on until ended."""
    from standin_exchange import Candle, StandinExchange, candles_of
    from worlds import walk

    interval_ms = plan.minutes * MINUTE_MS
    first_ms = clock.now_ms()

    def tape(seed: int) -> list[Candle]:
        # a bar is final once the next one has begun
        rows = candles_of(walk(plan.bars + 1, seed, scale=2e-3))
        return [row._replace(open_ms=first_ms + k * interval_ms) for k, row in enumerate(rows)]

    class Exchange(StandinExchange):
        """One whose time is the clock's, at every moment."""

        now = property(lambda _self: clock.now_ms(), lambda _self, ms: clock.set_ms(ms))

    candles = {coin: tape(seed) for seed, coin in enumerate(plan.coins)}
    exchange = Exchange(candles, interval_ms)

    async def play() -> None:
        async with exchange.open():
            told.send((exchange.stream_url, exchange.info_url))
            await exchange.listened.wait()
            while exchange.now < exchange.end:
                await exchange.tick()
                behind_ms = exchange.now - LEAD_BARS * interval_ms
                while clock.folded.value < behind_ms:  # noqa: ASYNC110 - another process's
                    await anyio.sleep(PACE_S)
            await anyio.sleep_forever()

    anyio.run(play)


def daemon_process(plan: Plan, clock: Clock, profile: Path, told: Connection) -> None:
    """Run the daemon until the tape has ended, its log into a file; tells the figures."""
    import daemon.clock

    os.environ["LOCKSTEP__API__TOKEN"] = TOKEN
    # before anybody else reads it: whoever asks for the time gets the exchange's
    daemon.clock.now_ms = clock.now_ms
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.run import CARRIED
    from daemon.commands.setups import live_setup
    from daemon.commands.shelf import open_shelf
    from daemon.journal import open_journal
    from daemon.live.service import open_service, paper_row
    from daemon.observe.logs import configure
    from daemon.observe.redaction import Secrets

    secrets, figures = Secrets(), Figures()
    resolved = read_settings(Choices(config=profile))
    with (profile.parent / "log").open("w") as log:
        configure(secrets, stream=log, pretty=False)
        setup = live_setup(resolved, open_shelf(resolved))
        database = open_journal(resolved.settings.paths.journal)
        row = paper_row("soak", setup, started_ms=clock.now_ms())
        carried = dict.fromkeys(plan.coins, CARRIED)
        service = open_service(setup, carried, database, row, clock.now_ms)
        anyio.run(_serve, plan, clock, service, resolved.settings, secrets, figures)
        database.dispose()
    account = service.engine.arrays["account"][0]
    figures.trades = int(service.engine.arrays["positions"]["trades"].sum())
    assert account["failed"] == 0
    told.send(figures)


async def _serve(
    plan: Plan, clock: Clock, service: Any, settings: Any, secrets: Any, figures: Figures
) -> None:
    import random

    from daemon.commands.run import live_feed, serve
    from markets.feeds.closing import ClosingRules
    from markets.hyperliquid.feed import HyperliquidFeed

    given = live_feed(service, settings).settings
    # a tick moves the time by minutes, often before its messages are read
    rules = ClosingRules(grace_ms=40_000, absent_ms=60_000, future_ms=DAY_MS)
    info = replace(given.info, weight_per_minute=1e9)
    quick = replace(given, rules=rules, info=info, look_s=0.005, ask_s=0.005)
    feed = HyperliquidFeed(quick, clock.now_ms, random.Random(1).random)
    lags = array("d")
    async with anyio.create_task_group() as group:
        group.start_soon(_measure_lag, lags)
        group.start_soon(_pace, plan, clock, service, figures)
        await serve(service, feed, settings, secrets)
        group.cancel_scope.cancel()
    figures.lag_ms_p50, figures.lag_ms_p99 = np.percentile(lags, [50, 99]).tolist()
    figures.lag_ms_max = max(lags)


async def _measure_lag(lags: "array[float]") -> None:
    """How late (ms) a timer fires, all the time."""
    while True:
        due_s = time.perf_counter() + TICK_S
        await anyio.sleep(TICK_S)
        lags.append((time.perf_counter() - due_s) * 1e3)


async def _pace(plan: Plan, clock: Clock, service: Any, figures: Figures) -> None:
    """Tell the exchange how far we are, take stock after each day, and stop at the end."""
    first_ms, days = clock.folded.value, figures.days
    closes = service.engine.arrays["instruments"]["bar_ts"][: plan.instruments]
    while not closes.all():  # noqa: ASYNC110 - the engine tells nobody
        await anyio.sleep(PACE_S)
    started_s = time.perf_counter()
    least, looks = [], 0
    while len(days) < plan.days:
        await anyio.sleep(PACE_S)
        clock.folded.value = int(closes.min())
        looks += 1
        end_ms = first_ms + (len(days) + 1) * DAY_MS
        if looks % LOOKS_A_HOLDING == 0 and clock.folded.value >= end_ms - DAY_MS // 2:
            least.append((len(asyncio.all_tasks()), _files_open()))
        if clock.folded.value >= end_ms:
            tasks, files = (min(each) for each in zip(*least, strict=True))
            days.append(Holdings(rss_bytes=_rss_bytes(), tasks=tasks, files=files))
            least.clear()
    figures.seconds = time.perf_counter() - started_s
    figures.bars = plan.bars * plan.instruments
    os.kill(os.getpid(), signal.SIGTERM)


def _files_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def process(target: Any, *given: Any) -> Iterator[Connection]:
    """A process of its own, gone when left; what it tells can be received."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(*given, its), daemon=True)
    child.start()
    its.close()
    try:
        yield mine
    finally:
        child.terminate()
        child.join()
        mine.close()


def soak(plan: Plan) -> Figures:
    """Run the plan; RuntimeError, with the end of its log, when the daemon dies of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), Clock(FIRST_MS)
        with process(exchange_process, plan, clock) as exchange:
            stream, info = exchange.recv()
            profile = folder / "soak.toml"
            about = {"port": port, "minutes": plan.minutes, "folder": folder}
            tables = "".join(f"[instruments.{coin}]\n" for coin in plan.coins)
            profile.write_text(PROFILE.format(**about, stream=stream, info=info) + tables)
            with process(daemon_process, plan, clock, profile) as daemon:
                scrapes, machine_ms = scrape_until(daemon, port)
                try:
                    figures: Figures = daemon.recv()
                except EOFError:
                    end = (folder / "log").read_text()[-2_000:]
                    raise RuntimeError(f"the daemon died:\n{end}") from None
        figures.scrapes, figures.machine_ms_p99 = scrapes, machine_ms
        figures.journal_bytes = sum(file.stat().st_size for file in folder.glob("journal.sqlite*"))
    return figures


def scrape_until(daemon: Connection, port: int) -> tuple[int, float]:
    """Scrape the daemon as Prometheus does, if more often, until it says something. Answers the
    scrapes, and how late (ms, p99) the machine wakes a process that does nothing else."""
    scrapes, lags = 0, array("d")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        while True:
            for _ in range(round(SCRAPE_S / TICK_S)):
                due_s = time.perf_counter() + TICK_S
                if daemon.poll(TICK_S):
                    return scrapes, float(np.percentile(lags, 99)) if lags else 0.0
                lags.append((time.perf_counter() - due_s) * 1e3)
            try:
                scrapes += client.get("/metrics").status_code == httpx.codes.OK
            except httpx.TransportError:
                continue  # it is starting, or stopping


def table(plan: Plan, figures: Figures) -> list[tuple[str, str, str, bool]]:
    """What, measured, the bar it has to meet, and whether it does."""
    first, last = figures.days[0], figures.days[-1]
    journal = figures.journal_bytes
    return [
        ("memory after the first day", f"{first.rss_bytes / 1e6:.0f} MB", "", True),
        ("  growth by the last", f"{figures.growth:+.1%}", "< 5%", figures.growth < GROWTH_MAX),
        (
            "least tasks, first day and last",
            f"{first.tasks} and {last.tasks}",
            "no more",
            last.tasks <= first.tasks,
        ),
        (
            "least files, first day and last",
            f"{first.files} and {last.files}",
            f"<= {FILES_MORE_MAX} more",
            last.files <= first.files + FILES_MORE_MAX,
        ),
        ("event-loop lag p50", f"{figures.lag_ms_p50:.1f} ms", "", True),
        (
            "  p99",
            f"{figures.lag_ms_p99:.1f} ms",
            "< 20 ms",
            figures.lag_ms_p99 < LAG_P99_MS_MAX,
        ),
        ("  worst", f"{figures.lag_ms_max:.0f} ms", "", True),
        ("  p99 of a process that idles", f"{figures.machine_ms_p99:.1f} ms", "", True),
        ("bars folded", f"{figures.bars:,} in {figures.seconds:.0f} s", "", True),
        ("  a second", f"{figures.bars / figures.seconds:,.0f}", "", True),
        ("trades", f"{figures.trades:,}", "> 0", figures.trades > 0),
        ("scrapes", f"{figures.scrapes}", "> 0", figures.scrapes > 0),
        ("journal", f"{journal / 1e6:.0f} MB", "", True),
        ("  a bar", f"{journal / figures.bars:.0f} bytes", "", True),
    ]


def main() -> int:
    """Print the table, or with ``--json`` the figures; 1 when a bar is missed."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in asdict(Plan()).items():
        reader.add_argument(f"--{name}", type=int, default=default)
    reader.add_argument("--json", action="store_true")
    given = vars(reader.parse_args())
    as_json = given.pop("json")
    plan = Plan(**given)
    figures = soak(plan)
    rows = table(plan, figures)
    if as_json:
        print(json.dumps({**asdict(figures), "growth": figures.growth}, indent=1))
    else:
        print(f"{plan.days} days of {plan.minutes}-minute bars, {plan.instruments} instruments")
        for what, measured, bar, met in rows:
            print(f"{what:<34}{measured:>26}  {bar:<9}{'' if met else 'MISSED'}".rstrip())
    return int(not all(met for *_, met in rows))


if __name__ == "__main__":
    sys.exit(main())
