"""A token bucket for each caller: a burst at once, then so many a minute.

The table is bounded, for whoever can choose addresses could otherwise fill the memory.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable

CALLERS_MAX = 1_024


class Buckets:
    """Who may go on, by a clock of seconds that only goes forward."""

    def __init__(
        self,
        per_minute: float,
        burst: int,
        clock: Callable[[], float],
        callers_max: int = CALLERS_MAX,
    ) -> None:
        self._per_second, self._burst = per_minute / 60.0, float(burst)
        self._clock, self._callers_max = clock, callers_max
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait(self, caller: Hashable) -> float:
        """Seconds until this caller may go on; 0 lets him, and counts."""
        now = self._clock()
        level, since = self._levels.pop(caller, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._per_second)
        goes = level >= 1.0
        self._levels[caller] = (level - 1.0 if goes else level, now)
        if len(self._levels) > self._callers_max:
            self._levels.popitem(last=False)
        return 0.0 if goes else (1.0 - level) / self._per_second
