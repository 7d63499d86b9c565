"""How fast a service may be asked: so many at once, so far apart, never while it wants peace."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

_MINUTE_S = 60.0


class Pacing:
    """The pace of one service, shared by all who ask it; those who wait are served in turn.

    Requests are spaced evenly, so that no window of any length sees more than its share plus one.
    """

    def __init__(self, concurrency_max: int, requests_per_minute: float) -> None:
        self._gap_s = _MINUTE_S / requests_per_minute
        self._seats = anyio.Semaphore(concurrency_max)
        self._door = anyio.Lock()
        self._next_s = self._resume_s = 0.0

    @property
    def pause_s(self) -> float:
        """How long the service still wants to be left alone."""
        return max(self._resume_s - anyio.current_time(), 0.0)

    def pause(self, seconds: float) -> None:
        """Nobody asks for so long, those already waiting included."""
        self._resume_s = max(self._resume_s, anyio.current_time() + seconds)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Entered when it is our turn; the seat is free again however it is left."""
        async with self._seats:
            async with self._door:
                await self._open()
            yield

    async def _open(self) -> None:
        while True:
            wait_s = max(self._next_s, self._resume_s) - anyio.current_time()
            if wait_s <= 0:
                break
            await anyio.sleep(wait_s)  # and look again: a pause may be ordered meanwhile
        self._next_s = anyio.current_time() + self._gap_s
