"""Questions to a DLOB server about the book; the sender asks it for makers by itself.

Its hosts stopped with the venue in 2026, so an address is always given, never assumed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from core.errors import DataError
from markets.drift.parse import DEPTH_LEVELS, Snapshot, read_snapshot
from markets.feeds.asking import Asker, AskSettings
from markets.feeds.link import Link, VenueClock
from markets.feeds.reading import Unreadable, as_json

_UNKNOWN = (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSettings(AskSettings):
    """Where to ask for books, how often, and how long."""


class Books:
    """The client. Use it as an async context manager: leaving closes its connections."""

    def __init__(
        self, settings: BookSettings, clock: VenueClock, link: Link, random: Callable[[], float]
    ) -> None:
        self._link = link
        self._asker = Asker("drift's book server", settings, clock, link, random)

    async def __aenter__(self) -> "Books":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._asker.__aexit__(*exc)

    async def l2(self, market: str, depth: int = DEPTH_LEVELS) -> Snapshot:
        """The book with the AMM's quotes in it. DataError where the server has no such market."""
        asked = {"marketName": market, "depth": depth, "includeVamm": "true"}
        accepted = (httpx.codes.OK, *_UNKNOWN)
        answer = await self._asker.ask("/l2", "GET", "/l2", params=asked, accepted=accepted)
        if answer.status_code in _UNKNOWN:
            raise DataError(f"drift's book server has no {market}: names are as in SOL-PERP")
        try:
            return read_snapshot(as_json(answer.content))
        except Unreadable as error:
            self._link.count(error.trouble)
            raise DataError(
                f"drift's book server: /l2 of {market} cannot be used: {error}"
            ) from None
