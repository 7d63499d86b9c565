"""A stand-in for Drift's book server, Data API and record archive, on a clock it owns.

It plays trades as fast as asked, in the dialects of the three (integers and milliseconds in books,
decimals and seconds in trades), and fails on request as such services do: falls silent, beats its
heart over a dead market, vanishes, repeats, reorders, loses, freezes its slot, lies and refuses.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from standin_stream import Client, Fault, StandinStream, never
from websockets.exceptions import ConnectionClosed

from markets.bars import TradeBars
from markets.drift.units import PRICE_PRECISION
from markets.feeds.closing import Candle
from markets.history import History

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
SECONDS = (5, 20, 40, 55)
SLOT_MS = 400
CANDLES_MAX, PAGE = 1_000, 20
SETTLED_AFTER_MS = 7_000
PROGRAM = "dRiftyHA39MWEi3m9aunc5MzRF1JYuBsbn6VPcn33UH"
GARBAGE = (
    "{",
    "[]",
    "null",
    '{"channel":"orderbook_perp_0_grouped_1"}',
    '{"channel":"orderbook_perp_0_grouped_1","data":"{"}',
    '{"channel":"orderbook_perp_0_grouped_1","data":{"bids":[],"asks":[]}}',
    '{"channel":"trades_perp_0","data":{"ts":1,"marketIndex":0}}',
    '{"channel":"weather_perp_0","data":{}}',
    '{"channel":"trades_perp_999","data":"{}"}',
    '{"channel":"trades","error":"Error subscribing to channel"}',
    "[" * 100_000,
)


STREAM_FAULTS = (
    Fault.SILENT,
    Fault.HEARTBEATS,
    Fault.CLOSE,
    Fault.OVERFLOW,
    Fault.ABORT,
    Fault.DUPLICATE,
    Fault.OUT_OF_ORDER,
    Fault.LOST,
    Fault.MALFORMED,
    Fault.STALE,
)


class Fill(NamedTuple):
    """A fill as the chain knows it."""

    record: int
    time_ms: int
    base: float
    quote: float

    @property
    def price(self) -> float:
        return self.quote / self.base


def fills_of(history: History, quiet: Iterable[int] = ()) -> list[Fill]:
    """Four fills a bar that make its open, high, low and close; none in ``quiet`` minutes."""
    left_out, fills = set(quiet), list[Fill]()
    for bar in history.bars:
        if int(bar["ts_event"]) in left_out:
            continue
        base = round(float(bar["volume"]) / 4, 9)
        for second, name in zip(SECONDS, ("open", "high", "low", "close"), strict=True):
            time_ms = int(bar["ts_event"]) + 1_000 * second
            quote = round(float(bar[name]) * base, 6)
            fills.append(Fill(1_000 + len(fills), time_ms, base, quote))
    return fills


def candles_of(fills: Sequence[Fill], interval_ms: int = MINUTE) -> list[Candle]:
    """The bars these fills make."""
    bars = TradeBars(interval_ms)
    made = [bar for fill in fills for bar in bars.push(fill.time_ms, fill.price, fill.base)]
    return [Candle(*bar, trades=0) for bar in (*made, *bars.flush())]


class StandinDlob(StandinStream):
    """``files`` are the archive's, by path; what is not there is forbidden, as the original said.

    ``browser``: the Data API answers only who seems to come from its site.
    """

    garbage = GARBAGE

    def __init__(
        self,
        fills: Mapping[str, Sequence[Fill]],
        *,
        start_ms: int | None = None,
        pause_s: float = 0.0005,
        stream_fault: Callable[[], Fault | None] = never,
        request_fault: Callable[[], Fault | None] = never,
        browser: bool = False,
    ) -> None:
        self.fills, self.browser = fills, browser
        self.markets = {market: at for at, market in enumerate(fills)}
        first = min(rows[0].time_ms for rows in fills.values())
        super().__init__(
            start_ms if start_ms is not None else first - first % MINUTE,
            max(rows[-1].time_ms for rows in fills.values()) // MINUTE * MINUTE + MINUTE,
            pause_s=pause_s,
            stream_fault=stream_fault,
            request_fault=request_fault,
        )
        self.candles = {market: candles_of(rows) for market, rows in fills.items()}
        self.files: dict[str, bytes] = {}
        self.slot_lag = 0

    async def tick(self) -> None:
        """Move to the next time a fill may be, and tell every client."""
        open_ms = self.now - self.now % MINUTE
        stops = [open_ms + 1_000 * second for second in (*SECONDS, 60 + SECONDS[0])]
        before, self.now = self.now, next(stop for stop in stops if stop > self.now)
        for market in self.fills:
            for fill in self.fills[market]:
                if before < fill.time_ms <= self.now:
                    await self._tell("trades", market, self.trade_message(market, fill))
            await self._tell("orderbook", market, self.book_message(market))

    async def say(self, text: str) -> None:
        """Send every client a text as it is."""
        for client in list(self.clients):
            with suppress(ConnectionClosed):
                await client.socket.send(text)

    # -- what is true now

    def price(self, market: str) -> float:
        told = [fill.price for fill in self.fills[market] if fill.time_ms <= self.now]
        return told[-1] if told else self.fills[market][0].price

    def book(self, market: str, lag: int = 0) -> dict[str, Any]:
        """A book in the server's own words; ``lag`` is slots behind the chain."""
        price = round(self.price(market) * PRICE_PRECISION)
        slot = self.now // SLOT_MS - self.slot_lag - lag
        return {
            "marketName": market,
            "marketType": "perp",
            "marketIndex": self.markets[market],
            "ts": self.now,
            "slot": slot,
            "marketSlot": slot - 2,
            "oracle": price + 1_000,
            "markPrice": str(price),
            "bids": [_level(price, -1, level) for level in range(1, 11)],
            "asks": [_level(price, 1, level) for level in range(1, 11)],
        }

    def book_message(self, market: str, lag: int = 0) -> str:
        channel = f"orderbook_perp_{self.markets[market]}_grouped_1"
        return self._message(channel, self.book(market, lag))

    def trade_message(self, market: str, fill: Fill) -> str:
        return self._message(f"trades_perp_{self.markets[market]}", self.row(market, fill))

    def row(self, market: str, fill: Fill) -> dict[str, Any]:
        """A fill in the decimals of the stream and the Data API."""
        return {
            "ts": fill.time_ms // 1_000,
            "marketIndex": self.markets[market],
            "marketType": "perp",
            "baseAssetAmountFilled": fill.base,
            "quoteAssetAmountFilled": repr(fill.quote),
            "oraclePrice": fill.price + 0.001,
            "fillRecordId": fill.record,
            "slot": fill.time_ms // SLOT_MS,
            "action": "fill",
        }

    def rate(self, time_ms: int) -> float:
        """The funding rate of an hour as a fraction: any number that tells the hours apart."""
        return (time_ms // HOUR % 100 + 1) * 1e-6

    def _message(self, channel: str, data: dict[str, Any]) -> str:
        # the servers do not agree on whether the data is text or not
        double = (self.now // 1_000) % 3 != 0
        return json.dumps({"channel": channel, "data": json.dumps(data) if double else data})

    # -- the stream

    async def _hear(self, client: Client, said: dict[str, Any]) -> None:
        if said.get("type") != "subscribe":
            return
        channel, market = said["channel"], said["market"]
        if said["marketType"] != "perp" or market not in self.markets:
            error = {"channel": channel, "error": "Error subscribing to channel"}
            await client.socket.send(json.dumps(error))
            return
        client.wanted.add((channel, market))
        text = f"Subscribe received for channel: {channel}, market: {market}, marketType: perp"
        await client.socket.send(json.dumps({"message": text}))
        if channel == "orderbook" and not client.muted:
            await client.socket.send(self.book_message(market))
        await client.socket.send('{"channel":"heartbeat"}')
        if len(client.wanted) == 2 * len(self.markets):
            self.listened.set()

    def _before(self, fault: Fault | None, name: str) -> list[str]:
        stale = [self.book_message(name, lag=10_000)] if fault is Fault.STALE else []
        return stale + super()._before(fault, name)

    # -- requests

    def _heard(self, head: str, body: bytes) -> str:
        return head.split(" ")[1]

    def _response(self, asked: str, head: str, fault: Fault | None) -> bytes:
        parts = urlsplit(asked)
        path, given = parts.path.strip("/").split("/"), dict(parse_qsl(parts.query))
        if path[0] == "program":
            data = self.files.get(parts.path)
            if data is None:
                return self._http(403, b"<Error><Code>AccessDenied</Code></Error>")
            return self._http(200, data[: len(data) // 2] if fault is Fault.TRUNCATED else data)
        if path[0] == "market" and self.browser and "\r\norigin:" not in head.lower():
            return self._http(403, b"Forbidden")
        try:
            body = self._body(path, given)
        except KeyError:
            return self._http(400, b"Bad Request")
        return self._http(200, json.dumps(body).encode())

    def _body(self, path: list[str], asked: dict[str, str]) -> Any:
        match path:
            case ["l2"]:
                return self.book(asked["marketName"])
            case ["market", market, "candles", "1"]:
                return {"success": True, "records": self._candles(market, asked)}
            case ["market", market, "trades", *day]:
                known = [fill for fill in self.fills[market] if fill.time_ms <= self.now]
                rows = [self.row(market, fill) for fill in known]
                return _page([row for row in rows if _on(row, day)], asked)
            case ["market", market, "fundingRates", *day]:
                return _page([row for row in self._settled(market) if _on(row, day)], asked)
        raise KeyError(path)

    def _candles(self, market: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        """Newest first, back from ``startTs``; a minute without a trade has no volume."""
        fills = [fill for fill in self.fills[market] if fill.time_ms <= self.now]
        known = {candle.open_ms: candle for candle in candles_of(fills)}
        newest = min(int(asked["startTs"]) * 1_000, self.now) // MINUTE * MINUTE
        limit = min(int(asked["limit"]), CANDLES_MAX)
        opens = range(newest, newest - limit * MINUTE, -MINUTE)
        first = min(known, default=newest + 1)
        return [_candle(open_ms, known.get(open_ms)) for open_ms in opens if open_ms >= first]

    def _settled(self, market: str) -> list[dict[str, Any]]:
        first = self.fills[market][0].time_ms
        hours = range(-(-first // HOUR) * HOUR, self.now + 1, HOUR)
        told = [hour + SETTLED_AFTER_MS for hour in hours if hour + SETTLED_AFTER_MS <= self.now]
        return [
            {
                "ts": at // 1_000,
                "fundingRate": f"{self.rate(at) * 150:.9f}",
                "fundingRateLong": f"{self.rate(at) * 150:.9f}",
                "oraclePriceTwap": "150.000000",
            }
            for at in told
        ]


def _level(price: int, direction: int, level: int) -> dict[str, Any]:
    size = level * 10**9
    told = {"price": str(price + direction * level * 1_000), "size": str(size)}
    return {**told, "sources": {"dlob": str(size // 2), "vamm": str(size // 2)}}


def _candle(open_ms: int, candle: Candle | None) -> dict[str, Any]:
    names = ("Open", "High", "Low", "Close")
    fills = {f"fill{name}": candle and getattr(candle, name.lower()) for name in names}
    oracle = {f"oracle{name}": candle.close + 0.001 if candle else 150.25 for name in names}
    volume = candle.volume if candle else 0
    return {"ts": open_ms // 1_000, **fills, **oracle, "baseVolume": volume, "quoteVolume": 0}


def _on(row: dict[str, Any], day: list[str]) -> bool:
    when = datetime.fromtimestamp(row["ts"], UTC)
    return not day or [str(when.year), str(when.month), str(when.day)] == day


def _page(rows: list[dict[str, Any]], asked: dict[str, str]) -> dict[str, Any]:
    """A page of rows, newest first, which says where the next one is."""
    at = int(asked.get("page", 0))
    shown = rows[::-1][at * PAGE : (at + 1) * PAGE]
    more = at + 1 if (at + 1) * PAGE < len(rows) else None
    return {"success": True, "records": shown, "meta": {"nextPage": more}}


def record_files(
    market: str, fills: Sequence[Fill], rates: Mapping[int, float]
) -> dict[str, bytes]:
    """The archive's daily files of these fills and of hourly rates on an oracle of 150."""
    base = f"/program/{PROGRAM}/market/{market}"
    lines: dict[str, list[str]] = {}
    for fill in fills:
        path = f"{base}/tradeRecords/{_dated(fill.time_ms)}"
        cells = fill.base, fill.quote, fill.price + 0.5, fill.time_ms // 1_000, fill.record
        lines.setdefault(path, []).append(",".join(map(repr, cells)) + ",0,perp,fill")
    for at, rate in rates.items():
        path = f"{base}/fundingRateRecords/{_dated(at)}"
        lines.setdefault(path, []).append(f"{at // 1_000},{rate * 150:.9f},150.0,{at // HOUR}")
    trades = "baseAssetAmountFilled,quoteAssetAmountFilled,oraclePrice,ts,fillRecordId,marketIndex"
    headers = {
        "tradeRecords": f"{trades},marketType,action",
        "fundingRateRecords": "ts,fundingRate,oraclePriceTwap,recordId",
    }
    return {
        path: gzip.compress("\n".join([headers[path.split("/")[5]], *rows, ""]).encode())
        for path, rows in lines.items()
    }


def _dated(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y/%Y%m%d")
