"""Money for models: held before a call, settled after it, and never more than the limits.

What is held counts as spent until it is settled, in memory and in the journal, so concurrent calls
cannot overspend together and a crash in the middle of a call leaves its money spent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Most to spend, in micros: of a run, of a UTC day, and of a model on a UTC day.

    The defaults allow no paid call. A model that is not named has the other two limits alone.
    """

    run_micros: int = 0
    day_micros: int = 0
    model_day_micros: Mapping[str, int] = field(default_factory=dict)


class Spending(Protocol):
    """The durable sums behind a budget: one row a hold, one sum a scope.

    When ``hold`` or ``settle`` returns, it is durable. ``hold`` answers the row's id, and the sum
    of every scope named includes the row: first what was held, once settled what it cost.
    """

    async def total_micros(self, scope: str) -> int: ...

    async def hold(self, scopes: tuple[str, ...], micros: int) -> int: ...

    async def settle(self, hold: int, micros: int) -> None: ...


class Exhausted(Exception):
    """A limit would be exceeded; the message names it and what is left."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one call."""

    id: int
    scopes: tuple[str, ...]
    micros: int


class Budget:
    """The limits of one run, over sums that outlive it."""

    def __init__(
        self, limits: Limits, spending: Spending, run: str, now_ms: Callable[[], int]
    ) -> None:
        self.limits = limits
        self._spending, self._run, self._now_ms = spending, run, now_ms
        self._spent: dict[str, int] = {}

    async def hold(self, model: str, micros: int) -> Hold:
        """Set the most a call can cost aside; Exhausted where a limit has less left than that."""
        limits = self._limits(model)
        await self._read(limits)
        # no await from here to the last sum: whoever comes next sees this hold
        for scope, limit in limits.items():
            left = limit - self._spent[scope]
            if micros > left:
                raise Exhausted(f"{scope}: {micros} micros wanted, {max(left, 0)} of {limit} left")
        scopes = tuple(limits)
        self._add(scopes, micros)
        return Hold(await self._spending.hold(scopes, micros), scopes, micros)

    async def settle(self, hold: Hold, micros: int) -> None:
        """Put what the call cost in the place of what was held, even where it is more."""
        await self._spending.settle(hold.id, micros)
        self._add(hold.scopes, micros - hold.micros)

    async def remaining_micros(self, model: str) -> dict[str, int]:
        """What is left by scope, for all to see; below 0 where a service charged beyond a hold."""
        limits = self._limits(model)
        await self._read(limits)
        return {scope: limit - self._spent[scope] for scope, limit in limits.items()}

    def _limits(self, model: str) -> dict[str, int]:
        day = datetime.fromtimestamp(self._now_ms() / 1_000, UTC).date().isoformat()
        limits = {f"run {self._run}": self.limits.run_micros, f"day {day}": self.limits.day_micros}
        if model in self.limits.model_day_micros:
            limits[f"model {model} on {day}"] = self.limits.model_day_micros[model]
        return limits

    async def _read(self, scopes: Mapping[str, int]) -> None:
        for scope in scopes:
            if scope not in self._spent:
                total = await self._spending.total_micros(scope)
                # another call may have read it meanwhile, and held some since
                self._spent.setdefault(scope, total)

    def _add(self, scopes: tuple[str, ...], micros: int) -> None:
        for scope in scopes:
            self._spent[scope] += micros
