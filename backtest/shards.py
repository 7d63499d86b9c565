"""Work in shares for many machines: one table of leases in the database that all of them reach.

A worker takes a share under a lease and extends it while it works. What a killed worker held is
free again when its lease has run out; so a share may be worked on twice, but has one result, for
its id is a hash of its content and equal content gives equal results.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from backtest.tables import Transaction, ensure
from core.errors import JournalError

ATTEMPTS_MAX = 5
"""A share whose workers were lost so often is what kills them."""
IDS_PER_QUERY = 500

metadata = MetaData()

table = Table(
    "shards",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("study", String(120), nullable=False),
    Column("place", Integer, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("lease_until_ms", BigInteger, nullable=False),
    Column("worker", String(120), nullable=False),
    Column("result", Text),
    Column("attempts", Integer, nullable=False),
    Index("shards_state", "state", "study", "place"),
)


class State(StrEnum):
    """Where a shard stands."""

    WAITING = "waiting"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A share of a study's work; ``payload`` is plain data and says all that decides the result."""

    study: str
    place: int
    kind: str
    payload: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """Hash of its content."""
        return hashlib.sha256(_json([self.study, self.kind, self.payload]).encode()).hexdigest()


class Shards:
    """The table of leases. Every method is one transaction, and may be called again when nobody
    knows whether it went through."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        ensure(transaction, metadata)

    def enqueue(self, shards: Sequence[Shard]) -> None:
        """Offer these; those that are there already stay as they are, done or not, but for one
        that failed: who asks again wants it tried again."""
        with self._transaction() as connection:
            known = _states(connection, [shard.id for shard in shards])
            fresh = [_cells(shard) for shard in shards if shard.id not in known]
            if fresh:
                connection.execute(insert(table), fresh)
            failed = [name for name, state in known.items() if state is State.FAILED]
            again = {"state": State.WAITING, "attempts": 0, "result": None}
            for ids in _parts(failed):
                connection.execute(update(table).where(table.c.id.in_(ids)).values(again))

    def claim(self, worker: str, *, now_ms: int, lease_ms: int) -> Shard | None:
        """Take the first free shard until its lease ends; None when none is free."""
        lost = (table.c.state == State.LEASED) & (table.c.lease_until_ms < now_ms)
        free = (table.c.state == State.WAITING) | lost
        query = select(table).where(free).order_by(table.c.study, table.c.place).limit(1)
        with self._transaction() as connection:
            while True:
                row = connection.execute(query.with_for_update(skip_locked=True)).one_or_none()
                if row is None:
                    return None
                mine = update(table).where(table.c.id == row.id)
                if row.attempts < ATTEMPTS_MAX:
                    break
                why = f"{row.attempts} workers were lost over it, the last was {row.worker}"
                connection.execute(mine.values(state=State.FAILED, result=why))
            connection.execute(
                mine.values(
                    state=State.LEASED,
                    worker=worker,
                    lease_until_ms=now_ms + lease_ms,
                    attempts=row.attempts + 1,
                )
            )
            return _shard(row)

    def extend(self, shard: Shard, worker: str, *, until_ms: int) -> bool:
        """Hold a lease longer; False when it is no longer this worker's."""
        held = (table.c.worker == worker) & (table.c.state == State.LEASED)
        query = update(table).where(table.c.id == shard.id).where(held)
        with self._transaction() as connection:
            return connection.execute(query.values(lease_until_ms=until_ms)).rowcount == 1

    def release(self, shard: Shard, worker: str) -> None:
        """Give a shard back untried: this worker is not the one for it."""
        held = (table.c.worker == worker) & (table.c.state == State.LEASED)
        back = {"state": State.WAITING, "attempts": table.c.attempts - 1}
        with self._transaction() as connection:
            connection.execute(update(table).where(table.c.id == shard.id).where(held).values(back))

    def finish(self, shard: Shard, result: Mapping[str, Any]) -> None:
        """Keep its result, whoever holds the lease by now; JournalError when it is there and
        another one. A shard nobody waits for any more is let go."""
        text = _json(result)
        with self._transaction() as connection:
            row = connection.execute(
                select(table.c.state, table.c.result)
                .where(table.c.id == shard.id)
                .with_for_update()
            ).one_or_none()
            if row is not None and row.state == State.DONE and row.result != text:
                raise JournalError(f"shard {shard.id[:12]} of {shard.study} had another result")
            done = update(table).where(table.c.id == shard.id)
            connection.execute(done.values(state=State.DONE, result=text))

    def fail(self, shard: Shard, why: str) -> None:
        """Say that it cannot be done; a result that is there stays."""
        open_ = (table.c.id == shard.id) & (table.c.state != State.DONE)
        with self._transaction() as connection:
            query = update(table).where(open_).values(state=State.FAILED, result=why)
            connection.execute(query)

    def states(self, shards: Sequence[Shard]) -> dict[str, State]:
        """Where those of these that are there stand, by id."""
        with self._transaction() as connection:
            return _states(connection, [shard.id for shard in shards])

    def result(self, shard: Shard) -> Any:
        """The result of one that is done; JournalError for one that failed or is not done."""
        query = select(table.c.state, table.c.result).where(table.c.id == shard.id)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or row.state != State.DONE:
            why = "it is not done" if row is None or row.state != State.FAILED else row.result
            raise JournalError(f"shard {shard.place} of {shard.study} has no result: {why}")
        return json.loads(row.result)

    def forget(self, shards: Sequence[Shard]) -> None:
        """Take these off the table: their results were used."""
        with self._transaction() as connection:
            for ids in _parts([shard.id for shard in shards]):
                connection.execute(delete(table).where(table.c.id.in_(ids)))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _cells(shard: Shard) -> dict[str, Any]:
    return {
        "id": shard.id,
        "study": shard.study,
        "place": shard.place,
        "kind": shard.kind,
        "payload": _json(shard.payload),
        "state": State.WAITING,
        "lease_until_ms": 0,
        "worker": "",
        "attempts": 0,
    }


def _shard(row: Row[Any]) -> Shard:
    payload = json.loads(row.payload)
    return Shard(study=row.study, place=row.place, kind=row.kind, payload=payload)


def _states(connection: Connection, names: Sequence[str]) -> dict[str, State]:
    found: dict[str, State] = {}
    for ids in _parts(names):
        query = select(table.c.id, table.c.state).where(table.c.id.in_(ids))
        found |= {row.id: State(row.state) for row in connection.execute(query)}
    return found


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(names), IDS_PER_QUERY):
        yield names[at : at + IDS_PER_QUERY]
