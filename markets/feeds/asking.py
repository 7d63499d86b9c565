"""Questions to a venue over HTTP, with bounded patience.

A question changes nothing at the venue, so it may be asked again; it is only when the failure can
pass (a busy or broken server, a lost connection). A venue that says when to come back is obeyed,
for every later question too, because its limit counts per address and not per question.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import anyio
import httpx

from core.errors import DataError
from markets.feeds.backoff import Backoff
from markets.feeds.budget import Budget
from markets.feeds.errors import FeedError
from markets.feeds.link import Link, Trouble, VenueClock

_TOO_MANY, _SERVER_FAULT = 429, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AskSettings:
    """Where to ask, how often, and how long.

    ``obey_s_max``: a venue that wants a longer pause than this gets it, but the question fails at
    once. ``weight_per_minute`` is what the venue allows an address, less a reserve for others.
    """

    url: str
    timeout_s: float = 10.0
    attempts_max: int = 4
    wait_first_s: float = 0.5
    wait_longest_s: float = 8.0
    obey_s_max: float = 30.0
    connections_max: int = 4
    weight_per_minute: float = 1_000.0
    headers: Mapping[str, str] = field(default_factory=dict)


class Answer(NamedTuple):
    """An answer's JSON, and the venue's time when it was made, at least."""

    body: Any
    venue_ms: int


class Asker:
    """The client. Use it as an async context manager: leaving closes its connections."""

    def __init__(
        self,
        venue: str,
        settings: AskSettings,
        clock: VenueClock,
        link: Link,
        random: Callable[[], float],
    ) -> None:
        self.venue, self.settings, self.clock, self.link = venue, settings, clock, link
        self._random = random
        self._budget = Budget(settings.weight_per_minute)
        self._not_before_s = 0.0
        self._http = httpx.AsyncClient(
            base_url=settings.url,
            headers=dict(settings.headers),
            timeout=httpx.Timeout(settings.timeout_s, pool=None),
            limits=httpx.Limits(max_connections=settings.connections_max),
        )

    async def __aenter__(self) -> "Asker":
        return self

    async def __aexit__(self, *_exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._http.aclose()

    async def json(self, what: str, method: str, path: str, **more: Any) -> Answer:
        """The JSON of an answer; ``more`` is as of ``ask``."""
        response = await self.ask(what, method, path, **more)
        try:
            body = response.json()
        except (ValueError, RecursionError):
            self.link.count(Trouble.NOT_JSON)
            raise DataError(f"{self.venue}: the answer to {what} is not JSON") from None
        dated_ms = _date_ms(response.headers.get("date"))
        return Answer(body, self.clock.told_ms if dated_ms is None else dated_ms)

    async def ask(
        self,
        what: str,
        method: str,
        path: str,
        *,
        weight: float = 1.0,
        accepted: Collection[int] = (httpx.codes.OK,),
        **content: Any,
    ) -> httpx.Response:
        """Ask until answered with an accepted status, or out of attempts.

        ``content`` is httpx's (``json``, ``params``). An answer whose body comes mangled is no
        answer. The answer's date tells the venue's time to a second, rounded down.
        """
        backoff = Backoff(self.settings.wait_first_s, self.settings.wait_longest_s, self._random)
        trouble = ""
        for attempt in range(self.settings.attempts_max):
            if attempt:
                self.link.count(Trouble.RETRIED)
                await anyio.sleep(backoff.next_s())
            await self._obey(what)
            await self._budget.spend(weight)
            try:
                response = await self._http.request(method, path, **content)
            except (httpx.TransportError, httpx.DecodingError) as error:
                trouble = type(error).__name__
                continue
            if response.status_code in accepted:
                self._note_time(response)
                return response
            trouble = f"status {response.status_code}"
            if response.status_code != _TOO_MANY and response.status_code < _SERVER_FAULT:
                break
            self._note_pause(response)
        self.link.count(Trouble.FAILED)
        raise FeedError(f"{self.venue} does not answer {what}: {trouble}")

    def _note_time(self, response: httpx.Response) -> None:
        dated_ms = _date_ms(response.headers.get("date"))
        if dated_ms is not None:
            self.clock.observe(dated_ms)

    async def _obey(self, what: str) -> None:
        """Keep still while the venue wants it."""
        pause_s = self._not_before_s - anyio.current_time()
        if pause_s > self.settings.obey_s_max:
            self.link.count(Trouble.FAILED)
            raise FeedError(f"{self.venue} wants no {what} for {pause_s:.0f} s")
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
