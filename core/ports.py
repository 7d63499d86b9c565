"""What the loop needs of the outside: whoever answers to these may feed, record or trade it."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from core.model import Records


class Feed(Protocol):
    """Yields blocks of EVENT in the order they became known: live one event, in replay many."""

    def __aiter__(self) -> AsyncIterator[Records]: ...


class Journal(Protocol):
    """Keeps what happened. When ``append`` returns, it is durable: only then may it take effect."""

    async def append(self, events: Records, outcomes: Records, track: Records) -> None: ...


class Venue(Protocol):
    """Takes approved orders; what becomes of them comes back as FILL events, each told once.

    An order is known by the run and its number, so that whatever is sent twice counts once.
    """

    async def submit(self, approved: Any) -> None:
        """Send an order, an OUTCOME row of kind APPROVED."""

    async def recover(self, working: Records) -> None:
        """Settle the orders that a stop left open, before the loop goes on.

        ``working`` holds ORDER rows, with the quantity whose fills the run has not seen. What
        filled since comes as events; what never arrived is sent, or ended by a final fill of
        nothing. An error is for a venue that cannot tell: then nothing is traded.
        """
