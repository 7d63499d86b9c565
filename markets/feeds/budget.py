"""A venue's request limit, kept by us before the venue has to: who overruns it is shut out."""

import anyio

_MINUTE_S = 60.0


class Budget:
    """Weight that may be spent: at most ``per_minute`` at once, refilled evenly."""

    def __init__(self, per_minute: float) -> None:
        assert per_minute > 0, per_minute
        self.per_minute = per_minute
        self._left, self._at_s = per_minute, 0.0

    async def spend(self, weight: float) -> None:
        """Take this weight, after waiting until it is there; those who wait are served in turn."""
        now_s = anyio.current_time()
        refilled = (now_s - self._at_s) * self.per_minute / _MINUTE_S
        # what is owed is kept as less than nothing, so a later caller waits for an earlier one too
        self._left = min(self._left + refilled, self.per_minute) - weight
        self._at_s = now_s
        if self._left < 0:
            await anyio.sleep(-self._left * _MINUTE_S / self.per_minute)
