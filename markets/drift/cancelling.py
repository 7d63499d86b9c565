"""Cancelling what rests on the account, until finalized evidence shows that nothing does.

Cancelling twice is harmless, and so is cancelling late: ours are immediate-or-cancel, so that none
of them ever rests for a cancel to meet. So this needs no record of what was signed: the account
itself tells, after a restart as before it, whether there is anything left to do.
"""

from collections.abc import Awaitable, Callable

import anyio

from core.errors import LockstepError
from core.sending import Refusal, Signed, Unreachable
from markets.drift.chain import DriftChain
from markets.drift.rpc import Node
from markets.drift.views import Reader, first_of

Tell = Callable[[int | None, str], None]
"""How many orders are open, None where nobody knows, and what is in the way, if anything is."""


class Cancelling:
    """Cancels all that is open on the account of a chain; ``tell`` hears whatever is new."""

    def __init__(
        self,
        chain: DriftChain,
        reader: Reader,
        tell: Tell,
        *,
        pause_s: float,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._chain, self._reader, self._tell = chain, reader, tell
        self._pause_s, self._sleep = pause_s, sleep
        self._signed: Signed | None = None

    async def clear(self) -> None:
        """Return when the account, finalized since the call, has no open order; whatever is in the
        way of that is waited for."""
        since, last = 0, None
        while True:
            found, why = None, ""
            try:
                slot, found = await self._open("confirmed")
                since = since or slot
                if found:
                    await self._cancel()
                else:
                    slot, found = await self._open("finalized")
            except (Unreachable, Refusal) as trouble:
                why = str(trouble)
            if found == 0 and not why and slot >= since:
                return
            if (found or why) and (found, why) != last:
                last = found, why
                self._tell(found, why)
            await self._sleep(self._pause_s)

    async def _open(self, commitment: str) -> tuple[int, int]:
        """The slot of a view of the account, and how many open orders it has there."""
        slot, user = await self._reader.user(self._chain.user, commitment)
        if user is None:
            raise Unreachable(f"account {self._chain.user} is not there as of slot {slot}")
        return slot, user.open_orders

    async def _cancel(self) -> None:
        """Send what cancels by every node: the same bytes until they can land no more, and only
        then others, so that a fee is paid once."""
        if self._signed is not None:
            tip = await first_of(self._reader.nodes, lambda node: node.finalized())
            if tip.height > self._signed.last_valid_height:
                self._signed = None
        if self._signed is None:
            self._signed = await self._chain.sign_cancel()
        payload, failures = self._signed.payload, list[LockstepError]()

        async def send(node: Node) -> None:
            try:
                await node.send(payload)
            except (Unreachable, Refusal) as failure:
                failures.append(failure)

        async with anyio.create_task_group() as group:
            for node in self._reader.nodes:
                group.start_soon(send, node)
        if len(failures) == len(self._reader.nodes):
            raise failures[-1]
