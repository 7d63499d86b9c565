"""What systemd is told of us: ready, reloading, stopping, a line of status, and that we still tick.

The protocol is one datagram of lines to the socket in ``NOTIFY_SOCKET``; without the variable, as
on a terminal, nothing is sent. See sd_notify(3).
"""

import os
import socket
import time
from collections.abc import Callable, Mapping

import anyio

_PINGS_PER_LIMIT = 3
_SEND_TIMEOUT_S = 1.0
_MICROS_PER_S = 1_000_000


class Notifier:
    """Sends to the service manager named by the environment, or to nobody.

    Every method answers whether systemd took the message. A failure is no reason to stop trading:
    what systemd does not hear, it acts upon by itself.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # systemd writes the zero byte of an abstract address as "@"
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self, status: str = "ready") -> bool:
        """Start-up, or a reload, is over."""
        return self._send("READY=1", _status(status))

    def reloading(self) -> bool:
        """A reload begins; ``ready`` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self, status: str = "draining") -> bool:
        """The drain begins."""
        return self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> bool:
        """A line for ``systemctl status``."""
        return self._send(_status(text))

    def alive(self) -> bool:
        """Put the watchdog off by another ``WatchdogSec``."""
        return self._send("WATCHDOG=1")

    def extend_start(self, seconds: float) -> bool:
        """Ask for so much more time to start, for a recovery that is getting on."""
        return self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * _MICROS_PER_S)}")

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(_SEND_TIMEOUT_S)
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return False
        return True


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}"


class Watchdog:
    """Pings systemd when the loop has completed a tick, at most three times in ``WATCHDOG_USEC``.

    A loop that hangs in a tick, or a blocked event loop, sends nothing and is killed. A quiet
    market is no hang: ``keep`` also pings while the loop waits for events.
    """

    def __init__(
        self,
        notifier: Notifier,
        environ: Mapping[str, str] = os.environ,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier, self._clock_s = notifier, clock_s
        limit_us = environ.get("WATCHDOG_USEC", "0") if _is_ours(environ) else "0"
        self.interval_s = (int(limit_us) if limit_us.isdigit() else 0) / _MICROS_PER_S
        self.interval_s /= _PINGS_PER_LIMIT
        self._next_s = -float("inf")

    def tick_done(self) -> None:
        """The loop completed a tick, or is waiting for the next one."""
        if not self.interval_s:
            return
        now_s = self._clock_s()
        if now_s >= self._next_s and self._notifier.alive():
            self._next_s = now_s + self.interval_s

    async def keep(self, waiting: Callable[[], bool]) -> None:
        """Ping for as long as ``waiting`` says that the loop has nothing to do; never returns."""
        while True:
            if waiting():
                self.tick_done()
            await anyio.sleep(self.interval_s or 60.0)


def _is_ours(environ: Mapping[str, str]) -> bool:
    """The watchdog may be meant for another process of the unit."""
    return environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
