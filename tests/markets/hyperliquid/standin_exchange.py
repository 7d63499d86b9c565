"""A stand-in for Hyperliquid: the same protocol over real sockets, on a clock it owns.

It plays candles tick by tick, as fast as asked, and does to its clients on request what venues do:
falls silent, vanishes, closes, repeats, reorders, lies and refuses.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from standin_stream import Client, Fault, StandinStream, never

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


STREAM_FAULTS = (
    Fault.SILENT,
    Fault.HALF_OPEN,
    Fault.CLOSE,
    Fault.ABORT,
    Fault.DUPLICATE,
    Fault.OUT_OF_ORDER,
    Fault.LATE,
    Fault.MALFORMED,
)


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


class StandinExchange(StandinStream):
    """A bar has two ticks."""

    garbage = GARBAGE

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
        self.retry_after = retry_after
        self.by_open = {
            coin: {candle.open_ms: candle for candle in rows} for coin, rows in candles.items()
        }
        longest = max(candles.values(), key=len)
        super().__init__(
            longest[first].open_ms,
            longest[-1].open_ms + interval_ms,
            pause_s=pause_s,
            stream_fault=stream_fault,
            request_fault=request_fault,
        )
        self.pings = 0
        self.settled_after_ms = SETTLED_AFTER_MS

    @property
    def info_url(self) -> str:
        return self.url

    async def tick(self) -> None:
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

    def _before(self, fault: Fault | None, name: str) -> list[str]:
        return self._late(name) if fault is Fault.LATE else super()._before(fault, name)

    def _late(self, coin: str) -> list[str]:
        """A candle closed long ago again, altered every other time."""
        open_ms = self.now - self.now % self.interval_ms - 2 * self.interval_ms
        candle = self.by_open[coin].get(open_ms)
        if candle is not None and self.done % 2:
            candle = candle._replace(close=candle.low, volume=candle.volume + 1, trades=99)
        return [] if candle is None else [self.candle_message(coin, candle)]

    # -- /info

    def _heard(self, head: str, body: bytes) -> Any:
        return json.loads(body)

    def _response(self, asked: Any, head: str, fault: Fault | None) -> bytes:
        answers = {
            "meta": self._meta,
            "candleSnapshot": self._snapshot,
            "fundingHistory": self._settled,
        }
        try:
            answer = answers[asked["type"]](asked)
        except KeyError:
            return self._http(422, b"Failed to deserialize the JSON body into the target type")
        return self._http(200, json.dumps(answer).encode())

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
