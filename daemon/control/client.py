"""Asking a running daemon, and telling the person at the terminal what its no or silence means.

Proxies are ignored and redirects not followed: either would carry the token where nobody sent it.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from core.errors import ConfigError, LockstepError
from daemon.control.auth import is_loopback
from daemon.control.text import shown

SECONDS_MAX = 15.0


class Refused(LockstepError):
    """The daemon does not answer, or says no."""


class Client:
    """The API of one daemon, with a token. A context."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("--url: write http://HOST:PORT or https://HOST:PORT")
        if parts.username or parts.password:
            raise ConfigError("--url: it must hold no user or password")
        self.url = url.rstrip("/")
        self.in_the_clear = parts.scheme == "http" and not is_loopback(parts.hostname)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"},
            timeout=SECONDS_MAX,
            trust_env=False,
            follow_redirects=False,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, **params: int) -> Any:
        """What the daemon answers at a path."""
        return self._ask("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the daemon answers to an order."""
        return self._ask("POST", path, json=dict(body))

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._http.request(method, f"{self.url}{path}", **more)
        except httpx.ConnectError:
            raise Refused(
                f"no daemon answers at {self.url}: is it running? name another with --url"
            ) from None
        except httpx.TimeoutException:
            raise Refused(f"{self.url} did not answer within {SECONDS_MAX:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refused(f"{self.url}: {type(error).__name__}") from None
        if answer.status_code == httpx.codes.OK:
            return _json(answer, self.url)
        raise _refusal(answer, self.url)


def _json(answer: httpx.Response, url: str) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise Refused(f"{url} is no Lockstep daemon: it does not answer in JSON") from None


def _refusal(answer: httpx.Response, url: str) -> LockstepError:
    """The daemon's no, in one line, with what to do about it."""
    match answer.status_code:
        case 401:
            return ConfigError(f"{url} does not know this token: give the daemon's --token-file")
        case 403:
            return ConfigError("this token may look, but not command: give the control token")
        case 429:
            seconds = shown(answer.headers.get("retry-after", "a few"), 8)
            return Refused(f"too many requests: try again in {seconds} s")
        case _:
            return Refused(f"{url}: {_why(answer)}")


def _why(answer: httpx.Response) -> str:
    try:
        return shown(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"it answered {answer.status_code}"
