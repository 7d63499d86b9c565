"""A stand-in for Hyperliquid: the same protocol over real sockets, on a clock it owns.

It plays candles tick by tick, as fast as asked, and does to its clients on request what venues do:
falls silent, vanishes, closes, repeats, reorders, lies and refuses.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import anyio
from anyio.abc import TaskGroup
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from markets.feeds.closing import Candle
from markets.history import History

HOUR = 3_600_000
SETTLED_AFTER_MS = 76
TICKS = (0.1, 0.9)
PAGE_MAX = 5_000
GARBAGE = (
    "{",
    "[]",
    "null",
    '"candle"',
    '{"channel":"candle"}',
    '{"channel":"candle","data":{"t":"x"}}',
    '{"channel":"weather","data":{}}',
    '{"channel":["candle"],"data":[]}',
    '{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[{"px":"2"}],[]]}}',
    "[" * 100_000,
)


class Fault(StrEnum):
    """What can be done to a client: the first eight on the stream, the rest to a request."""

    SILENT = "silent"
    HALF_OPEN = "half open"
    CLOSE = "close"
    ABORT = "abort"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out of order"
    LATE = "late"
    MALFORMED = "malformed"
    TOO_MANY = "429"
    SERVER_ERROR = "500"
    DROPPED = "dropped"
    NOT_JSON = "not json"


STREAM_FAULTS = tuple(Fault)[:8]
REQUEST_FAULTS = tuple(Fault)[8:]


def never() -> Fault | None:
    return None


def candles_of(history: History) -> list[Candle]:
    """The bars of a history as the venue would tell them; each grows in as many steps as ticks."""
    return [
        Candle(
            int(bar["ts_event"]),
            *(float(bar[name]) for name in ("open", "high", "low", "close", "volume")),
            trades=len(TICKS),
        )
        for bar in history.bars
    ]


def grown(candle: Candle, ticks: int) -> Candle:
    """A candle as it stood after so many of its ticks."""
    if ticks >= len(TICKS):
        return candle
    share = ticks / len(TICKS)
    return candle._replace(
        high=max(candle.open, candle.open + (candle.high - candle.open) * share),
        low=min(candle.open, candle.open + (candle.low - candle.open) * share),
        close=candle.open,
        volume=candle.volume * share,
        trades=ticks,
    )


@dataclass(eq=False)
class Client:
    """One connection: what it subscribed to, and what is being done to it."""

    socket: ServerConnection
    wanted: set[tuple[str, str]] = field(default_factory=set)
    muted: bool = False
    held: dict[tuple[str, str], str] = field(default_factory=dict)


class StandinExchange:
    """``stream_url`` and ``info_url`` hold while ``open`` is entered; ``play`` moves the time.

    ``stream_fault`` is asked before each message to each client, ``request_fault`` before each
    answer. ``pause_s`` is real time between ticks, of which a bar has two.
    """

    def __init__(
        self,
        candles: Mapping[str, Sequence[Candle]],
        interval_ms: int = 60_000,
        *,
        first: int = 0,
        pause_s: float = 0.0005,
        stream_fault: Callable[[], Fault | None] = never,
        request_fault: Callable[[], Fault | None] = never,
        retry_after: str = "0",
    ) -> None:
        self.candles, self.interval_ms = candles, interval_ms
        self.pause_s, self.retry_after = pause_s, retry_after
        self.stream_fault, self.request_fault = stream_fault, request_fault
        self.by_open = {
            coin: {candle.open_ms: candle for candle in rows} for coin, rows in candles.items()
        }
        longest = max(candles.values(), key=len)
        self.now, self.end = longest[first].open_ms, longest[-1].open_ms + interval_ms
        self.clients: list[Client] = []
        self.requests: list[dict[str, Any]] = []
        self.pings = self.connections = self.done = 0
        self.stream_url = self.info_url = ""
        self.settled_after_ms = SETTLED_AFTER_MS
        # set once a client follows everything, and whenever one has left
        self.listened, self.left = anyio.Event(), anyio.Event()
        self._tasks: TaskGroup | None = None

    def now_ms(self) -> int:
        return self.now

    @asynccontextmanager
    async def open(self) -> AsyncIterator["StandinExchange"]:
        """Serve both ports of the loopback until left; no connection survives."""
        server = serve(self._talk, "127.0.0.1", 0, ping_interval=None, close_timeout=0.05)
        async with server as stream, anyio.create_task_group() as tasks:
            self._tasks = tasks
            info = await asyncio.start_server(self._answer_all, "127.0.0.1", 0)
            self.stream_url = f"ws://127.0.0.1:{stream.sockets[0].getsockname()[1]}/ws"
            self.info_url = f"http://127.0.0.1:{info.sockets[0].getsockname()[1]}"
            try:
                yield self
            finally:
                info.close()
                for client in list(self.clients):
                    client.socket.transport.abort()
                tasks.cancel_scope.cancel()

    async def play(self, until_ms: int | None = None) -> None:
        """Tick through the candles once someone listens; afterwards the clock stands still."""
        await self.listened.wait()
        until_ms = self.end if until_ms is None else until_ms
        while self.now < until_ms:
            await self.tick()
            await anyio.sleep(self.pause_s)

    async def tick(self) -> None:
        """Move to the next tick, and tell every client."""
        open_ms = self.now - self.now % self.interval_ms
        stops = [open_ms + int(share * self.interval_ms) for share in TICKS]
        stops.append(open_ms + self.interval_ms + stops[0] - open_ms)
        self.now = next(stop for stop in stops if stop > self.now)
        for coin in self.candles:
            for kind in ("candle", "l2Book", "activeAssetCtx"):
                message = self.message(kind, coin)
                if message is not None:
                    await self._tell(kind, coin, message)

    # -- what is true now

    def standing(self, coin: str, open_ms: int) -> Candle | None:
        """A candle as it stands; None before its first tick, or if it never is."""
        candle = self.by_open[coin].get(open_ms)
        if candle is None:
            return None
        if self.now >= open_ms + self.interval_ms:
            return candle
        ticks = sum(self.now >= open_ms + int(at * self.interval_ms) for at in TICKS)
        return grown(candle, ticks) if ticks else None

    def message(self, kind: str, coin: str) -> str | None:
        """The message of a channel now, or None where there is nothing to tell."""
        candle = self.standing(coin, self.now - self.now % self.interval_ms)
        if candle is None:
            return None
        if kind == "candle":
            return self.candle_message(coin, candle)
        price = candle.close
        if kind == "l2Book":
            return _message(
                kind, coin=coin, time=self.now, levels=[_side(price, -1), _side(price, 1)]
            )
        texts = {"markPx": price, "oraclePx": price * 1.0001, "midPx": price}
        texts |= {"openInterest": 1_000.0, "funding": self.rate(self.now), "premium": 0.0}
        return _message(kind, coin=coin, ctx={name: repr(text) for name, text in texts.items()})

    def candle_message(self, coin: str, candle: Candle) -> str:
        return json.dumps({"channel": "candle", "data": self.row(coin, candle)})

    def row(self, coin: str, candle: Candle) -> dict[str, Any]:
        """A candle in the venue's own words."""
        times = {"t": candle.open_ms, "T": candle.open_ms + self.interval_ms - 1}
        prices = {name: repr(getattr(candle, field)) for name, field in _CELLS.items()}
        return {
            **times,
            "s": coin,
            "i": f"{self.interval_ms // 60_000}m",
            **prices,
            "n": candle.trades,
        }

    def rate(self, time_ms: int) -> float:
        """The funding rate of an hour: any number that tells the hours apart."""
        return (time_ms // HOUR % 100 + 1) * 1e-6

    # -- the stream

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

    async def _hear(self, client: Client, said: dict[str, Any]) -> None:
        if said["method"] == "ping":
            self.pings += 1
            await client.socket.send('{"channel":"pong"}')
            return
        wanted = said["subscription"]
        kind, coin = wanted["type"], wanted["coin"]
        if coin not in self.candles:
            await client.socket.send(json.dumps({"channel": "error", "data": f"Invalid {said}"}))
            return
        client.wanted.add((kind, coin))
        if len(client.wanted) == 3 * len(self.candles):
            self.listened.set()
        await client.socket.send(json.dumps({"channel": "subscriptionResponse", "data": said}))
        message = self.message(kind, coin)
        if message is not None and not client.muted:
            await client.socket.send(message)

    async def _tell(self, kind: str, coin: str, message: str) -> None:
        for client in list(self.clients):
            if (kind, coin) in client.wanted and not client.muted:
                with suppress(ConnectionClosed):
                    await self._tell_one(client, kind, coin, message)

    async def _tell_one(self, client: Client, kind: str, coin: str, message: str) -> None:
        fault = self.stream_fault()
        self.done += fault is not None
        if fault in (Fault.SILENT, Fault.HALF_OPEN, Fault.CLOSE, Fault.ABORT):
            await self._cut(client, fault)
            return
        if fault is Fault.OUT_OF_ORDER and (kind, coin) not in client.held:
            client.held[kind, coin] = message
            return
        before = self._late(coin) if fault is Fault.LATE else []
        if fault is Fault.MALFORMED:
            before.append(GARBAGE[self.done % len(GARBAGE)])
        after = [message] if fault is Fault.DUPLICATE else []
        if (kind, coin) in client.held:
            after.append(client.held.pop((kind, coin)))
        for text in (*before, message, *after):
            await client.socket.send(text)

    def _late(self, coin: str) -> list[str]:
        """A candle closed long ago again, altered every other time."""
        open_ms = self.now - self.now % self.interval_ms - 2 * self.interval_ms
        candle = self.by_open[coin].get(open_ms)
        if candle is not None and self.done % 2:
            candle = candle._replace(close=candle.low, volume=candle.volume + 1, trades=99)
        return [] if candle is None else [self.candle_message(coin, candle)]

    async def _cut(self, client: Client, fault: Fault) -> None:
        client.muted = True
        if fault is Fault.HALF_OPEN:
            client.socket.transport.pause_reading()
        elif fault is Fault.ABORT:
            client.socket.transport.abort()
        elif fault is Fault.CLOSE:
            assert self._tasks is not None
            self._tasks.start_soon(client.socket.close)

    # -- /info

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                body = json.loads(await reader.readexactly(length))
                self.requests.append(body)
                fault = self.request_fault()
                self.done += fault is not None
                if fault is Fault.DROPPED:
                    return
                writer.write(self._response(body, fault))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _response(self, body: dict[str, Any], fault: Fault | None) -> bytes:
        if fault is Fault.TOO_MANY:
            return self._http(429, b"null", f"Retry-After: {self.retry_after}\r\n")
        if fault is Fault.SERVER_ERROR:
            return self._http(500, b"null")
        if fault is Fault.NOT_JSON:
            return self._http(200, b"<html>")
        answers = {
            "meta": self._meta,
            "candleSnapshot": self._snapshot,
            "fundingHistory": self._settled,
        }
        try:
            answer = answers[body["type"]](body)
        except KeyError:
            return self._http(422, b"Failed to deserialize the JSON body into the target type")
        return self._http(200, json.dumps(answer).encode())

    def _http(self, status: int, body: bytes, more: str = "") -> bytes:
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"Date: {formatdate(self.now // 1000, usegmt=True)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        )
        return head.encode() + body

    def _meta(self, _body: dict[str, Any]) -> Any:
        return {
            "universe": [
                {"name": coin, "szDecimals": 5, "maxLeverage": 50, "marginTableId": 50}
                for coin in self.candles
            ]
        }

    def _snapshot(self, body: dict[str, Any]) -> Any:
        asked = body["req"]
        assert asked["interval"] == f"{self.interval_ms // 60_000}m"
        coin, since_ms, until_ms = asked["coin"], asked["startTime"], asked["endTime"]
        first_ms = -(-since_ms // self.interval_ms) * self.interval_ms
        opens = range(first_ms, min(until_ms, self.now) + 1, self.interval_ms)
        rows = [self.standing(coin, open_ms) for open_ms in opens]
        return [self.row(coin, row) for row in rows if row is not None][-PAGE_MAX:]

    def _settled(self, body: dict[str, Any]) -> Any:
        first_ms = -(-body["startTime"] // HOUR) * HOUR
        stamps = [hour + self.settled_after_ms for hour in range(first_ms, self.now, HOUR)]
        return [
            {"coin": body["coin"], "fundingRate": repr(self.rate(at)), "premium": "0.0", "time": at}
            for at in stamps
            if at <= min(body["endTime"], self.now)
        ]


_CELLS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}


def _message(channel: str, **data: Any) -> str:
    return json.dumps({"channel": channel, "data": data})


def _side(price: float, direction: int) -> list[dict[str, Any]]:
    return [
        {"px": repr(price * (1 + direction * 1e-4 * level)), "sz": repr(float(level)), "n": level}
        for level in range(1, 21)
    ]
