"""What a life sleeps through between two looks: its interval, unless a hint comes first."""

from collections.abc import Awaitable, Callable

import anyio

Sleep = Callable[[float], Awaitable[None]]


class Wake:
    """One sleeper, and those who may wake it; what came while it was awake wakes it at once."""

    def __init__(self, sleep: Sleep, interval_s: float) -> None:
        self._sleep, self._interval_s = sleep, interval_s
        self._came = anyio.Event()

    def hint(self) -> None:
        """There may be something to see."""
        self._came.set()

    async def pause(self) -> bool:
        """Sleep; whether a hint ended it."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen, group.cancel_scope)
            await self._sleep(self._interval_s)
            group.cancel_scope.cancel()
        hinted, self._came = self._came.is_set(), anyio.Event()
        return hinted

    async def _listen(self, sleep: anyio.CancelScope) -> None:
        await self._came.wait()
        sleep.cancel()
