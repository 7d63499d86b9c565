"""Start-up is recovery: fold the journal back into the state, and prove that it is the same.

Every outcome is recorded, so the fold is also an audit: what the loop says now of each event must
be what it said then, byte for byte. A run recorded by other code or other settings is not gone on
with, because nobody could tell its past from its present.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import structlog
from sqlalchemy import Engine as Database

from core.engine import Engine
from core.errors import JournalError
from core.model import OUTCOME, Records, Result, joined
from core.snapshot import SnapshotError, put
from daemon.journal import RunRow, place_after, read_events, read_outcomes, read_snapshot

EVENTS_PER_FOLD = 1_048_576
EVENTS_PER_AUDIT = 100_000
"""So many are read at once: a year's record would not fit the memory of a small machine."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """Where a run stands: its last event, and the close of each instrument's last bar (ms)."""

    seq: int
    last_ms: int
    last_bar_ms: dict[int, int]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first outcome in which a fold and the record part; a side that has ended is None."""

    place: int
    recorded: Records | None
    folded: Records | None

    def __str__(self) -> str:
        sides = (("recorded", self.recorded), ("now", self.folded))
        return "; ".join(f"{name}: {_spoken(row)}" for name, row in sides)


@dataclass(frozen=True, slots=True)
class Audit:
    """What a fold of a record found: so many events and outcomes compared, how many outcomes were
    not as recorded, and the first of them; ``until_ms`` is the last event's time."""

    events: int
    outcomes: int
    mismatches: int
    first: Divergence | None
    until_ms: int | None


def check_same(row: RunRow, ours: RunRow) -> None:
    """JournalError when a run was recorded under other causes than ours."""
    for what, theirs, mine in (
        ("code", row.code, ours.code),
        ("settings", row.config_hash, ours.config_hash),
        ("kind", row.mode, ours.mode),
    ):
        if theirs != mine:
            raise JournalError(
                f"run {row.run_id} was recorded with other {what} ({theirs}, now {mine}): "
                "start another run by `--run NAME`, its positions begin flat"
            )


def recover(engine: Engine, database: Database, run_id: str) -> Recovered:
    """Fold a run's events into ``engine``, from its newest snapshot on where there is one.

    JournalError where an outcome is not as recorded.
    """
    start = _restore(engine, database, run_id)
    events = read_events(database, run_id, after=start)
    parted = divergence(fold(engine, events), read_outcomes(database, run_id, after=start))
    if parted is not None:
        raise JournalError(
            f"run {run_id}: the journal does not reproduce itself at outcome {parted.place} "
            f"({parted}); nothing was traded: see `lockstep audit {run_id}`"
        )
    return where(engine)


def _restore(engine: Engine, database: Database, run_id: str) -> int:
    """Lay the newest snapshot into the engine; answers its event, 0 when there is none to use."""
    found = read_snapshot(database, run_id)
    if found is None:
        return 0
    try:
        put(engine.arrays, found[1])
    except SnapshotError as error:
        log.warning("snapshot not used", run_id=run_id, seq=found[0], why=str(error))
        return 0
    return found[0]


def where(engine: Engine) -> Recovered:
    """How far an engine has folded."""
    account = engine.arrays["account"][0]
    closes = engine.arrays["instruments"]["bar_ts"][: len(engine.instruments)]
    last = {i: int(close) for i, close in enumerate(closes) if close}
    return Recovered(int(account["seq"]), int(account["now"]), last)


def fold(engine: Engine, events: Records) -> Records:
    """Every outcome of these events, as a new array."""
    return joined(list(_folded(engine, events)), OUTCOME)


def _folded(engine: Engine, events: Records) -> Iterator[Records]:
    for start in range(0, len(events), EVENTS_PER_FOLD):
        block = events[start : start + EVENTS_PER_FOLD]
        at = 0
        while at < len(block):
            at, outcomes, *_ = engine.advance(block, at)
            yield joined([outcomes], OUTCOME)


def audit_record(engine: Engine, database: Database, run_id: str, *, since_ms: int = 0) -> Audit:
    """Fold what is recorded past where ``engine`` stands, and compare every outcome from
    ``since_ms`` on. A record that is still written to is compared up to a whole step of it."""
    found, at = Audit(0, 0, 0, None, None), where(engine).seq
    while (until := place_after(database, run_id, at, EVENTS_PER_AUDIT)) > at:
        events = read_events(database, run_id, after=at, until=until)
        recorded = read_outcomes(database, run_id, after=at, until=until)
        pair = [rows[rows["ts"] >= since_ms] for rows in (fold(engine, events), recorded)]
        found = _with(found, events, *pair)
        at = until
    return found


def _with(found: Audit, events: Records, folded: Records, recorded: Records) -> Audit:
    parted, first = divergence(folded, recorded), found.first
    if parted is not None and first is None:
        first = replace(parted, place=found.outcomes + parted.place)
    return Audit(
        events=found.events + len(events),
        outcomes=found.outcomes + len(recorded),
        mismatches=found.mismatches + (parted is not None and _mismatches(folded, recorded)),
        first=first,
        until_ms=int(events["ts_known"][-1]),
    )


def _mismatches(folded: Records, recorded: Records) -> int:
    """How many have no equal on the other side: every outcome carries the number of its event, so
    one that is missing makes no others differ."""
    ours, theirs = (Counter(row.tobytes() for row in rows) for rows in (folded, recorded))
    return max((ours - theirs).total(), (theirs - ours).total(), 1)


def divergence(folded: Records, recorded: Records) -> Divergence | None:
    """The first place where they are not equal, byte for byte."""
    length = min(len(folded), len(recorded))
    words = OUTCOME.itemsize // 8
    left, right = (
        np.ascontiguousarray(rows[:length]).view("i8").reshape(-1, words)
        for rows in (folded, recorded)
    )
    parted = np.flatnonzero((left != right).any(axis=1))
    if not len(parted) and len(folded) == len(recorded):
        return None
    place = int(parted[0]) if len(parted) else length
    sides = [rows[place : place + 1] if place < len(rows) else None for rows in (recorded, folded)]
    return Divergence(place, *sides)


def _spoken(row: Records | None) -> str:
    if row is None:
        return "nothing"
    one = row[0]
    when = np.datetime64(int(one["ts"]), "ms")
    return f"{Result(int(one['kind'])).name.lower()} of book {one['book']} at {when}"
