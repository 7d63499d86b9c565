"""The only way to a model: every attempt has its money held, waits its turn, and is settled.

A replay has no caller, and so cannot reach one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from forecasting.budget import Budget, Exhausted
from forecasting.calls import Client, Completion, Failure, Request
from forecasting.pacing import Pacing
from forecasting.questions import Outcome
from forecasting.registry import Registry


@dataclass(slots=True)
class Call:
    """How a call went: ``outcome`` is OK where the model wrote something, whatever it is worth."""

    outcome: Outcome = Outcome.OK
    reason: str = ""
    raw: str = ""
    latency_ms: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_micros: int = 0
    attempts: int = 0


class Caller:
    """Clients, pace and money of all services. Leaving it closes the clients."""

    def __init__(self, registry: Registry, clients: Mapping[str, Client], budget: Budget) -> None:
        self.registry, self.budget = registry, budget
        self._clients = clients
        self._paces = {
            name: Pacing(service.concurrency_max, service.requests_per_minute)
            for name, service in registry.services.items()
        }

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the clients, come what may."""
        with anyio.CancelScope(shield=True):
            for client in self._clients.values():
                await client.close()

    async def call(self, request: Request) -> Call:
        """Ask until answered, refused, or out of time; every end is an outcome."""
        began_s = anyio.current_time()
        call = Call()
        try:
            with anyio.fail_after(request.model.timeout_s):
                await self._ask(request, call)
        except TimeoutError:
            call.outcome = Outcome.TIMEOUT
            call.reason = f"no answer within {request.model.timeout_s:g} s"
        except Failure as failure:
            call.outcome, call.reason, call.raw = failure.outcome, failure.reason, failure.raw
        except Exhausted as error:
            call.outcome, call.reason = Outcome.REFUSED_BUDGET, str(error)
        call.latency_ms = round((anyio.current_time() - began_s) * 1_000)
        return call

    async def _ask(self, request: Request, call: Call) -> None:
        service = self.registry.services[request.model.service]
        pace = self._paces[request.model.service]
        wait_s = service.wait_first_s
        while True:
            left_s = anyio.current_effective_deadline() - anyio.current_time()
            if pace.pause_s > left_s:
                raise Failure(Outcome.THROTTLED, f"the service wants {pace.pause_s:.0f} s of peace")
            try:
                return await self._attempt(request, call, pace)
            except Failure as failure:
                pace.pause(failure.pause_s)
                if not failure.retry or call.attempts >= service.attempts_max:
                    raise
            await anyio.sleep(wait_s)
            wait_s *= 2

    async def _attempt(self, request: Request, call: Call, pace: Pacing) -> None:
        most = self._cost_micros_max(request)
        # nothing to count: the journal is not written for free models
        hold = await self.budget.hold(request.name, most) if most else None
        cost = 0
        try:
            async with pace.turn():
                call.attempts += 1
                cost = most  # once it is sent, only the service can tell that it cost less
                try:
                    completion = await self._clients[request.model.service].complete(request)
                except Failure as failure:
                    cost = most if failure.billed else 0
                    raise
            cost = self._cost_micros(request, completion, most)
        finally:
            call.cost_micros += cost
            if hold is not None:
                with anyio.CancelScope(shield=True):
                    await self.budget.settle(hold, cost)
        _note(call, completion, request.output_tokens_max)

    def _cost_micros_max(self, request: Request) -> int:
        if request.model.price is None:
            if self.registry.services[request.model.service].paid:
                raise Failure(Outcome.REFUSED_BUDGET, f"model '{request.name}' has no price")
            return 0
        return request.model.price.cost_micros(request.tokens_in_max, request.output_tokens_max)

    def _cost_micros(self, request: Request, completion: Completion, most: int) -> int:
        price, told = request.model.price, (completion.tokens_in, completion.tokens_out)
        if price is None or told[0] is None or told[1] is None:
            return most
        return price.cost_micros(told[0], told[1])


def _note(call: Call, completion: Completion, tokens_max: int) -> None:
    call.raw = completion.text
    call.tokens_in, call.tokens_out = completion.tokens_in or 0, completion.tokens_out or 0
    if completion.declined:
        call.outcome, call.reason = Outcome.DECLINED, "the model will not answer"
    elif completion.cut:
        call.outcome = Outcome.CUT
        call.reason = f"cut off at {tokens_max:,} tokens, the most it may write"
