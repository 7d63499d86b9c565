"""Serving the API inside the daemon's own task group: uvicorn without its hold on the process.

Signals belong to the daemon, so uvicorn installs none; cancelling the task shuts it down cleanly.
A connection that dawdles over its request is closed, for each holds one of a bounded number.
"""

import contextlib
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from anyio import TASK_STATUS_IGNORED, CancelScope, create_task_group, sleep_forever
from anyio.abc import TaskStatus
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from config.settings import Settings
from core.errors import ConfigError
from daemon.control.api import make_app
from daemon.control.auth import daemon_tokens, is_loopback
from daemon.control.credentials import Hide
from daemon.control.desk import Desk
from daemon.control.guard import HEADER_BYTES_MAX, Guard, Limits
from daemon.observe.redaction import SECRETS

CONNECTIONS_MAX = 128
REQUEST_SECONDS_MAX = 10.0
KEEP_ALIVE_SECONDS = 5
GRACE_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Api:
    """The API of a daemon, ready to be served; ``run`` is an edge task."""

    app: Guard
    host: str
    port: int

    async def run(self, *, task_status: TaskStatus[int] = TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports the port."""
        await serve(self.app, self.host, self.port, task_status=task_status)


def open_api(
    desk: Desk,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    hide: Hide = SECRETS.add,
    tally: Callable[[int], None] = lambda _status: None,
) -> Api:
    """The API as the settings say. ConfigError where it must not be opened: ask at start, for an
    edge task that cannot start is only started again.

    ``hide`` is told every secret that is read, ``tally`` the status of each request turned away.
    """
    api = settings.api
    limits = Limits(
        per_minute=api.requests_per_minute, burst=api.burst, metrics_open=api.metrics_open
    )
    tokens = daemon_tokens(settings, environ, hide)
    return Api(make_app(desk, tokens, limits, tally=tally), api.host, api.port)


async def serve(
    app: Guard, host: str, port: int, *, task_status: TaskStatus[int] = TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; reports the port. ConfigError for an address it must not open."""
    if not is_loopback(host) and app.tokens is None:
        raise ConfigError(f"api.host {host} is not loopback: the API opens it only with a token")
    with _listener(host, port) as listener:
        server = _Server(
            Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=CONNECTIONS_MAX,
                h11_max_incomplete_event_size=HEADER_BYTES_MAX,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        task_status.started(listener.getsockname()[1])
        async with create_task_group() as group:
            group.start_soon(_until_cancelled, server)
            with CancelScope(shield=True):
                await server.serve(sockets=[listener])
            group.cancel_scope.cancel()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"api: cannot listen on {host}:{port}: {error.strerror}") from error


async def _until_cancelled(server: Server) -> None:
    try:
        await sleep_forever()
    finally:
        server.should_exit = True


class _Server(Server):
    """A server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Protocol(H11Protocol):
    """HTTP/1.1 that waits only so long for a request to be whole."""

    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect()

    def connection_lost(self, exc: Any) -> None:
        super().connection_lost(exc)
        self._forget()

    def _expect(self) -> None:
        self._forget()
        self._deadline = self.loop.call_later(REQUEST_SECONDS_MAX, self._give_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _give_up(self) -> None:
        """Close, unless a request is being answered: that one has its own limits."""
        cycle: Any = self.cycle  # None until the first request, whatever its type says
        if cycle is None or cycle.response_complete:
            self.transport.close()
