"""Whom to trade against: makers must be named in the transaction, and a book server knows them.

Without any, only the market's own AMM can fill, and only while it thinks well of its oracle.
"""

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

import anyio
import httpx

from core.sending import Unreachable

MAKERS_MAX = 4
"""Each costs the transaction two accounts and a log of its fill; too long logs are cut."""
TIMEOUT_S = 1.0


class Makers(Protocol):
    """Knows users whose orders rest on a side of a market."""

    async def rest_against(self, market: str, *, buying: bool) -> Sequence[str]:
        """Users, best first, whose orders a buyer (or seller) would meet. Raises Unreachable."""


class ListedMakers:
    """Always the same."""

    def __init__(self, users: Sequence[str] = ()) -> None:
        self._users = tuple(users[:MAKERS_MAX])

    async def rest_against(self, market: str, *, buying: bool) -> Sequence[str]:
        """Those listed, whatever the market."""
        return self._users


class BookServer:
    """Asks a DLOB server's ``/topMakers`` each time. Use it as an async context manager."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._host, self._timeout_s = urlsplit(url).netloc.rpartition("@")[2], timeout_s
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout_s)

    async def __aenter__(self) -> "BookServer":
        return self

    async def __aexit__(self, *_exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._http.aclose()

    async def rest_against(self, market: str, *, buying: bool) -> Sequence[str]:
        """The makers with the best prices on the side an order of ours would meet."""
        asked = {"marketName": market, "side": "ask" if buying else "bid", "limit": MAKERS_MAX}
        try:
            with anyio.fail_after(self._timeout_s):
                response = await self._http.get("/topMakers", params=asked)
            users = response.raise_for_status().json()
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            raise Unreachable(f"{self._host}: topMakers: {type(error).__name__}") from None
        if not isinstance(users, list) or not all(isinstance(user, str) for user in users):
            raise Unreachable(f"{self._host}: topMakers: not a list of users")
        return users[:MAKERS_MAX]
