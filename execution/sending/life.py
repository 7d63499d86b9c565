"""The life of one order: sign, keep, send, look, until the chain's own evidence ends it.

Each turn starts from what is durable, so a life that a crash cut short is taken up by the same code
that began it.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import anyio

from core.model import MICROS_PER_UNIT
from core.sending import (
    Attempt,
    Attempts,
    Chain,
    Ending,
    Endpoint,
    Fill,
    Order,
    Preflight,
    Seen,
    State,
    Unreachable,
    Unsignable,
)
from execution.sending.evidence import Sight, expired, finalized
from execution.sending.wake import Sleep, Wake

T = TypeVar("T")
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Ended:
    """How an order ended: what was filled at which price, for which fee (quote), and the code."""

    quantity: float = 0.0
    price: float = 0.0
    fee: float = 0.0
    code: int = Ending.NONE


def ended_by(attempt: Attempt) -> Ended:
    """What a settled attempt means for its order.

    One price for all its fills: quantity times price gives what was paid back to the micro.
    """
    if attempt.quantity == 0.0:
        return Ended(fee=attempt.fee_micros / MICROS_PER_UNIT, code=attempt.code)
    price = attempt.paid_micros / MICROS_PER_UNIT / attempt.quantity
    return Ended(attempt.quantity, price, attempt.fee_micros / MICROS_PER_UNIT, attempt.code)


class Life:
    """Takes orders through their lives. ``halted`` tells of an order that a halt came after it."""

    def __init__(
        self,
        chain: Chain,
        attempts: Attempts,
        halted: Callable[[Order], bool],
        clock: Clock,
        sleep: Sleep,
        resend_s: float,
    ) -> None:
        self._chain = chain
        self._attempts = attempts
        self._halted = halted
        self._clock = clock
        self._sleep = sleep
        self._resend_s = resend_s

    async def live(self, order: Order, last: Attempt | None) -> Ended:
        """Live from the newest attempt that is durable to the end; it may take minutes."""
        while True:
            if last is not None and last.state is State.SIGNED:
                last = await self._settle(order, last)
            elif last is not None and (last.state is not State.EXPIRED or last.code):
                return ended_by(last)
            elif why := self._too_late(order):
                return Ended(code=why)
            else:
                try:
                    last = await self._sign(order, 1 if last is None else last.number + 1)
                except Unsignable as refusal:
                    return Ended(code=refusal.code)
                except Unreachable:
                    await self._sleep(self._resend_s)

    def _too_late(self, order: Order) -> Ending:
        """Why an order may neither be signed nor sent any more; NONE when it may."""
        if self._halted(order) and not order.reduce_only:
            return Ending.HALTED
        return Ending.EXPIRED if self._clock() > order.expires_ms else Ending.NONE

    async def _sign(self, order: Order, number: int) -> Attempt:
        signed = await self._chain.sign(order, number)
        attempt = Attempt(order_id=order.id, number=number, signed=signed, signed_ms=self._clock())
        await self._attempts.write_signed(attempt)
        return attempt

    async def _settle(self, order: Order, attempt: Attempt) -> Attempt:
        """Send the same bytes until there is evidence of what became of them; it is made durable.

        An endpoint's hint, at most one of each, is a reason to look at once and nothing else.
        """
        wake = Wake(self._sleep, self._resend_s)
        async with anyio.create_task_group() as group:
            for endpoint in self._chain.endpoints:
                group.start_soon(self._listen, endpoint, attempt, wake)
            verdict = await self._proven(order, attempt, wake)
            group.cancel_scope.cancel()
        await self._attempts.write_verdict(verdict)
        return verdict

    async def _listen(self, endpoint: Endpoint, attempt: Attempt, wake: Wake) -> None:
        with suppress(Unreachable):
            await endpoint.hint(attempt.signed.signature)
            wake.hint()

    async def _proven(self, order: Order, attempt: Attempt, wake: Wake) -> Attempt:
        """The attempt with the verdict that the evidence allows, once it does.

        An endpoint's answer to a send is no evidence: what it refused, another may have passed on,
        and what it failed to answer may have landed. So an order refused at preflight ends only
        with its blockhash: until then whoever has the bytes can land them, and its own time limit
        proves no less waiting, for the chain's clock is an estimate that may stand behind.
        """
        code, hinted = 0, False
        while True:
            if not (hinted or self._too_late(order)):
                code = await self._send(attempt.signed.payload) or code
            hinted = await wake.pause()  # nothing is final at once
            verdict = await self._judge(attempt, code)
            if verdict is not None:
                return verdict

    async def _send(self, payload: bytes) -> int:
        """Send by every endpoint; answers a code one of them refused it with, 0 for none."""

        async def send(endpoint: Endpoint) -> int:
            try:
                await endpoint.send(payload)
            except Preflight as refusal:
                return refusal.code
            return 0

        return max(await self._ask(send), default=0)

    async def _judge(self, attempt: Attempt, code: int) -> Attempt | None:
        """The attempt with its verdict, or None while nothing is proven."""
        signature = attempt.signed.signature

        async def see(endpoint: Endpoint) -> Sight:
            return Sight(await endpoint.finalized(), await endpoint.look(signature))

        sights = await self._ask(see)
        seen = finalized(sights)
        if seen is not None:
            return await self._landed(attempt, seen)
        if expired(sights, attempt.signed.last_valid_height):
            return replace(attempt, state=State.EXPIRED, code=code, settled_ms=self._clock())
        return None

    async def _landed(self, attempt: Attempt, seen: Seen) -> Attempt | None:
        """What a transaction did that is on chain for good; None while no endpoint has it whole."""
        at = replace(attempt, slot=seen.slot, settled_ms=self._clock())
        if seen.error is not None:
            return replace(at, state=State.FAILED, code=seen.error)
        signature = attempt.signed.signature
        told = await self._ask(lambda endpoint: endpoint.fills(signature))
        fills: Sequence[Fill] | None = next((one for one in told if one is not None), None)
        if fills is None:
            return None
        return replace(
            at,
            state=State.LANDED,
            quantity=math.fsum(fill.quantity for fill in fills),
            paid_micros=sum(fill.paid_micros for fill in fills),
            fee_micros=sum(fill.fee_micros for fill in fills),
        )

    async def _ask(self, ask: Callable[[Endpoint], Awaitable[T]]) -> list[T]:
        """The answers of all endpoints that gave one, asked side by side: silence is no answer."""
        answers: list[T] = []

        async def one(endpoint: Endpoint) -> None:
            with suppress(Unreachable):
                answers.append(await ask(endpoint))

        async with anyio.create_task_group() as group:
            for endpoint in self._chain.endpoints:
                group.start_soon(one, endpoint)
        return answers
