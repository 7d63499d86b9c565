"""Drift's record files, fetched: a UTC day a file, as the venue's own archive laid them out.

The archive ends on 2025-01-08 and its host stopped; a mirror of the layout serves as well. A day
that is not there is a gap and told as one; a file that is there and damaged is an error, never a
gap. A file is kept whole or not at all, so a fetch that was cut off goes on where it was.
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
import httpx
from anyio import to_thread

from core.errors import DataError
from markets.feeds.asking import Asker, AskSettings
from markets.feeds.errors import FeedError
from markets.feeds.link import Link, VenueClock

ORIGINAL = "https://drift-historical-data-v2.s3.eu-west-1.amazonaws.com"
PROGRAM = "dRiftyHA39MWEi3m9aunc5MzRF1JYuBsbn6VPcn33UH"
DAY_MS = 86_400_000
_GZIP = b"\x1f\x8b"
_ABSENT = (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND)


class Record(StrEnum):
    """Kinds of records a market has files of, by the name of their folder."""

    TRADES = "tradeRecords"
    FUNDING = "fundingRateRecords"


_HEADER = {Record.TRADES: b"fillrecordid", Record.FUNDING: b"fundingrate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings(AskSettings):
    """Where to fetch, how often, and how long; ``program`` is whose records they are."""

    url: str = ORIGINAL
    program: str = PROGRAM
    timeout_s: float = 60.0
    weight_per_minute: float = 600.0


class Gathered(NamedTuple):
    """Files of the days asked for, oldest first, how many were new, and the days not there."""

    files: Sequence[Path]
    fetched: int
    absent: Sequence[str]


class Archive:
    """The client. Use it as an async context manager: leaving closes its connections."""

    def __init__(
        self, settings: ArchiveSettings, now_ms: Callable[[], int], random: Callable[[], float]
    ) -> None:
        self.settings = settings
        self.link = Link(anyio.current_time)
        self._asker = Asker("drift's archive", settings, VenueClock(now_ms), self.link, random)

    async def __aenter__(self) -> "Archive":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._asker.__aexit__(*exc)

    async def gather(
        self, market: str, record: Record, since_ms: int, until_ms: int, folder: Path
    ) -> Gathered:
        """The days of ``[since_ms, until_ms)``, each in ``folder`` under its date.

        What is there is not fetched again. Raises FeedError where the host does not answer, and
        DataError for files that are damaged, once all others are kept.
        """
        days = [_day(at) for at in range(since_ms // DAY_MS * DAY_MS, until_ms, DAY_MS)]
        missing = _not_in(folder, days)
        troubles: dict[str, FeedError | DataError] = {}
        turns = anyio.CapacityLimiter(self.settings.connections_max)
        async with anyio.create_task_group() as tasks:
            for day in missing:
                tasks.start_soon(self._fetch, market, record, folder / day, turns, troubles)
        for day in sorted(troubles):
            raise troubles[day]
        absent = _not_in(folder, days)
        files = [folder / day for day in days if day not in absent]
        return Gathered(files, len(missing) - len(absent), absent)

    async def _fetch(
        self,
        market: str,
        record: Record,
        path: Path,
        turns: anyio.CapacityLimiter,
        troubles: dict[str, FeedError | DataError],
    ) -> None:
        async with turns:
            if any(isinstance(trouble, FeedError) for trouble in troubles.values()):
                return  # the host is asked no more once it does not answer
            try:
                await self._fetch_day(market, record, path)
            except (FeedError, DataError) as error:
                troubles[path.name] = error

    async def _fetch_day(self, market: str, record: Record, path: Path) -> None:
        day = path.name
        base = f"/program/{self.settings.program}/market/{market}"
        where = f"{base}/{record}/{day[:4]}/{day}"
        accepted = (httpx.codes.OK, *_ABSENT)
        response = await self._asker.ask(where, "GET", where, accepted=accepted)
        if response.status_code in _ABSENT:
            return
        await to_thread.run_sync(partial(_keep, response.content, record, path, where))


def _not_in(folder: Path, days: Sequence[str]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return [day for day in days if not (folder / day).exists()]


def _keep(data: bytes, record: Record, path: Path, where: str) -> None:
    """Write a file whose content is what it should be, in one step."""
    header = _unpacked(data, where)[:65_536].split(b"\n", 1)[0].lower()
    if _HEADER[record] not in header or b"," not in header:
        raise DataError(f"drift's archive: {where}: not a file of {record}: look at what it sends")
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _unpacked(data: bytes, where: str) -> bytes:
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"drift's archive: {where}: damaged: {error}") from None


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y%m%d")
