"""Calls of models in the journal: every one with its prompt and raw reply, and what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, Engine, delete, func, insert, select, text, update

from daemon.journal.database import transaction
from daemon.journal.schema import calls, spending
from forecasting.agents import Decided
from forecasting.budget import Exhausted
from forecasting.questions import Reply

_SAME = ("model", "prompt", "prompt_hash", "key", "raw", "reason", "contaminated", "replayed")
_SUMS = ("latency_ms", "tokens_in", "tokens_out", "cost_micros", "attempts")
SETTLED = 0
"""The hold that stands for all that are settled: so few rows are added up, however long a run."""


def write_calls(engine: Engine, run_id: str, replies: Sequence[tuple[int, Reply]]) -> None:
    """Add the calls behind the answers to these questions, by their numbers in the run; what is
    there already stays."""
    rows = [
        {
            "run_id": run_id,
            "question": number,
            "ts": reply.question.ts,
            "outcome": reply.outcome.value,
            "arms": dict(reply.arms),
            "agent": _agent(reply),
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


def _agent(reply: Reply) -> dict[str, Any] | None:
    if not isinstance(reply, Decided):
        return None
    told: dict[str, Any] = {name: getattr(reply, name) for name in ("code_hash", "fallback")}
    return told | {"steps": list(reply.steps), "ends": [end.value for end in reply.ends]}


class SqlSpending:
    """The sums behind a budget: a ``forecasting.budget.Spending``, durable when a call returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = CapacityLimiter(1)

    async def hold(self, limits: Mapping[str, int], micros: int) -> int:
        """Set money aside in every scope; answers the hold's number. Exhausted."""
        return await to_thread.run_sync(self._hold, limits, micros, limiter=self._turn)

    async def settle(self, hold: int, micros: int) -> None:
        """Put what a call cost in the place of what was held for it."""
        await to_thread.run_sync(self._settle, hold, micros, limiter=self._turn)

    def _hold(self, limits: Mapping[str, int], micros: int) -> int:
        with self._alone() as connection:
            for scope, limit in limits.items():
                query = select(func.sum(spending.c.micros)).where(spending.c.scope == scope)
                spent = int(connection.scalar(query) or 0)
                if spent + micros > limit:
                    raise Exhausted(scope, micros, limit, spent)
            hold = 1 + int(connection.scalar(select(func.max(spending.c.hold))) or SETTLED)
            rows = [{"hold": hold, "scope": scope, "micros": micros} for scope in limits]
            connection.execute(insert(spending), rows)
        return hold

    def _settle(self, hold: int, micros: int) -> None:
        mine = spending.c.hold == hold
        with self._alone() as connection:
            scopes = set(connection.scalars(select(spending.c.scope).where(mine)))
            connection.execute(delete(spending).where(mine))
            settled = (spending.c.hold == SETTLED) & spending.c.scope.in_(scopes)
            there = set(connection.scalars(select(spending.c.scope).where(settled)))
            more = spending.c.micros + micros
            connection.execute(update(spending).where(settled).values(micros=more))
            rows = [{"hold": SETTLED, "scope": name, "micros": micros} for name in scopes - there]
            if rows:
                connection.execute(insert(spending), rows)

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A transaction that no other process that spends comes between."""
        with transaction(self._engine, writes=True) as connection:
            if self._engine.dialect.name == "postgresql":  # SQLite has one writer anyway
                connection.execute(text("LOCK TABLE spending IN SHARE ROW EXCLUSIVE MODE"))
            yield connection
