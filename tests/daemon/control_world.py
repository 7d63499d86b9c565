"""The API of a made-up desk on a real socket, and ways to knock at it that no client allows."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from anyio.from_thread import start_blocking_portal

from core.errors import UnknownName
from daemon.control.api import make_app
from daemon.control.auth import Tokens
from daemon.control.desk import Order
from daemon.control.guard import Limits
from daemon.control.serving import serve

TOKEN = "planted-control-token-9f3c"
READ = "planted-read-token-71aa"
BOOKS = ("trend@SOL-PERP", "e3@BTC-PERP")
PLENTY = Limits(per_minute=60_000, burst=10_000)


@dataclass
class FakeDesk:
    """Answers plainly, and remembers the orders it was given."""

    heard: list[Order] = field(default_factory=list)
    fails: Callable[[], Any] | None = None
    seconds: float = 0.0
    well: bool = True

    def status(self) -> dict[str, Any]:
        rows = [{"instrument": "SOL-PERP", "price": 142.5, "bar_ts": 1_746_316_800_000}]
        told = {"mode": "active", "equity": 10_123.45, "seq": 7, "instruments": rows}
        return {**told, "last_command": self.commands(1)[0]}

    def positions(self) -> list[dict[str, Any]]:
        flat = {"entry": None, "price": 1.5, "unrealised": 0.0, "target": 0.0}
        held = {"entry": 141.0, "price": 142.5, "unrealised": 3.0, "target": 1.0}
        return [
            {"book": BOOKS[0], "quantity": 2.0, **held},
            {"book": BOOKS[1], "quantity": 0.0, **flat},
        ]

    def orders(self) -> list[dict[str, Any]]:
        return []

    def decisions(self, limit: int) -> list[dict[str, Any]]:
        return [{"seq": k} for k in range(limit)]

    def trades(self, limit: int) -> list[dict[str, Any]]:
        row = {"ts": 1_746_316_800_000, "book": BOOKS[0], "quantity": 2.0, "entry": 141.0}
        return [{**row, "price": 142.5, "net": 2.75, "exit": "signal", "command": None}][:limit]

    def commands(self, limit: int) -> list[dict[str, Any]]:
        row = {"seq": 5, "ts": 1_746_316_800_000, "word": "close", "book": BOOKS[0]}
        return [{**row, "who": "ann at 127.0.0.1", "reason": "delisted tomorrow"}][:limit]

    def metrics_text(self) -> bytes:
        return b"lockstep_up 1\n"

    def ready(self) -> bool:
        return self.well

    def healthy(self) -> bool:
        return self.well

    async def command(self, order: Order) -> int:
        await anyio.sleep(self.seconds)
        if self.fails is not None:
            raise self.fails()
        if order.book is not None and order.book not in BOOKS:
            raise UnknownName("book", order.book, BOOKS)
        self.heard.append(order)
        return 40 + len(self.heard)


@contextmanager
def served(
    desk: FakeDesk, limits: Limits = PLENTY, tokens: Tokens | None = None, **more: Any
) -> Iterator[int]:
    """The port of the desk's API on loopback, in a thread of its own."""
    app = make_app(desk, tokens or Tokens(TOKEN, READ), limits, **more)
    with start_blocking_portal() as portal:
        future, port = portal.start_task(serve, app, "127.0.0.1", 0)
        try:
            yield port
        finally:
            future.cancel()


@contextmanager
def caller(port: int, token: str | None = TOKEN) -> Iterator[httpx.Client]:
    """A client with a token."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    base = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=20) as client:
        yield client


def raw(port: int, text: str | bytes, *, seconds: float = 5.0) -> bytes:
    """What the server answers to these very bytes, until it closes or falls silent."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(text.encode() if isinstance(text, str) else text)
        with suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65_536):
                said += part
    return said


def asked(port: int, target: str, *headers: str, method: str = "GET") -> int:
    """The status that a raw request for a target gets."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    answer = raw(port, "\r\n".join([*lines, "", ""]))
    return int(answer.split(b" ", 2)[1])
