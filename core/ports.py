"""What the loop needs of the outside: whoever answers to these may feed, record or trade it."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Protocol

from core.model import Records


class Feed(Protocol):
    """Yields blocks of EVENT in the order they became known: live one event, in replay many.

    ``rewind`` gives back the last events of the newest block: they come again, after what became
    known before them.
    """

    def __aiter__(self) -> AsyncIterator[Records]: ...

    def rewind(self, events: int) -> None: ...


class Journal(Protocol):
    """Keeps what happened. When ``append`` returns, it is durable: only then may it take effect."""

    async def append(self, events: Records, outcomes: Records, track: Records) -> None: ...


class Venue(Protocol):
    """Takes approved orders (rows of ORDER); fills and endings come back as FILL events, each once.

    An order is known by the run and its number, so that whatever is sent twice counts once.
    """

    async def submit(self, approved: Any) -> None:
        """Take a new order; it must not wait for the order's fate."""

    async def recover(self, working: Records) -> None:
        """Settle the orders that a stop left open, before the loop goes on.

        ``working`` holds the quantity whose fills the run has not seen. What filled since comes as
        events; what never arrived is sent, or ended by a final fill of nothing. An error is for a
        venue that cannot tell: then nothing is traded.
        """

    async def halt(self) -> None:
        """The latch fell: cancel what still works, but for what only shrinks a position."""


class Asked(NamedTuple):
    """A question of the step, its number in the run first: at ``ts`` and ``price`` the strategy of
    ``book`` wanted ``target``."""

    number: int
    ts: int
    book: int
    target: float
    price: float


class Advisor(Protocol):
    """Takes questions; answers come back as OPINION events."""

    async def ask(self, questions: Sequence[Asked]) -> None: ...
