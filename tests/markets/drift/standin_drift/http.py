"""HTTP/1.1 as far as JSON-RPC needs it, and the ways in which a provider's front door fails."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from standin_drift.desk import Desk
from standin_drift.rpc import Node

HTML = b"<html><body>upstream is not well</body></html>"


class Dropped(Exception):
    """The connection is to end without an answer."""


class Unanswered(Exception):
    """The connection is to stay, and nothing to come."""


class Front:
    """Serves one node; ``/standin/...`` is the desk and never fails on purpose."""

    def __init__(self, node: Node, desk: Desk) -> None:
        self.node, self.desk = node, desk
        self.open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open[task] = writer
        try:
            while True:
                path, body = await request(reader)
                writer.write(await self.respond(path, body))
                await writer.drain()
        except Unanswered:
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError, Dropped):
            pass
        finally:
            del self.open[task]
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def close(self) -> None:
        """Cut every connection and wait until nobody serves it any more."""
        for writer in self.open.values():
            writer.transport.abort()
        if self.open:
            await asyncio.wait(set(self.open))

    async def respond(self, path: str, body: bytes) -> bytes:
        if path.startswith("/standin/"):
            return self.arrange(path.removeprefix("/standin/"), body)
        try:
            asked = json.loads(body)
        except ValueError:
            return response(400, b"not JSON")
        requests = asked if isinstance(asked, list) else [asked]
        methods = [one.get("method", "") for one in requests]
        strike = self.node.strike
        if strike.http("http_timeout", methods):
            raise Unanswered
        if strike.http("http_refused", methods):
            raise Dropped
        for name, status in (("http_429", 429), ("http_500", 500)):
            if strike.http(name, methods):
                return response(status, HTML, "text/html")
        answers = [self.node.answer(one) for one in requests]
        if strike.http("http_lost_answer", methods):
            raise Dropped
        return response(
            200, json.dumps(answers if isinstance(asked, list) else answers[0]).encode()
        )

    def arrange(self, method: str, body: bytes) -> bytes:
        call: Callable[..., Any] | None = getattr(self.desk, method, None)
        if call is None or method.startswith("_"):
            return response(404, b"no such method of the desk")
        said = json.loads(body or b"{}")
        if "values" not in said:
            said = {"args": [], "values": said}
        try:
            answer = call(*said["args"], **said["values"])
        except (AssertionError, KeyError, TypeError) as error:
            return response(400, repr(error).encode())
        return response(200, json.dumps(answer).encode())


async def request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Path and body; a content-encoding is ignored, since driftpy names one it does not use."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    length = 0
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return first.split(" ")[1], await reader.readexactly(length)


def response(status: int, body: bytes, kind: str = "application/json") -> bytes:
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
