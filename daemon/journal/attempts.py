"""Signed transactions in the journal: there before they are sent, settled once.

A transaction that could have been sent and is not on record could be signed a second time, so a
write returns when it is on disk, like the journal's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine, Row, insert, or_, select, update

from core.errors import JournalError
from daemon.journal.database import transaction
from daemon.journal.schema import attempts
from execution.sending import Attempt, Signed, State

VERDICT = ("code", "slot", "quantity", "paid_micros", "fee_micros", "settled_ms")


class SqlAttempts:
    """The attempts of one run: an ``execution.sending.Attempts``, in threads like the journal."""

    def __init__(self, engine: Engine, run_id: str) -> None:
        self._engine = engine
        self._run_id = run_id
        self._turn = CapacityLimiter(1)

    async def write_signed(self, attempt: Attempt) -> None:
        """Add an attempt; JournalError when its signature is known, or its order is not."""
        assert attempt.state is State.SIGNED, attempt
        await to_thread.run_sync(self._insert, attempt, limiter=self._turn)

    async def write_verdict(self, attempt: Attempt) -> None:
        """Settle an attempt; JournalError when it is unknown or settled already."""
        assert attempt.state is not State.SIGNED, attempt
        await to_thread.run_sync(self._settle, attempt, limiter=self._turn)

    async def load(self, order_ids: Sequence[int]) -> Mapping[int, Attempt]:
        """The newest attempt of each of these orders that has one, and of every unsettled one."""
        return await to_thread.run_sync(self._read, order_ids, limiter=self._turn)

    def _insert(self, attempt: Attempt) -> None:
        signed = attempt.signed
        values = {
            "run_id": self._run_id,
            "order_id": attempt.order_id,
            "attempt": attempt.number,
            "signature": signed.signature,
            "payload": signed.payload,
            "last_valid_height": signed.last_valid_height,
            "signed_ms": attempt.signed_ms,
            **_verdict(attempt),
        }
        with transaction(self._engine, writes=True) as connection:
            connection.execute(insert(attempts), values)

    def _settle(self, attempt: Attempt) -> None:
        mine = (
            (attempts.c.run_id == self._run_id)
            & (attempts.c.order_id == attempt.order_id)
            & (attempts.c.attempt == attempt.number)
            & (attempts.c.state == State.SIGNED.value)
        )
        with transaction(self._engine, writes=True) as connection:
            query = update(attempts).where(mine).values(_verdict(attempt))
            if connection.execute(query).rowcount != 1:
                raise JournalError(
                    f"run {self._run_id}: attempt {attempt.number} of order {attempt.order_id} "
                    "is not there to be settled, or is settled already"
                )

    def _read(self, order_ids: Sequence[int]) -> Mapping[int, Attempt]:
        unsettled = attempts.c.state == State.SIGNED.value
        query = (
            select(attempts)
            .where(attempts.c.run_id == self._run_id)
            .where(or_(attempts.c.order_id.in_(order_ids), unsettled))
            .order_by(attempts.c.order_id, attempts.c.attempt)
        )
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return {row.order_id: _attempt(row) for row in rows}


def _verdict(attempt: Attempt) -> dict[str, Any]:
    return {"state": attempt.state.value, **{name: getattr(attempt, name) for name in VERDICT}}


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        order_id=row.order_id,
        number=row.attempt,
        signed=Signed(row.signature, bytes(row.payload), row.last_valid_height),
        signed_ms=row.signed_ms,
        state=State(row.state),
        **{name: getattr(row, name) for name in VERDICT},
    )
