"""What both stand-in services share: HTTP over real sockets, what can go wrong in it, and counts.

It works beneath any HTTP library, because most of the faults are ones no library would commit.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any


class Fault(StrEnum):
    """What can be done to a caller: the first ones to the connection, the rest to the reply."""

    HANG = "hang"
    DRIP = "slow drip"
    RESET = "connection reset"
    TRUNCATED = "truncated stream"
    LENGTH_TOO_LONG = "content-length beyond the body"
    LENGTH_TOO_SHORT = "content-length within the body"
    ENDLESS = "endless body"
    TOO_MANY = "429"
    SERVER_ERROR = "500"
    BAD_REQUEST = "400"
    REDIRECT = "302"
    BODY_NOT_JSON = "the body is not JSON"
    BODY_STRANGE = "the body is JSON of another kind"
    INVALID_JSON = "invalid JSON"
    WRONG_SCHEMA = "wrong schema"
    NAN = "NaN"
    INFINITE = "1e999"
    PROSE = "extra prose"
    FENCED = "markdown around it"
    TWICE = "a key twice"
    OUT_OF_RANGE = "out of range"
    TOO_LONG = "too long"
    EXTRA_KEY = "a key too many"
    NO_SUCH_EVIDENCE = "evidence that was not offered"
    DEEP = "nested without end"
    EMPTY = "empty"
    SURROGATE = "half a character"
    CUT = "cut at the most tokens"


GOOD = '{"side":"long","confidence":0.7,"rationale":"it rises","evidence":[]}'
CONTENTS = {
    Fault.INVALID_JSON: GOOD[:-9],
    Fault.WRONG_SCHEMA: '{"decision":"buy","confidence":0.7}',
    Fault.NAN: GOOD.replace("0.7", "NaN"),
    Fault.INFINITE: GOOD.replace("0.7", "1e999"),
    Fault.PROSE: f"Sure. Here it is: {GOOD}",
    Fault.FENCED: f"```json\n{GOOD}\n```",
    Fault.TWICE: GOOD.replace("{", '{"side":"short",', 1),
    Fault.OUT_OF_RANGE: GOOD.replace("0.7", "1.7"),
    Fault.TOO_LONG: GOOD.replace("it rises", "x" * 100_000),
    Fault.EXTRA_KEY: GOOD.replace("{", '{"size":1000,', 1),
    Fault.NO_SUCH_EVIDENCE: GOOD.replace("[]", '["news-9"]'),
    Fault.DEEP: "[" * 50_000,
    Fault.EMPTY: "",
    Fault.SURROGATE: GOOD.replace("it rises", "\ud800"),
}


@dataclass(eq=False)
class StandinHttp:
    """``url`` holds while ``open`` is entered. ``faults`` are met by one request each, in turn.

    ``model`` writes the reply to a request's body; ``think_s`` is how long it takes. Counted are
    the requests with their times, and how many were under way at once at most.
    """

    model: Callable[[dict[str, Any]], str] = lambda _body: GOOD
    faults: Iterator[Fault | None] = field(default_factory=lambda: iter(()))
    think_s: float = 0.0
    retry_after: str = "0"
    requests: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)
    busy: int = 0
    busy_max: int = 0
    endless_bytes: int = 0
    url: str = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["StandinHttp"]:
        """Serve a port of the loopback until left."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.asked = asyncio.Event()

    def answer(self, path: str, body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        """Status and body of the protocol; a list is streamed, one JSON a line."""
        raise NotImplementedError

    def content(self, body: dict[str, Any], fault: Fault | None) -> str:
        """What the model writes."""
        return CONTENTS[fault] if fault in CONTENTS else self.model(body)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its response; whether the connection goes on."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        head = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        raw = await reader.readexactly(int(head.get("content-length", 0)))
        body = json.loads(raw) if raw else {}
        fault = next(self.faults, None)
        self.requests.append(body)
        self.asked.set()
        self.heads.append(head)
        self.arrivals_s.append(asyncio.get_running_loop().time())
        self.busy += 1
        self.busy_max = max(self.busy, self.busy_max)
        try:
            if self.think_s:
                await asyncio.sleep(self.think_s)
            status, reply = self._reply(first.split(" ")[1], body, fault)
            return await self._write(writer, status, reply, fault)
        finally:
            self.busy -= 1

    def _reply(self, path: str, body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        statuses = {Fault.TOO_MANY: 429, Fault.SERVER_ERROR: 500, Fault.BAD_REQUEST: 400}
        if fault in statuses:
            return statuses[fault], {"error": {"message": f"stand-in: {fault.value}"}}
        if fault is Fault.REDIRECT:
            return 302, {}
        if fault is Fault.BODY_STRANGE:
            return 200, {"weather": "fine"}
        return self.answer(path, body, fault)

    async def _write(
        self, writer: asyncio.StreamWriter, status: int, reply: Any, fault: Fault | None
    ) -> bool:
        if fault is Fault.RESET:
            writer.transport.abort()
            return False
        if fault is Fault.HANG:
            await asyncio.sleep(60)
            return False
        stream = isinstance(reply, list)
        text = "".join(json.dumps(part) + "\n" for part in reply) if stream else json.dumps(reply)
        payload = b"<html>" if fault is Fault.BODY_NOT_JSON else text.encode()
        wrong = {Fault.LENGTH_TOO_LONG: 10, Fault.LENGTH_TOO_SHORT: -10}.get(fault or Fault.CUT, 0)
        chunked = stream or fault in (Fault.TRUNCATED, Fault.ENDLESS)
        length = (
            "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(payload) + wrong}"
        )
        more = f"Retry-After: {self.retry_after}\r\n" if status == 429 else ""
        more += "Location: /elsewhere\r\n" if status == 302 else ""
        writer.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Date: Sun, 04 May 2025 00:00:00 GMT\r\n{length}\r\n{more}\r\n".encode()
        )
        if fault is Fault.DRIP:
            for at in range(len(payload)):
                writer.write(payload[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0.05)
        while fault is Fault.ENDLESS:
            writer.write(b"10000\r\n%b\r\n" % (b" " * 0x10000))
            self.endless_bytes += 0x10000
            await writer.drain()
        if chunked:
            pieces = payload.splitlines(keepends=True) if stream else [payload[:20], payload[20:]]
            for piece in pieces[: 1 if fault is Fault.TRUNCATED else None]:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if fault is not Fault.TRUNCATED:
                writer.write(b"0\r\n\r\n")
        else:
            writer.write(payload)
        await writer.drain()
        return not (fault is Fault.TRUNCATED or wrong)
