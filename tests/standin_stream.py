"""What the stand-ins of market data share: a websocket and HTTP on the loopback, and the faults.

A stand-in owns its clock and moves it as fast as asked. What is said on the two ports is its own;
what lines and servers do to their clients is the same at every venue, and is done here.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


class Fault(StrEnum):
    """What can be done to a client: on the stream, from TOO_MANY on to a request."""

    SILENT = "silent"
    HEARTBEATS = "heartbeats only"
    HALF_OPEN = "half open"
    CLOSE = "close"
    OVERFLOW = "1008"
    ABORT = "abort"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out of order"
    LOST = "lost"
    LATE = "late"
    MALFORMED = "malformed"
    STALE = "stale slot"
    TOO_MANY = "429"
    SERVER_ERROR = "500"
    DROPPED = "dropped"
    NOT_JSON = "not json"
    TRUNCATED = "truncated"
    FORBIDDEN = "403"


CUTS = (
    Fault.SILENT,
    Fault.HEARTBEATS,
    Fault.HALF_OPEN,
    Fault.CLOSE,
    Fault.OVERFLOW,
    Fault.ABORT,
)
REQUEST_FAULTS = (Fault.TOO_MANY, Fault.SERVER_ERROR, Fault.DROPPED, Fault.NOT_JSON)
_STATUSES = {Fault.TOO_MANY: 429, Fault.SERVER_ERROR: 500, Fault.FORBIDDEN: 403}
_PAGE = b"<html>a proxy's page</html>"


def never() -> Fault | None:
    return None


@dataclass(eq=False)
class Client:
    """One connection: what it subscribed to, and what is being done to it."""

    socket: ServerConnection
    wanted: set[tuple[str, str]] = field(default_factory=set)
    muted: bool = False
    beating: bool = False
    held: dict[tuple[str, str], str] = field(default_factory=dict)


class StandinStream:
    """``stream_url`` and ``url`` hold while ``open`` is entered; ``play`` moves the time.

    ``stream_fault`` is asked before each message to each client, ``request_fault`` before each
    answer. ``pause_s`` is real time between ticks.
    """

    garbage: tuple[str, ...] = ()
    retry_after = "0"

    def __init__(
        self,
        now: int,
        end: int,
        *,
        pause_s: float,
        stream_fault: Callable[[], Fault | None],
        request_fault: Callable[[], Fault | None],
    ) -> None:
        self.now, self.end, self.pause_s = now, end, pause_s
        self.stream_fault, self.request_fault = stream_fault, request_fault
        self.clients: list[Client] = []
        self.requests: list[Any] = []
        self.connections = self.done = 0
        self.stream_url = self.url = ""
        # set once a client follows everything, and whenever one has left
        self.listened, self.left = anyio.Event(), anyio.Event()
        self._tasks: TaskGroup | None = None

    def now_ms(self) -> int:
        return self.now

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Serve both ports of the loopback until left; no connection survives."""
        server = serve(self._talk, "127.0.0.1", 0, ping_interval=None, close_timeout=0.05)
        async with server as stream, anyio.create_task_group() as tasks:
            self._tasks = tasks
            http = await asyncio.start_server(self._answer_all, "127.0.0.1", 0)
            self.stream_url = f"ws://127.0.0.1:{stream.sockets[0].getsockname()[1]}/ws"
            self.url = f"http://127.0.0.1:{http.sockets[0].getsockname()[1]}"
            try:
                yield self
            finally:
                http.close()
                for client in list(self.clients):
                    client.socket.transport.abort()
                tasks.cancel_scope.cancel()

    async def play(self, until_ms: int | None = None) -> None:
        """Tick through the market once someone listens; afterwards the clock stands still."""
        await self.listened.wait()
        until_ms = self.end if until_ms is None else until_ms
        while self.now < until_ms:
            await self.tick()
            await anyio.sleep(self.pause_s)

    async def tick(self) -> None:
        """Move to the next tick, and tell every client."""
        raise NotImplementedError

    # -- the stream

    async def _hear(self, client: Client, said: dict[str, Any]) -> None:
        """Answer one message of a client."""
        raise NotImplementedError

    def _before(self, fault: Fault | None, name: str) -> list[str]:
        """What a fault puts before a message about ``name``."""
        return [self.garbage[self.done % len(self.garbage)]] if fault is Fault.MALFORMED else []

    async def _talk(self, socket: ServerConnection) -> None:
        client = Client(socket)
        self.clients.append(client)
        self.connections += 1
        try:
            async for text in socket:
                await self._hear(client, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self.clients.remove(client)
            self.left.set()

    async def _tell(self, kind: str, name: str, message: str) -> None:
        for client in list(self.clients):
            if (kind, name) in client.wanted:
                with suppress(ConnectionClosed):
                    await self._tell_one(client, kind, name, message)

    async def _tell_one(self, client: Client, kind: str, name: str, message: str) -> None:
        if client.muted:
            if client.beating:
                await client.socket.send('{"channel":"heartbeat"}')
            return
        fault = self._count(self.stream_fault())
        if fault in CUTS:
            await self._cut(client, fault)
            return
        if fault is Fault.LOST:
            return
        if fault is Fault.OUT_OF_ORDER and (kind, name) not in client.held:
            client.held[kind, name] = message
            return
        before = self._before(fault, name)
        after = [message] if fault is Fault.DUPLICATE else []
        if (kind, name) in client.held:
            after.append(client.held.pop((kind, name)))
        for text in (*before, message, *after):
            await client.socket.send(text)

    async def _cut(self, client: Client, fault: Fault | None) -> None:
        client.muted, client.beating = True, fault is Fault.HEARTBEATS
        assert self._tasks is not None
        if fault is Fault.HALF_OPEN:
            client.socket.transport.pause_reading()
        elif fault is Fault.ABORT:
            client.socket.transport.abort()
        elif fault is Fault.CLOSE:
            self._tasks.start_soon(client.socket.close)
        elif fault is Fault.OVERFLOW:
            self._tasks.start_soon(client.socket.close, 1008, "Buffer overflow")

    def _count(self, fault: Fault | None) -> Fault | None:
        self.done += fault is not None
        return fault

    # -- requests

    def _heard(self, head: str, body: bytes) -> Any:
        """What was asked, as it is kept in ``requests``."""
        raise NotImplementedError

    def _response(self, asked: Any, head: str, fault: Fault | None) -> bytes:
        """The answer where no fault stands before it."""
        raise NotImplementedError

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                asked = self._heard(head, await reader.readexactly(_length(head)))
                self.requests.append(asked)
                fault = self._count(self.request_fault())
                if fault is Fault.DROPPED:
                    return
                writer.write(self._failure(fault) or self._response(asked, head, fault))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _failure(self, fault: Fault | None) -> bytes | None:
        if fault is Fault.NOT_JSON:
            return self._http(200, _PAGE)
        if fault not in _STATUSES:
            return None
        more = f"Retry-After: {self.retry_after}\r\n" if fault is Fault.TOO_MANY else ""
        return self._http(_STATUSES[fault], b"null", more)

    def _http(self, status: int, body: bytes, more: str = "") -> bytes:
        kind = "text/html" if body is _PAGE else "application/json"
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"Date: {formatdate(self.now // 1000, usegmt=True)}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        )
        return head.encode() + body


def _length(head: str) -> int:
    """The length of a request's body; 0 where it has none."""
    lines = head.lower().split("\r\n")
    told = (line.split(":")[1] for line in lines if line.startswith("content-length:"))
    return int(next(told, "0"))
