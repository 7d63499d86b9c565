"""Channels: a webhook and Telegram, each one POST, with what may be tried again told apart.

Addresses and tokens are secrets. No error here carries one, and httpx's own line for each request,
which would, is silenced.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from anyio import fail_after

from daemon.alerts.notices import Notice

ATTEMPT_SECONDS_MAX = 15.0
ANSWER_BYTES_MAX = 65_536
RETRY_SECONDS_MAX = 300.0
RETRYABLE = frozenset((408, 425, 429, 500, 502, 503, 504))
TELEGRAM = "https://api.telegram.org"


class Again(Exception):
    """Not delivered, but it may be later; ``after`` seconds, where the other side said so."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Never(Exception):
    """Not delivered, and asking again would not help."""


@dataclass(frozen=True, slots=True)
class Message:
    """Notices that go out together, and how many more there were."""

    notices: tuple[Notice, ...]
    more: int = 0

    @property
    def text(self) -> str:
        """One line each, and what was left out."""
        rest = [f"and {self.more:,} more"] if self.more else []
        return "\n".join([*(notice.text for notice in self.notices), *rest])


class Channel(Protocol):
    """Something that carries a message, or raises Again or Never."""

    @property
    def name(self) -> str: ...

    async def send(self, client: httpx.AsyncClient, message: Message) -> None: ...


class Webhook:
    """A JSON object by POST; ``text`` makes it fit for Slack and Mattermost as it is."""

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    async def send(self, client: httpx.AsyncClient, message: Message) -> None:
        """Post a message."""
        notices = [
            {"topic": notice.topic, "text": notice.text, "ts": notice.ts}
            for notice in message.notices
        ]
        body = {"source": "lockstep", "text": message.text, "more": message.more}
        await _post(client, self._url, {**body, "notices": notices})


class Telegram:
    """A bot's message to one chat, as plain text: nothing in it is read as markup."""

    name = "telegram"

    def __init__(self, token: str, chat: str, base: str = TELEGRAM) -> None:
        self._url, self._chat = f"{base}/bot{token}/sendMessage", chat

    async def send(self, client: httpx.AsyncClient, message: Message) -> None:
        """Send a message."""
        preview = {"is_disabled": True}
        body = {"chat_id": self._chat, "text": message.text, "link_preview_options": preview}
        await _post(client, self._url, body)


async def _post(client: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> None:
    try:
        with fail_after(ATTEMPT_SECONDS_MAX):
            async with client.stream("POST", url, json=dict(body)) as answer:
                status, said = answer.status_code, await _start_of(answer)
    except (TimeoutError, httpx.RequestError) as error:
        raise Again(type(error).__name__) from None
    if status in RETRYABLE:
        raise Again(f"HTTP {status}", _retry_after(answer.headers, said))
    if not httpx.codes.is_success(status):
        raise Never(f"HTTP {status}")


async def _start_of(answer: httpx.Response) -> bytes:
    """The answer, as far as we care to read it."""
    said = b""
    async for chunk in answer.aiter_bytes():
        said += chunk
        if len(said) > ANSWER_BYTES_MAX:
            break
    return said


def _retry_after(headers: httpx.Headers, said: bytes) -> float | None:
    """Seconds to wait: by the header, or as Telegram says it in the body."""
    given = headers.get("retry-after", "")
    try:
        seconds = float(given) if given.isdigit() else json.loads(said)["parameters"]["retry_after"]
        return min(float(seconds), RETRY_SECONDS_MAX)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def silence_httpx() -> None:
    """httpx logs the address of every request, and ours are secrets."""
    logging.getLogger("httpx").addFilter(_loud)


def _loud(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING
