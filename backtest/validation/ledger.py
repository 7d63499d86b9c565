"""The trial ledger: a row before any result is known, a row when it ends, each sealed by the next.

A search is believed by how many trials it took, so what counts them must not be able to forget.
Rows are chained by hashes: to drop, edit or reorder one breaks the chain at that row. Cutting the
tail breaks no chain, so the head (how many rows, and the last hash) also stands in every file of
results, and the ledger must still hold what each of them saw.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    select,
    update,
)

from backtest.tables import Transaction, ensure
from core.errors import JournalError

GENESIS = "0" * 64
IDS_PER_QUERY = 500

metadata = MetaData()

rows = Table(
    "trial_ledger",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("trial", String(120), nullable=False),
    Column("ended", Boolean, nullable=False),
    Column("ts_ms", BigInteger, nullable=False),
    Column("fate", String(10), nullable=False),
    Column("study", String(120), nullable=False),
    Column("content", Text, nullable=False),
    Column("lease_until_ms", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    UniqueConstraint("trial", "ended"),
    Index("trial_ledger_study", "study"),
)
"""``content`` is JSON: of a row that begins a trial its causes, of one that ends it its result."""

heads = Table(
    "trial_ledger_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)
"""One row, which every appender locks first: so they stand in line, in either database."""


class LedgerBroken(JournalError):
    """The ledger is not what was written: a row is missing, altered or out of its place."""


class Fate(StrEnum):
    """What became of a trial. All count: a search that crashed has looked all the same."""

    BEGUN = "begun"
    RESULT = "result"
    PRUNED = "pruned"
    FAILED = "failed"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a ledger ends: the number of its rows and the hash of the last."""

    count: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial before its result is known. ``study`` names the search, ``strategy_hash`` is that of
    the canonical strategy, ``code`` the digest of our sources."""

    id: str
    study: str
    params_hash: str
    strategy_hash: str
    data_hash: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a trial ended. ``returns_hash`` seals its daily returns (``returns.returns_hash``)."""

    trial: str
    fate: Fate
    returns_hash: str = ""
    decisions_hash: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A ledger that was found whole: every trial by its id, and how those that ended did."""

    head: Head
    trials: Mapping[str, Trial]
    endings: Mapping[str, Ending]

    @property
    def count(self) -> int:
        """N: every trial that ever began, whatever became of it."""
        return len(self.trials)

    @property
    def turns(self) -> dict[str, int]:
        """Every trial's place in the order they were counted, from 1."""
        return {name: turn for turn, name in enumerate(self.trials, 1)}

    def results(self, study: str) -> dict[str, Ending]:
        """The trials of a study that ended with a result."""
        return {
            name: ending
            for name, ending in self.endings.items()
            if ending.fate is Fate.RESULT and self.trials[name].study == study
        }

    @property
    def running(self) -> tuple[str, ...]:
        """Trials that began and have not ended."""
        return tuple(name for name in self.trials if name not in self.endings)


