"""Questions to a DLOB server: the book, whom to trade against, what a place in a block costs.

Its hosts stopped with the venue in 2026, so an address is always given, never assumed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from core.errors import DataError
from markets.drift.parse import DEPTH_LEVELS, Snapshot, read_fees, read_snapshot
from markets.feeds.asking import Asker, AskSettings
from markets.feeds.link import Link, Trouble, VenueClock
from markets.feeds.reading import Unreadable, as_json

MAKERS_MAX = 4
_UNKNOWN = (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND)

Told = TypeVar("Told")


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
        return await self._ask(market, "/l2", asked, read_snapshot)

    async def top_makers(self, market: str, side: str, limit: int = MAKERS_MAX) -> Sequence[str]:
        """Users with the best resting orders on a side, ``bid`` or ``ask``, best first."""
        asked = {"marketName": market, "side": side, "limit": limit}
        return await self._ask(market, "/topMakers", asked, _users)

    async def priority_fees(self, market: str, index: int) -> Mapping[str, float]:
        """Micro-lamports a compute unit by level, such as ``medium``."""
        asked = {"marketType": "perp", "marketIndex": index}
        return await self._ask(market, "/priorityFees", asked, read_fees)

    async def _ask(
        self, market: str, path: str, params: Mapping[str, Any], reader: Callable[[Any], Told]
    ) -> Told:
        accepted = (httpx.codes.OK, *_UNKNOWN)
        answer = await self._asker.ask(path, "GET", path, params=params, accepted=accepted)
        if answer.status_code in _UNKNOWN:
            raise DataError(f"drift's book server has no {market}: names are as in SOL-PERP")
        try:
            return reader(as_json(answer.content))
        except Unreadable as error:
            self._link.count(error.trouble)
            raise DataError(
                f"drift's book server: {path} of {market} cannot be used: {error}"
            ) from None


def _users(body: Any) -> list[str]:
    if not isinstance(body, list) or not all(isinstance(user, str) for user in body):
        raise Unreadable(Trouble.BAD_SHAPE)
    return body
