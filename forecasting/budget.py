"""Money for models and sandboxes: held before it is spent, settled after, never beyond a limit.

What is held counts as spent until it is settled. The sums are kept where every process that spends
looks them up and adds to them in one step, so neither concurrent calls nor two processes overspend
together, and a crash in the middle of a call leaves its money spent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Most to spend, in micros: of a run, of a UTC day, and of a model (or ``daytona``) on a day.

    The defaults allow no paid call. A model that is not named has the other two limits alone.
    """

    run_micros: int = 0
    day_micros: int = 0
    model_day_micros: Mapping[str, int] = field(default_factory=dict)


class Exhausted(Exception):
    """A limit would be exceeded; the message names it and what is left."""

    def __init__(self, scope: str, micros: int, limit: int, spent: int) -> None:
        left = max(limit - spent, 0)
        super().__init__(f"{scope}: {micros} micros wanted, {left} of {limit} left")


class Spending(Protocol):
    """The durable sums behind a budget, by scope."""

    async def hold(self, limits: Mapping[str, int], micros: int) -> int:
        """Add to the sum of every scope, and answer the hold's number; Exhausted, and nothing is
        added, where one would go beyond its limit. Of two at once one sees the other's."""
        ...

    async def settle(self, hold: int, micros: int) -> None:
        """Put what was spent in the place of what was held, even where it is more."""
        ...


class Budget:
    """The limits of one run, over sums that outlive it."""

    def __init__(
        self, limits: Limits, spending: Spending, run: str, now_ms: Callable[[], int]
    ) -> None:
        self.limits = limits
        self._spending, self._run, self._now_ms = spending, run, now_ms

    async def hold(self, model: str, micros: int) -> int:
        """Set the most it can cost aside; Exhausted where a limit has less left than that."""
        return await self._spending.hold(self._limits(model), micros)

    async def settle(self, hold: int, micros: int) -> None:
        """Put what it cost in the place of what was held, even where it is more."""
        await self._spending.settle(hold, micros)

    def _limits(self, model: str) -> dict[str, int]:
        day = datetime.fromtimestamp(self._now_ms() / 1_000, UTC).date().isoformat()
        limits = {f"run {self._run}": self.limits.run_micros, f"day {day}": self.limits.day_micros}
        if model in self.limits.model_day_micros:
            limits[f"model {model} on {day}"] = self.limits.model_day_micros[model]
        return limits
