"""A scrape of two hundred instruments is rendered beside the loop: no bar waits for it."""

import gc
import socket
import time
from collections.abc import Callable
from typing import Any

import anyio
from anyio import to_thread
from control_world import READ, TOKEN, FakeDesk

from backtest.assemble import BookSetup, Setup, assemble
from core.engine import Book
from core.instrument import Instrument
from daemon.control.api import make_app
from daemon.control.auth import Tokens
from daemon.control.guard import Limits
from daemon.control.serving import serve
from daemon.observe.metrics import Metrics
from markets.feeds.link import Link, Trouble
from risk.limits import Sizing, SizingRule
from strategies.trend import TREND

INSTRUMENTS, BOOKS_EACH = 200, 3
SCRAPES = 6
HELD_MS_MAX = 20.0
REQUEST = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READ}\r\n"


def metrics_of_many() -> Metrics:
    names = [f"C{i}" for i in range(INSTRUMENTS)]
    books = tuple(
        BookSetup(
            book=Book(name=f"{name}.{k}", strategy=TREND, instrument=name),
            sizing=Sizing(rule=SizingRule.NOTIONAL, value=100.0),
        )
        for name in names
        for k in range(BOOKS_EACH)
    )
    setup = Setup(instruments=tuple(Instrument(name=name) for name in names), books=books)
    engine = assemble(setup, dict.fromkeys(names, frozenset({"open", "high", "low", "close"})))
    metrics = Metrics(engine, dict.fromkeys(names, 60_000), feeds=["venue"])
    metrics.follow("venue", Link(time.monotonic), list(Trouble))
    return metrics


def scraped(port: int) -> bytes:
    """One scrape, read with as little work as can be: it shares the interpreter with the loop."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"{REQUEST}Connection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


def held_ms(metrics: Metrics) -> tuple[list[float], bytes]:
    """The longest that the loop was held during each scrape, and the last answer."""
    desk: Any = FakeDesk()
    desk.metrics_text = metrics.exposition
    app = make_app(desk, Tokens(TOKEN, READ), Limits(per_minute=60_000, burst=1_000))
    worst: list[float] = []

    async def scene() -> bytes:
        async with anyio.create_task_group() as group:
            port = await group.start(serve, app, "127.0.0.1", 0)
            answer = await to_thread.run_sync(scraped, port)
            group.start_soon(tick, worst)
            for _ in range(SCRAPES):
                worst.append(0.0)
                answer = await to_thread.run_sync(scraped, port)
            group.cancel_scope.cancel()
        return answer

    gc.collect()
    return worst, anyio.run(scene)


async def tick(worst: list[float]) -> None:
    """Keep in ``worst[-1]`` how late a timer of a millisecond fired."""
    while True:
        due = time.perf_counter() + 0.001
        await anyio.sleep(0.001)
        if worst:
            worst[-1] = max(worst[-1], (time.perf_counter() - due) * 1_000)


def took_ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1_000


def test_a_scrape_of_many_instruments_does_not_hold_the_loop() -> None:
    metrics = metrics_of_many()
    whole_ms = min(took_ms(metrics.exposition) for _ in range(3))
    worst, answer = held_ms(metrics)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body.count(b'instrument="C199"') > 10 * BOOKS_EACH
    # a busy machine may hold up any one scrape, but not each of them
    assert min(worst) < max(HELD_MS_MAX, whole_ms / 5), (worst, whole_ms)
