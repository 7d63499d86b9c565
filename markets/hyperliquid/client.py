"""Questions to Hyperliquid's ``/info``: candles, funding and listings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from core.errors import DataError
from markets.feeds.asking import Answer, Asker, AskSettings
from markets.feeds.following import Candles, Settlements
from markets.feeds.link import Link, VenueClock
from markets.feeds.reading import read_rows
from markets.hyperliquid.parse import (
    Listing,
    read_candle,
    read_listing,
    read_settlement,
)
from markets.intervals import format_interval

MAINNET = "https://api.hyperliquid.xyz"
_HOUR_MS = 3_600_000
# what a question costs, and how many rows of its answer cost one more
_WEIGHT, _BARS_PER_WEIGHT, _SETTLEMENTS_PER_WEIGHT = 20, 60, 20

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoSettings(AskSettings):
    """Where to ask, how often, and how long; rows a page are what the venue gives at once."""

    url: str = MAINNET
    bars_per_page: int = 1_000
    settlements_per_page: int = 500


class Info:
    """The client. Use it as an async context manager: leaving closes its connections."""

    def __init__(
        self, settings: InfoSettings, clock: VenueClock, link: Link, random: Callable[[], float]
    ) -> None:
        self.settings, self.clock, self.link = settings, clock, link
        self._asker = Asker("hyperliquid", settings, clock, link, random)

    async def __aenter__(self) -> "Info":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._asker.__aexit__(*exc)

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
        return await self._asker.json(body["type"], "POST", "/info", json=body, weight=weight)
