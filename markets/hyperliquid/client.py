"""Questions to Hyperliquid's ``/info``: candles, funding and listings, with bounded patience.

A question changes nothing at the venue, so it may be asked again; it is only when the failure can
pass (a busy or broken server, a lost connection). A venue that says when to come back is obeyed,
for every later question too, because its limit counts per address and not per question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

import anyio
import httpx

from core.errors import DataError
from markets.feeds.backoff import Backoff
from markets.feeds.budget import Budget
from markets.feeds.closing import Candle
from markets.feeds.errors import FeedError
from markets.feeds.link import Link, Trouble, VenueClock
from markets.hyperliquid.parse import (
    Listing,
    Settlement,
    read_candle,
    read_listing,
    read_rows,
    read_settlement,
)
from markets.intervals import format_interval

MAINNET = "https://api.hyperliquid.xyz"
_TOO_MANY, _SERVER_FAULT = 429, 500
_HOUR_MS = 3_600_000
# what a question costs, and how many rows of its answer cost one more
_WEIGHT, _BARS_PER_WEIGHT, _SETTLEMENTS_PER_WEIGHT = 20, 60, 20

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoSettings:
    """Where to ask, how often, and how long.

    ``obey_s_max``: a venue that wants a longer pause than this gets it, but the question fails at
    once. ``weight_per_minute`` is what the venue allows an address, less a reserve for others.
    """

    url: str = MAINNET
    timeout_s: float = 10.0
    attempts_max: int = 4
    wait_first_s: float = 0.5
    wait_longest_s: float = 8.0
    obey_s_max: float = 30.0
    connections_max: int = 4
    weight_per_minute: float = 1_000.0
    bars_per_page: int = 1_000
    settlements_per_page: int = 500


class Answer(NamedTuple):
    """An answer's JSON, and the venue's time when it was made, at least."""

    body: Any
    venue_ms: int


class Candles(NamedTuple):
    """All candles the venue knows that open before ``until_ms``, from where was asked."""

    candles: Sequence[Candle]
    until_ms: int
    venue_ms: int


class Settlements(NamedTuple):
    """All funding the venue knows that was settled before ``until_ms``, from where was asked."""

    settlements: Sequence[Settlement]
    until_ms: int
    venue_ms: int


class Info:
    """The client. Use it as an async context manager: leaving closes its connections."""

    def __init__(
        self, settings: InfoSettings, clock: VenueClock, link: Link, random: Callable[[], float]
    ) -> None:
        self.settings, self.clock, self.link = settings, clock, link
        self._random = random
        self._budget = Budget(settings.weight_per_minute)
        self._not_before_s = 0.0
        self._http = httpx.AsyncClient(
            base_url=settings.url,
            timeout=httpx.Timeout(settings.timeout_s, pool=None),
            limits=httpx.Limits(max_connections=settings.connections_max),
        )

    async def __aenter__(self) -> "Info":
        return self

    async def __aexit__(self, *_exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._http.aclose()

    async def candles(self, coin: str, interval_ms: int, since_ms: int, until_ms: int) -> Candles:
        """Candles that open in ``[since_ms, until_ms)``, at most one page of them."""
        until_ms = min(until_ms, since_ms + self.settings.bars_per_page * interval_ms)
        interval = format_interval(interval_ms)
        request = {"coin": coin, "interval": interval, "startTime": since_ms}
        body = {"type": "candleSnapshot", "req": {**request, "endTime": until_ms - 1}}
        weight = _WEIGHT + (until_ms - since_ms) // interval_ms / _BARS_PER_WEIGHT
        answer = await self._ask(body, weight)
        updates = self._rows(answer.body, read_candle, "candles")
        candles = [
            update.candle
            for update in updates
            if (update.coin, update.interval) == (coin, interval)
            and since_ms <= update.candle.open_ms < until_ms
        ]
        return Candles(candles, until_ms, answer.venue_ms)

    async def settlements(self, coin: str, since_ms: int, until_ms: int) -> Settlements:
        """Funding settled in ``[since_ms, until_ms)``, at most one page of it."""
        until_ms = min(until_ms, since_ms + self.settings.settlements_per_page * _HOUR_MS)
        times = {"startTime": since_ms, "endTime": until_ms - 1}
        weight = _WEIGHT + (until_ms - since_ms) // _HOUR_MS / _SETTLEMENTS_PER_WEIGHT
        answer = await self._ask({"type": "fundingHistory", "coin": coin, **times}, weight)
        rows = self._rows(answer.body, read_settlement, "settlements")
        rows = [row for row in rows if row.coin == coin and since_ms <= row.time_ms < until_ms]
        return Settlements(sorted(rows, key=lambda row: row.time_ms), until_ms, answer.venue_ms)

    async def listings(self) -> dict[str, Listing]:
        """Every perpetual the venue lists, by coin."""
        answer = await self._ask({"type": "meta"}, _WEIGHT)
        universe = answer.body.get("universe") if isinstance(answer.body, dict) else None
        return {row.coin: row for row in self._rows(universe, read_listing, "listings")}

    def _rows(self, rows: Any, reader: Callable[[Any], Row], what: str) -> list[Row]:
        """The rows, all of them: what is missing from an answer is taken for what never was, so an
        answer with one bad row is no answer."""
        good, refused = read_rows(rows, reader)
        for trouble in refused:
            self.link.count(trouble)
        if refused:
            raise DataError(f"hyperliquid: {what} that cannot be used: {refused[0].value}")
        return good

    async def _ask(self, body: dict[str, Any], weight: float) -> Answer:
        """Ask until answered or out of attempts."""
        backoff = Backoff(self.settings.wait_first_s, self.settings.wait_longest_s, self._random)
        trouble = ""
        for attempt in range(self.settings.attempts_max):
            if attempt:
                self.link.count(Trouble.RETRIED)
                await anyio.sleep(backoff.next_s())
            await self._obey(body["type"])
            await self._budget.spend(weight)
            try:
                response = await self._http.post("/info", json=body)
            except httpx.TransportError as error:
                trouble = type(error).__name__
                continue
            if response.status_code == httpx.codes.OK:
                return self._answer(response, body["type"])
            trouble = f"status {response.status_code}"
            if response.status_code != _TOO_MANY and response.status_code < _SERVER_FAULT:
                break
            self._note_pause(response)
        self.link.count(Trouble.FAILED)
        raise FeedError(f"hyperliquid does not answer {body['type']}: {trouble}")

    def _answer(self, response: httpx.Response, what: str) -> Answer:
        """The JSON of a good response; its date tells the venue's time to a second, rounded
        down."""
        try:
            body = response.json()
        except (ValueError, RecursionError):
            self.link.count(Trouble.NOT_JSON)
            raise DataError(f"hyperliquid: the answer to {what} is not JSON") from None
        dated_ms = _date_ms(response.headers.get("date"))
        if dated_ms is not None:
            self.clock.observe(dated_ms)
        return Answer(body, self.clock.told_ms if dated_ms is None else dated_ms)

    async def _obey(self, what: str) -> None:
        """Keep still while the venue wants it."""
        pause_s = self._not_before_s - anyio.current_time()
        if pause_s > self.settings.obey_s_max:
            self.link.count(Trouble.FAILED)
            raise FeedError(f"hyperliquid wants no {what} for {pause_s:.0f} s")
        if pause_s > 0:
            await anyio.sleep(pause_s)

    def _note_pause(self, response: httpx.Response) -> None:
        if response.status_code == _TOO_MANY:
            self.link.count(Trouble.THROTTLED)
        pause_s = _pause_s(response.headers, self.clock.now_ms())
        self._not_before_s = max(self._not_before_s, anyio.current_time() + pause_s)


def _pause_s(headers: httpx.Headers, now_ms: int) -> float:
    """``Retry-After``, which is a number of seconds or a date; 0 where it is neither."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    until_ms = _date_ms(text)
    return 0.0 if until_ms is None else max(until_ms - now_ms, 0) / 1_000


def _date_ms(text: str | None) -> int | None:
    try:
        date = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, OverflowError):
        return None
    # "-0000" gives a date without a zone, and means UTC
    return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1_000)
