"""One websocket kept open: whatever ends a connection, another follows after a bounded wait.

A connection without data is as dead as a closed one, whether the peer vanished (half open) or just
stopped publishing, so only data keep it alive; answers to our pings do not. Where messages come
faster than they are read, others get their turn in between: when a bar closes, hundreds come.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
import anyio.lowlevel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from markets.feeds.backoff import Backoff
from markets.feeds.link import Link, Trouble

TURN_S = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """Where to connect, and when to give up. Without data for ``silent_s`` the connection is
    replaced; one that stood for ``steady_s`` makes the next wait the shortest again."""

    url: str
    open_timeout_s: float = 10.0
    close_timeout_s: float = 2.0
    silent_s: float = 20.0
    ping_s: float = 15.0
    steady_s: float = 30.0
    wait_first_s: float = 0.5
    wait_longest_s: float = 30.0
    message_bytes_max: int = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """What is said on a connection: ``greetings`` on opening, ``ping`` while it lasts.

    ``receive`` takes a message and says whether it carried data; ``broken`` is called when a
    connection that stood is gone.
    """

    greetings: Sequence[str]
    ping: str
    receive: Callable[[str | bytes], bool]
    broken: Callable[[], None]


class _Silent(Exception):
    """No data for too long."""


async def keep_open(
    settings: StreamSettings, talk: Talk, link: Link, random: Callable[[], float]
) -> None:
    """Connect, greet and read for ever; ends only by cancellation, leaving no socket behind."""
    backoff = Backoff(settings.wait_first_s, settings.wait_longest_s, random)
    while True:
        opened_s = anyio.current_time()
        try:
            await _connection(settings, talk, link)
        except _Silent:
            link.lost(Trouble.SILENT)
        except TimeoutError:
            link.lost(Trouble.TIMEOUT)
        except InvalidHandshake:
            link.lost(Trouble.HANDSHAKE)
        except WebSocketException:
            link.lost(Trouble.CLOSED)
        except OSError:
            link.lost(Trouble.UNREACHABLE)
        finally:
            link.connected = False
        if anyio.current_time() - opened_s > settings.steady_s:
            backoff.reset()
        await anyio.sleep(backoff.next_s())


async def _connection(settings: StreamSettings, talk: Talk, link: Link) -> None:
    socket = await connect(
        settings.url,
        open_timeout=settings.open_timeout_s,
        close_timeout=settings.close_timeout_s,
        max_size=settings.message_bytes_max,
        ping_interval=None,  # the venue wants its own ping, and silence is judged by data
    )
    try:
        link.opened()
        await _converse(socket, settings, talk, link)
    finally:
        talk.broken()
        with anyio.move_on_after(2 * settings.close_timeout_s, shield=True):
            await socket.close()
        socket.transport.abort()


async def _converse(
    socket: ClientConnection, settings: StreamSettings, talk: Talk, link: Link
) -> None:
    now = anyio.current_time
    silent_at, ping_at = now() + settings.silent_s, now() + settings.ping_s
    for greeting in talk.greetings:
        await _send(socket, greeting, settings)
    turn_at = now() + TURN_S
    while True:
        if now() >= turn_at:
            # a message that is already here is read without giving way to anyone
            await anyio.lowlevel.checkpoint()
            turn_at = now() + TURN_S
        try:
            with anyio.fail_after(max(min(silent_at, ping_at) - now(), 0)):
                message = await socket.recv()
        except TimeoutError:
            if now() >= silent_at:
                raise _Silent from None
        else:
            if talk.receive(message):
                link.heard()
                silent_at = now() + settings.silent_s
        if now() >= ping_at:
            await _send(socket, talk.ping, settings)
            ping_at = now() + settings.ping_s


async def _send(socket: ClientConnection, text: str, settings: StreamSettings) -> None:
    with anyio.fail_after(settings.silent_s):
        await socket.send(text)
