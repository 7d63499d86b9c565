"""Questions to Drift's Data API: candles, trades and funding, page by page.

It tells the newest first, and ``startTs`` is where it begins to go back. Drift's own host stopped
on 2026-04-01; Velocity's speaks the same dialect.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from core.errors import DataError
from markets.drift.parse import Page, Trade, read_candle, read_page, read_settlement, read_trade
from markets.feeds.asking import Asker, AskSettings
from markets.feeds.following import Candles, Settlements
from markets.feeds.funding import Settlement
from markets.feeds.link import Link, Trouble, VenueClock
from markets.feeds.reading import Row, Unreadable, read_rows
from markets.intervals import format_interval

RESOLUTIONS: Mapping[int, str] = {
    60_000: "1",
    300_000: "5",
    900_000: "15",
    3_600_000: "60",
    14_400_000: "240",
    86_400_000: "D",
}
"""Candles the API has, by their length in ms; its weeks and months begin at no multiple of it."""

BROWSER: Mapping[str, str] = {
    "Origin": "https://app.drift.trade",
    "Referer": "https://app.drift.trade/",
}
"""Without these the API answered nobody."""

_DAY_MS = 86_400_000

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings(AskSettings):
    """Where to ask, how often, and how long; ``pages_max`` ends a listing that does not."""

    headers: Mapping[str, str] = field(default_factory=lambda: BROWSER)
    candles_per_page: int = 1_000
    pages_max: int = 5_000
    weight_per_minute: float = 300.0


class Rows(NamedTuple):
    """What a listing held, oldest first, and how many rows were refused, by reason."""

    good: list[Any]
    refused: Counter[Trouble]


class DataApi:
    """The client. Use it as an async context manager: leaving closes its connections."""

    def __init__(
        self, settings: DataSettings, clock: VenueClock, link: Link, random: Callable[[], float]
    ) -> None:
        self.settings, self.link = settings, link
        self._asker = Asker("drift's data api", settings, clock, link, random)

    async def __aenter__(self) -> "DataApi":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._asker.__aexit__(*exc)

    async def candles(self, coin: str, interval_ms: int, since_ms: int, until_ms: int) -> Candles:
        """Candles with a trade that open in ``[since_ms, until_ms)``, at most one page of them.

        What is missing from an answer is taken for what never was, so one with a bad row is none.
        """
        until_ms = min(until_ms, since_ms + self.settings.candles_per_page * interval_ms)
        page, venue_ms = await self._candles(coin, interval_ms, since_ms, until_ms)
        self._refuse(page, "candles")
        candles = [row.candle for row in page.good if row.candle is not None]
        return Candles(candles, until_ms, venue_ms)

    async def candle_rows(self, coin: str, interval_ms: int, since_ms: int, until_ms: int) -> Rows:
        """As above, all pages of it, with the oracle's prices; bad rows are counted."""
        rows = Rows([], Counter())
        step_ms = self.settings.candles_per_page * interval_ms
        for start_ms in range(since_ms, until_ms, step_ms):
            end_ms = min(until_ms, start_ms + step_ms)
            page, _ = await self._candles(coin, interval_ms, start_ms, end_ms)
            rows.good.extend(page.good)
            rows.refused.update(page.refused)
        return rows

    async def settlements(self, coin: str, since_ms: int, until_ms: int) -> Settlements:
        """Funding settled in ``[since_ms, until_ms)``; an answer with a bad row is none."""
        path, found = f"/market/{coin}/fundingRates", Rows([], Counter())
        async for rows in self._pages(path, read_settlement):
            self._refuse(rows, "funding rates")
            found.good.extend(rows.good)
            if not rows.good or rows.good[0].time_ms < since_ms:
                break
        settled = _once(found.good, lambda row: row.time_ms)
        inside = [row._replace(coin=coin) for row in settled if since_ms <= row.time_ms < until_ms]
        return Settlements(inside, until_ms, self._asker.clock.told_ms)

    async def trades(self, coin: str, since_ms: int, until_ms: int) -> Rows:
        """The fills of the UTC days that ``[since_ms, until_ms)`` touches, by their records."""
        return await self._days(coin, "trades", since_ms, until_ms, read_trade, _record)

    async def funding(self, coin: str, since_ms: int, until_ms: int) -> Rows:
        """The settlements of these days, bad rows counted."""
        return await self._days(coin, "fundingRates", since_ms, until_ms, read_settlement, _time)

    async def _candles(
        self, coin: str, interval_ms: int, since_ms: int, until_ms: int
    ) -> tuple[Rows, int]:
        path = f"/market/{coin}/candles/{_resolution(interval_ms)}"
        limit = max(-(-(until_ms - since_ms) // interval_ms), 1)
        params = {"limit": limit, "startTs": until_ms // 1_000 - 1}
        answer = await self._asker.json(path, "GET", path, params=params)
        rows = self._read(self._page(answer.body, path).rows, read_candle)
        inside = [row for row in rows.good if since_ms <= row.open_ms < until_ms]
        return Rows(_once(inside, lambda row: row.open_ms), rows.refused), answer.venue_ms

    async def _days(
        self,
        coin: str,
        what: str,
        since_ms: int,
        until_ms: int,
        reader: Callable[[Any], Row],
        key: Callable[[Any], int],
    ) -> Rows:
        """All pages of some days, each row once and in order."""
        found = Rows([], Counter())
        for day_ms in range(since_ms // _DAY_MS * _DAY_MS, until_ms, _DAY_MS):
            day = datetime.fromtimestamp(day_ms / 1_000, UTC)
            path = f"/market/{coin}/{what}/{day.year}/{day.month}/{day.day}"
            async for rows in self._pages(path, reader):
                found.good.extend(
                    row for row in rows.good if day_ms <= row.time_ms < day_ms + _DAY_MS
                )
                found.refused.update(rows.refused)
        return Rows(_once(found.good, key), found.refused)

    async def _pages(self, path: str, reader: Callable[[Any], Row]) -> AsyncIterator[Rows]:
        """Pages of a listing, newest first; each page's rows are turned to run forward."""
        params: dict[str, int | str] = {}
        seen: set[int | str] = set()
        for _ in range(self.settings.pages_max):
            answer = await self._asker.json(path, "GET", path, params=params)
            page = self._page(answer.body, path)
            rows = self._read(page.rows, reader)
            yield Rows(rows.good[::-1], rows.refused)
            if page.next_page is None:
                return
            if page.next_page in seen:
                raise DataError(f"drift's data api: {path}: page {page.next_page} follows itself")
            seen.add(page.next_page)
            params = {"page": page.next_page}
        raise DataError(f"drift's data api: {path}: more than {self.settings.pages_max} pages")

    def _page(self, body: Any, path: str) -> Page:
        try:
            return read_page(body)
        except Unreadable as error:
            self.link.count(error.trouble)
            raise DataError(f"drift's data api: {path}: {error}") from None

    def _read(self, rows: Any, reader: Callable[[Any], Row]) -> Rows:
        good, refused = read_rows(rows, reader)
        for trouble in refused:
            self.link.count(trouble)
        return Rows(good, Counter(refused))

    def _refuse(self, rows: Rows, what: str) -> None:
        if rows.refused:
            reason = next(iter(rows.refused)).value
            raise DataError(f"drift's data api: {what} that cannot be used: {reason}")


def _resolution(interval_ms: int) -> str:
    if interval_ms not in RESOLUTIONS:
        known = ", ".join(map(format_interval, RESOLUTIONS))
        raise DataError(
            f"drift's data api has no candles of {format_interval(interval_ms)}: it has {known}"
        )
    return RESOLUTIONS[interval_ms]


def _record(trade: Trade) -> int:
    return trade.record


def _time(row: Settlement) -> int:
    return row.time_ms


def _once(rows: list[Read], key: Callable[[Read], int]) -> list[Read]:
    """Rows by their key, each once."""
    known = {key(row): row for row in rows}
    return [known[at] for at in sorted(known)]