class Ledger:
    """The ledger in a database, SQLite or PostgreSQL; its tables are made where they lack.

    ``transaction`` opens one that is committed whole or not at all, such as ``engine.begin``; what
    it raises when the database refuses is what is raised here.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        ensure(transaction, metadata, _begin_chain)

    def begin(
        self, trials: Sequence[Trial], *, now_ms: int, lease_ms: int, again: bool = False
    ) -> Head:
        """Write that these trials are about to run, all or none; answers the new head.

        Call it before anything about a result can be known. A trial that has not ended when its
        lease has is taken for crashed. JournalError when one began before; with ``again`` such a
        one is left as it stands.
        """
        with self._transaction() as connection:
            head = _lock(connection)
            known = _found(connection, [trial.id for trial in trials], ended=False)
            if again:
                trials = [trial for trial in trials if trial.id not in known]
            _refuse_twice([trial.id for trial in trials], known, "began")
            return _write(connection, head, (_begun(each, now_ms, lease_ms) for each in trials))

    def end(self, endings: Sequence[Ending], *, now_ms: int, again: bool = False) -> Head:
        """Write how these trials ended, all or none; JournalError when one did before, or never
        began. With ``again`` one that ended before is left as it stands."""
        with self._transaction() as connection:
            head = _lock(connection)
            names = [ending.trial for ending in endings]
            began = _found(connection, names, ended=False)
            unknown = [name for name in names if name not in began]
            if unknown:
                raise JournalError(f"trial ledger: trial {unknown[0]} ended, but it never began")
            known = _found(connection, names, ended=True)
            if again:
                endings = [ending for ending in endings if ending.trial not in known]
            _refuse_twice([ending.trial for ending in endings], known, "ended")
            return _write(connection, head, (_ended(each, began, now_ms) for each in endings))

    def sweep_up(self, *, now_ms: int) -> tuple[str, ...]:
        """Mark every trial whose lease has run out as crashed; answers their ids.

        The row keeps the evidence: until when the lease ran, and when it was looked at.
        """
        with self._transaction() as connection:
            head = _lock(connection)
            over = rows.alias()
            ended = select(over.c.trial).where(over.c.ended)
            expired = (rows.c.lease_until_ms < now_ms) & ~rows.c.ended
            query = select(rows).where(expired & rows.c.trial.not_in(ended)).order_by(rows.c.seq)
            lost = connection.execute(query).all()
            endings = [
                Ending(
                    trial=row.trial,
                    fate=Fate.CRASHED,
                    note=f"lease ran until {row.lease_until_ms}, looked at {now_ms} (unix ms)",
                )
                for row in lost
            ]
            studies = {row.trial: row.study for row in lost}
            _write(connection, head, (_ended(each, studies, now_ms) for each in endings))
        return tuple(ending.trial for ending in endings)

    def endings(self, trials: Sequence[str]) -> dict[str, Ending]:
        """How those of these trials ended that have; read, not verified as ``history`` does."""
        found: dict[str, Ending] = {}
        with self._transaction() as connection:
            for at in range(0, len(trials), IDS_PER_QUERY):
                mine = rows.c.trial.in_(trials[at : at + IDS_PER_QUERY]) & rows.c.ended
                for row in connection.execute(select(rows).where(mine)):
                    found[row.trial] = _ending(row)
        return found

    def head(self) -> Head:
        """Where the ledger ends now: what a file of results must carry."""
        with self._transaction() as connection:
            return _head(connection)

    def history(self, sealed: Iterable[Head] = ()) -> History:
        """Read and verify every row. ``sealed`` are heads kept elsewhere, all of which the ledger
        must have passed through. LedgerBroken names the first row that is not as it was."""
        with self._transaction() as connection:
            head = _lock(connection)
            found = connection.execute(select(rows).order_by(rows.c.seq)).all()
        hashes = _verified(found)
        for place in (head, *sealed):
            _check_seal(place, hashes)
        if head.count != len(found):
            raise LedgerBroken(f"trial ledger: row {head.count + 1} stands beyond its recorded end")
        began = [row for row in found if not row.ended]
        over = [row for row in found if row.ended]
        return History(
            head=head,
            trials={
                row.trial: Trial(id=row.trial, study=row.study, **json.loads(row.content))
                for row in began
            },
            endings={row.trial: _ending(row) for row in over},
        )


_COLUMNS = ("id", "trial", "study", "fate")


def _begin_chain(connection: Connection) -> None:
    if connection.execute(select(heads)).one_or_none() is None:
        connection.execute(insert(heads).values(id=1, count=0, hash=GENESIS))


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _begun(trial: Trial, now_ms: int, lease_ms: int) -> dict[str, Any]:
    return {
        "trial": trial.id,
        "ended": False,
        "ts_ms": now_ms,
        "fate": Fate.BEGUN.value,
        "study": trial.study,
        "content": _json({k: v for k, v in asdict(trial).items() if k not in _COLUMNS}),
        "lease_until_ms": now_ms + lease_ms,
    }


def _ended(ending: Ending, studies: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    assert ending.fate is not Fate.BEGUN, "to begin is no end"
    return {
        "trial": ending.trial,
        "ended": True,
        "ts_ms": now_ms,
        "fate": ending.fate.value,
        "study": studies[ending.trial],
        "content": _json({k: v for k, v in asdict(ending).items() if k not in _COLUMNS}),
        "lease_until_ms": 0,
    }


def _ending(row: Row[Any]) -> Ending:
    return Ending(trial=row.trial, fate=Fate(row.fate), **json.loads(row.content))


def _found(connection: Connection, trials: Sequence[str], *, ended: bool) -> dict[str, str]:
    """Study of each of these trials that began, or that ended."""
    found: dict[str, str] = {}
    for at in range(0, len(trials), IDS_PER_QUERY):
        mine = rows.c.trial.in_(trials[at : at + IDS_PER_QUERY]) & (rows.c.ended == ended)
        query = select(rows.c.trial, rows.c.study).where(mine)
        found |= {row.trial: row.study for row in connection.execute(query)}
    return found


def _refuse_twice(trials: Sequence[str], known: Mapping[str, str], did: str) -> None:
    seen = set(known)
    for trial in trials:
        if trial in seen:
            raise JournalError(f"trial ledger: trial {trial} {did} before, and may only once")
        seen.add(trial)


def _head(connection: Connection) -> Head:
    row = connection.execute(select(heads.c.count, heads.c.hash)).one_or_none()
    if row is None:
        raise LedgerBroken("trial ledger: the row that says where it ends is gone")
    return Head(row[0], row[1])


def _lock(connection: Connection) -> Head:
    """The head, held until the transaction ends: a write is what both databases wait for."""
    connection.execute(update(heads).values(id=heads.c.id))
    return _head(connection)


def _write(connection: Connection, head: Head, values: Iterable[dict[str, Any]]) -> Head:
    written = []
    for each in values:
        row = {"seq": head.count + 1, **each}
        row["hash"] = _hash(head.hash, row)
        head = Head(row["seq"], row["hash"])
        written.append(row)
    if written:
        connection.execute(insert(rows), written)
        connection.execute(update(heads).values(count=head.count, hash=head.hash))
    return head


def _hash(before: str, row: Mapping[str, Any]) -> str:
    """Over the hash before it and every column but its own hash."""
    sealed = [row[column.name] for column in rows.c if column.name != "hash"]
    return hashlib.sha256(f"{before}{json.dumps(sealed)}".encode()).hexdigest()


def _verified(found: Sequence[Row[Any]]) -> list[str]:
    """The hashes of rows in order, the genesis first."""
    hashes = [GENESIS]
    for seq, row in enumerate(found, 1):
        if row.seq != seq:
            raise LedgerBroken(f"trial ledger: row {seq} is missing, row {row.seq} follows")
        if _hash(hashes[-1], row._asdict()) != row.hash:
            raise LedgerBroken(f"trial ledger: row {seq} (trial {row.trial}) was altered")
        hashes.append(row.hash)
    return hashes


def _check_seal(seal: Head, hashes: Sequence[str]) -> None:
    if seal.count >= len(hashes):
        raise LedgerBroken(
            f"trial ledger: rows {len(hashes)} to {seal.count} were cut from its end"
        )
    if hashes[seal.count] != seal.hash:
        raise LedgerBroken(
            f"trial ledger: row {seal.count} is not the one that was sealed: the rows up to it "
            "were written anew"
        )
