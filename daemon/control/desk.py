"""What control needs of a running daemon, and the one thing it may tell it: an order.

An order becomes a COMMAND event in the loop's inbox. So it is journaled, it takes effect between
two other events, and a replay obeys it at the same place.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from core.errors import LockstepError
from core.model import Command

Row: TypeAlias = dict[str, Any]
"""Plain values that JSON can hold: no NaN, times in unix ms, money in quote."""


class Busy(LockstepError):
    """The daemon takes no orders now: it starts, drains, or has too many waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An operator's word. ``who`` is whom the API saw, ``reason`` free text for the record."""

    word: Command
    book: str | None = None
    reason: str = ""
    who: str = ""


class Desk(Protocol):
    """The running daemon as the API sees it. Only ``command`` may change anything."""

    def status(self) -> Row: ...

    def positions(self) -> list[Row]: ...

    def orders(self) -> list[Row]: ...

    def decisions(self, limit: int) -> list[Row]: ...

    def trades(self, limit: int) -> list[Row]: ...

    def commands(self, limit: int) -> list[Row]: ...

    def metrics_text(self) -> bytes:
        """Prometheus's text; asked for in a thread of its own, for it takes its time."""
        ...

    def ready(self) -> bool: ...

    def healthy(self) -> bool: ...

    async def command(self, order: Order) -> int:
        """Number of the journal's event at which the order took effect, once that is durable.

        UnknownName for a book nobody has, Busy when it cannot be taken now.
        """
        ...
