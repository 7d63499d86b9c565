"""Calls of models in the journal: every one with its prompt and raw reply, and what they cost."""

from collections.abc import Sequence

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine, func, insert, select, update

from daemon.journal.database import transaction
from daemon.journal.schema import calls, spending
from forecasting.questions import Reply

_SAME = ("model", "prompt", "prompt_hash", "key", "raw", "reason", "contaminated", "replayed")
_SUMS = ("latency_ms", "tokens_in", "tokens_out", "cost_micros", "attempts")


def write_calls(engine: Engine, run_id: str, replies: Sequence[tuple[int, Reply]]) -> None:
    """Add the calls behind the answers to these questions, by their numbers in the run; what is
    there already stays."""
    rows = [
        {
            "run_id": run_id,
            "question": number,
            "ts": reply.question.ts,
            "outcome": reply.outcome.value,
            "messages": [[message.role, message.text] for message in reply.messages],
            "answer": reply.answer.model_dump(mode="json") if reply.answer else None,
            **{name: getattr(reply, name) for name in (*_SAME, *_SUMS)},
        }
        for number, reply in replies
    ]
    if not rows:
        return
    with transaction(engine, writes=True) as connection:
        known = select(calls.c.question).where(calls.c.run_id == run_id)
        there = set(connection.scalars(known))
        if new := [row for row in rows if row["question"] not in there]:
            connection.execute(insert(calls), new)


class SqlSpending:
    """The sums behind a budget: a ``forecasting.budget.Spending``, durable when a call returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = CapacityLimiter(1)

    async def total_micros(self, scope: str) -> int:
        """What is held and spent in a scope, over all runs."""
        return await to_thread.run_sync(self._total, scope, limiter=self._turn)

    async def hold(self, scopes: tuple[str, ...], micros: int) -> int:
        """Set money aside in every scope; answers the hold's number."""
        return await to_thread.run_sync(self._hold, scopes, micros, limiter=self._turn)

    async def settle(self, hold: int, micros: int) -> None:
        """Put what a call cost in the place of what was held for it."""
        await to_thread.run_sync(self._settle, hold, micros, limiter=self._turn)

    def _total(self, scope: str) -> int:
        query = select(func.sum(spending.c.micros)).where(spending.c.scope == scope)
        with transaction(self._engine) as connection:
            return int(connection.scalar(query) or 0)

    def _hold(self, scopes: tuple[str, ...], micros: int) -> int:
        with transaction(self._engine, writes=True) as connection:
            hold = 1 + int(connection.scalar(select(func.max(spending.c.hold))) or 0)
            rows = [{"hold": hold, "scope": scope, "micros": micros} for scope in scopes]
            connection.execute(insert(spending), rows)
        return hold

    def _settle(self, hold: int, micros: int) -> None:
        mine = update(spending).where(spending.c.hold == hold).values(micros=micros)
        with transaction(self._engine, writes=True) as connection:
            connection.execute(mine)
