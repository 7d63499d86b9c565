"""Runs in the journal: begun, finished, listed, and read back to be replayed or compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from core.errors import JournalError, UnknownName
from core.model import EVENT, HEADER_BYTES, MICROS_PER_UNIT, OUTCOME, Kind, Records
from daemon.journal.database import transaction
from daemon.journal.projection import Mark, Text
from daemon.journal.said import read_commands
from daemon.journal.schema import books, equity, events, runs, steps
from daemon.journal.writer import COMMANDS_KEPT, SqlJournal

SEQ_MAX = 2**62


class RunMode(StrEnum):
    """Where a run's events and fills come from."""

    REPLAY = "replay"
    PAPER = "paper"
    LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookRow:
    """A book of a run, in the engine's order."""

    name: str
    strategy: str
    instrument: str
    params: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run and its causes; what only its end can tell is None until then.

    ``config`` and ``config_hash`` are those of ``backtest.run.config_hash``, ``data`` the digest of
    each instrument's history. ``recorded`` is the number of events the journal holds of it.
    """

    run_id: str
    mode: RunMode
    code: str
    config_hash: str
    config: Mapping[str, Any]
    instruments: tuple[str, ...]
    books: tuple[BookRow, ...]
    equity_start_micros: int
    started_ms: int
    data: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    finished_ms: int | None = None
    decisions_hash: str | None = None
    result: Mapping[str, Any] | None = None
    arrays: str | None = None
    recorded: int = 0


def row_under(config: Mapping[str, Any], **causes: Any) -> RunRow:
    """The row of a run under this config, as it stands when the run begins; ``causes`` are those of
    its fields that the config does not tell."""
    told = ("name", "strategy", "instrument", "params")
    return RunRow(
        config=config,
        instruments=tuple(terms["name"] for terms in config["instruments"]),
        books=tuple(BookRow(**{name: book[name] for name in told}) for book in config["books"]),
        equity_start_micros=round(config["equity"] * MICROS_PER_UNIT),
        **causes,
    )


def begin_run(
    engine: Engine, run: RunRow, explain: Iterable[Text], codes: Mapping[int, str] | None = None
) -> SqlJournal:
    """Start to record a run; ``codes`` names those of its outside venue. A replay that so far has
    only its row gets its events too; a run that has events already is a JournalError."""
    with transaction(engine, writes=True) as connection:
        recorded = recorded_events(connection, run.run_id)
        if recorded:
            raise JournalError(
                f"run {run.run_id} is recorded already, up to event {recorded}: resume it, or "
                f"remove it (`lockstep journal remove {run.run_id}`)"
            )
        if recorded is None:
            insert_run(connection, run)
    return SqlJournal(engine, run.run_id, explain, codes=codes)


def resume_run(
    engine: Engine, run_id: str, explain: Iterable[Text], codes: Mapping[int, str] | None = None
) -> SqlJournal:
    """Go on recording a run where it stopped; an unknown run is UnknownName."""
    with transaction(engine) as connection:
        known(connection, run_id)
        outcomes = select(func.sum(steps.c.outcomes)).where(steps.c.run_id == run_id)
        last = (
            select(equity.c.equity_micros, equity.c.notional_micros)
            .where(equity.c.run_id == run_id)
            .order_by(equity.c.seq.desc())
            .limit(1)
        )
        row = connection.execute(last).one_or_none()
        mark = Mark(
            seq=recorded_events(connection, run_id) or 0,
            outcomes=int(connection.scalar(outcomes) or 0),
            equity=None if row is None else (row[0], row[1]),
        )
    commands = read_commands(engine, run_id, COMMANDS_KEPT)
    return SqlJournal(engine, run_id, explain, mark, commands, codes)


def finish_run(
    engine: Engine,
    run_id: str,
    *,
    finished_ms: int,
    decisions_hash: str | None = None,
    result: Mapping[str, Any] | None = None,
    arrays: Path | None = None,
) -> None:
    """Write down how a run ended: once, for a run that has ended stays as it is."""
    values = {
        "finished_ms": finished_ms,
        "decisions_hash": decisions_hash,
        "result": None if result is None else plain(result),
        "arrays": None if arrays is None else str(arrays),
    }
    with transaction(engine, writes=True) as connection:
        known(connection, run_id)
        open_run = (runs.c.run_id == run_id) & runs.c.finished_ms.is_(None)
        if connection.execute(update(runs).where(open_run).values(values)).rowcount != 1:
            raise JournalError(f"run {run_id} has ended already")


def list_runs(engine: Engine) -> list[RunRow]:
    """Every run, the oldest first."""
    with transaction(engine) as connection:
        found = connection.execute(select(runs).order_by(runs.c.started_ms, runs.c.run_id)).all()
        return [_row(connection, row) for row in found]


def read_run_row(engine: Engine, run_id: str) -> RunRow:
    """One run; an unknown id is UnknownName, with the nearest one known."""
    with transaction(engine) as connection:
        return _row(connection, known(connection, run_id))


def read_events(engine: Engine, run_id: str, *, after: int = 0, until: int = SEQ_MAX) -> Records:
    """The EVENT records of a run, byte for byte as they were appended: those past event ``after``,
    and not past ``until``."""
    header = [events.c[name] for name in ("ts_known", "ts_event", "kind", "instrument")]
    with transaction(engine) as connection:
        known(connection, run_id)
        of_run = (events.c.run_id == run_id) & events.c.seq.between(after + 1, until)
        query = select(*header, events.c.payload).where(of_run).order_by(events.c.seq)
        rows = connection.execute(query).all()
    block = np.zeros(len(rows), EVENT)
    columns: Sequence[tuple[Any, ...]] = list(zip(*rows, strict=True))
    for column, values in zip(header, columns, strict=False):
        block[column.name] = values
    if rows:
        payload = np.frombuffer(b"".join(columns[-1]), "u1").reshape(len(rows), -1)
        block.view("u1").reshape(len(rows), -1)[:, HEADER_BYTES:] = payload
    return block


def last_settled_ms(engine: Engine, run_id: str, instruments: int) -> dict[int, int]:
    """The stamp of the last settlement of each instrument that had one lately (unix ms)."""
    # two rounds of them hold everyone's last; to look for one that has none would read the run
    lately = (events.c.run_id == run_id) & (events.c.kind == Kind.FUNDING)
    query = select(events.c.instrument, events.c.ts_event).where(lately)
    with transaction(engine) as connection:
        rows = connection.execute(query.order_by(events.c.seq.desc()).limit(2 * instruments)).all()
    return {row.instrument: row.ts_event for row in reversed(rows)}


def read_outcomes(engine: Engine, run_id: str, *, after: int = 0, until: int = SEQ_MAX) -> Records:
    """The OUTCOME records of a run, byte for byte as appended, of the events past ``after``;
    ``until`` is where a step ended (``place_after``)."""
    with transaction(engine) as connection:
        known(connection, run_id)
        of_run = (steps.c.run_id == run_id) & steps.c.seq.between(after + 1, until)
        query = select(steps.c.records).where(of_run).order_by(steps.c.seq)
        raw = b"".join(connection.scalars(query))
    if len(raw) % OUTCOME.itemsize:
        raise JournalError(f"run {run_id}: its recorded outcomes are damaged: some are cut short")
    outcomes = np.frombuffer(raw, OUTCOME)
    return outcomes[np.searchsorted(outcomes["seq"], after, side="right") :].copy()


def place_after(engine: Engine, run_id: str, after: int, events: int) -> int:
    """Where a reader who takes whole steps, and about so many events at once, comes to next: the
    end of a step, or ``after`` itself when nothing follows."""
    of_run = (steps.c.run_id == run_id) & (steps.c.seq > after)
    with transaction(engine) as connection:
        known(connection, run_id)
        far = select(func.max(steps.c.seq)).where(of_run, steps.c.seq <= after + events)
        near = select(func.min(steps.c.seq)).where(of_run)
        return int(connection.scalar(far) or connection.scalar(near) or after)


def known(connection: Connection, run_id: str) -> Row[Any]:
    """The row of a run that must be there."""
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if row is None:
        names = connection.scalars(select(runs.c.run_id)).all()
        raise UnknownName("run", run_id, names or ["none yet"])
    return row


def recorded_events(connection: Connection, run_id: str) -> int | None:
    """Events recorded of a run, None when there is no such run."""
    if connection.scalar(select(runs.c.run_id).where(runs.c.run_id == run_id)) is None:
        return None
    last = select(func.max(steps.c.seq)).where(steps.c.run_id == run_id)
    return connection.scalar(last) or 0


def insert_run(connection: Connection, run: RunRow) -> None:
    """Add a run and its books."""
    kept = [column.name for column in runs.c if column.name not in ("config", "result")]
    values = {name: getattr(run, name) for name in kept}
    values |= {
        "data": dict(run.data),
        "config": plain(run.config),
        "instruments": [*run.instruments],
    }
    connection.execute(insert(runs), values)
    for place, book in enumerate(run.books):
        names = {"name": book.name, "strategy": book.strategy, "instrument": book.instrument}
        row = {"run_id": run.run_id, "book": place, "params": plain(book.params), **names}
        connection.execute(insert(books), row)


def _row(connection: Connection, row: Row[Any]) -> RunRow:
    query = select(books).where(books.c.run_id == row.run_id).order_by(books.c.book)
    fields = dict(row._mapping)
    fields["mode"] = RunMode(row.mode)
    fields["instruments"] = tuple(row.instruments)
    fields["books"] = tuple(
        BookRow(
            name=book.name, strategy=book.strategy, instrument=book.instrument, params=book.params
        )
        for book in connection.execute(query)
    )
    return RunRow(**fields, recorded=recorded_events(connection, row.run_id) or 0)


def plain(value: Any) -> Any:
    """The same as JSON can hold it: no NaN, and infinity by name (a profit factor may be)."""
    match value:
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case np.generic():
            return plain(value.item())
        case float() if math.isnan(value):
            return None
        case float() if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        case Path():
            return str(value)
        case _:
            return value
