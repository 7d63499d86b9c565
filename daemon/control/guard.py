"""What stands before every route: path, token, rate and size, in an order that favours a halt.

It works on the bare ASGI messages, so a refused request costs the loop next to nothing: no body is
read for a stranger and none is parsed before its size is known. Strangers, readers and orders have
separate rates, so neither a flood without a token nor a busy dashboard can hold up an order.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from anyio import current_time, fail_after
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daemon.control.auth import Role, Tokens, is_loopback
from daemon.control.rate import Buckets

OPEN = ("/health", "/ready")
READS = ("/status", "/positions", "/orders", "/decisions", "/trades", "/commands", "/metrics")
COMMAND = "/command"
PATHS = frozenset((*OPEN, *READS, COMMAND))
HEADER_BYTES_MAX = 16_384
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of the API: requests by one caller, the size of a body, how long we wait for it and for the
    loop to take an order, and whether /metrics is open on loopback."""

    per_minute: float = 240.0
    burst: int = 60
    body_bytes_max: int = 16_384
    body_seconds_max: float = 5.0
    command_seconds_max: float = 10.0
    metrics_open: bool = False


class Turned(Exception):
    """A request that goes no further: its status, why, and headers."""

    def __init__(self, status: int, why: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers

    async def answer(self, send: Send) -> None:
        """Tell the caller; the connection ends, so that what he still sends is not read."""
        body = json.dumps({"detail": self.why}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Guard:
    """The API as it is served: an ASGI app that lets through what may pass.

    Without tokens only the open paths answer. ``tally`` is told why a request was turned away, by
    one of a closed set of words, for a metric.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens | None,
        limits: Limits,
        *,
        clock: Callable[[], float] = current_time,
        tally: Callable[[int], None] = lambda _status: None,
    ) -> None:
        self._app, self.tokens, self._limits, self._tally = app, tokens, limits, tally
        self._buckets = Buckets(limits.per_minute, limits.burst, clock)

    def become(self, other: "Guard") -> None:
        """Ask for the tokens of another guard, and keep to its limits, from the next request on."""
        self.tokens, self._limits, self._buckets = other.tokens, other._limits, other._buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        hardened = _hardened(send)
        try:
            self._admit(scope)
            body = await self._body(scope, receive)
        except Turned as turned:
            self._tally(turned.status)
            await turned.answer(hardened)
        else:
            await self._app(scope, _replayed(body, receive), hardened)

    def _admit(self, scope: Scope) -> None:
        """Raise Turned unless the caller may ask this."""
        self._check_headers(scope)
        path = scope["path"] if scope.get("raw_path") == scope["path"].encode() else ""
        role = self.tokens.role(_all(scope, b"authorization")) if self.tokens else Role.STRANGER
        orders = role is Role.OPERATOR and path == COMMAND
        wait = self._buckets.wait((_address(scope), role, orders))
        if wait > 0.0:
            seconds = str(math.ceil(wait))
            why = f"too many requests: try again in {seconds} s"
            raise Turned(429, why, (b"retry-after", seconds.encode()))
        is_open = path in OPEN or (path == "/metrics" and self._metrics_are_open(scope))
        if role is Role.STRANGER and not is_open:
            raise Turned(401, "a valid token is needed", (b"www-authenticate", b"Bearer"))
        if path not in PATHS:
            raise Turned(404, "there is no such path")
        method = "POST" if path == COMMAND else "GET"
        if scope["method"] != method:
            raise Turned(405, f"only {method} goes here", (b"allow", method.encode()))
        if path == COMMAND and role is not Role.OPERATOR:
            raise Turned(403, "this token may look, but not command")

    def _metrics_are_open(self, scope: Scope) -> bool:
        """To this machine itself: not through a proxy on it, nor to a page that a browser on it
        took from elsewhere under a name that now points here."""
        host = b"".join(_all(scope, b"host")).decode("latin-1")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        near = is_loopback(_address(scope)) and is_loopback(name.strip("[]"))
        return self._limits.metrics_open and near and not any(_all(scope, *FORWARDED))

    @staticmethod
    def _check_headers(scope: Scope) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES_MAX:
            raise Turned(431, f"headers have at most {HEADER_BYTES_MAX} bytes")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, or Turned as soon as it is known to be too large or too slow."""
        most = self._limits.body_bytes_max
        too_large = Turned(413, f"a body has at most {most} bytes")
        if any(not _fits(length, most) for length in _all(scope, b"content-length")):
            raise too_large
        body = b""
        try:
            with fail_after(self._limits.body_seconds_max):
                async for chunk in _chunks(receive):
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Turned(408, "the body took too long") from None
        return body


def _fits(length: bytes, most: int) -> bool:
    return length.isdigit() and len(length) < 20 and int(length) <= most


async def _chunks(receive: Receive) -> Any:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Turned(400, "the caller left")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body that was read, then what comes after it."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    return replay


def _hardened(send: Send) -> Send:
    """A ``send`` that adds the headers every answer has."""

    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return hardened


def _all(scope: Scope, *names: bytes) -> list[bytes]:
    given: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value for name, value in given if name in names]


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
