"""Finished replays in the journal: their row alone, or everything they did.

A replay is fixed by its causes, so what the journal already holds of one is also a check on it:
a second run with the same causes must agree with the first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, delete

from backtest.run import Run
from core.errors import JournalError
from daemon.journal.database import transaction
from daemon.journal.runs import (
    RunMode,
    RunRow,
    begin_run,
    finish_run,
    insert_run,
    known,
    read_outcomes,
    read_run_row,
    recorded_events,
    resume_run,
    row_under,
)
from daemon.journal.schema import metadata
from daemon.journal.writer import SqlJournal

EVENTS_PER_STEP = 65_536
_UNCAUSED = "but equal causes must have equal results"


def write_run(
    engine: Engine,
    run: Run,
    *,
    started_ms: int,
    finished_ms: int,
    arrays: Path | None = None,
    result: Mapping[str, Any] | None = None,
) -> RunRow:
    """Write the row of a finished replay, or the end of one that was being recorded.

    A run that is there already stays as it is, if its decisions_hash is the same; another one is a
    JournalError, for then something decided that is no cause.
    """
    with transaction(engine, writes=True) as connection:
        if recorded_events(connection, run.run_id) is None:
            insert_run(connection, row_of(run, started_ms=started_ms))
    row = read_run_row(engine, run.run_id)
    _check_hash(row, run)
    if row.decisions_hash is not None:
        return row
    finish_run(
        engine,
        run.run_id,
        finished_ms=finished_ms,
        decisions_hash=run.decisions_hash,
        result=result,
        arrays=arrays,
    )
    return read_run_row(engine, run.run_id)


def record_run(
    engine: Engine,
    run: Run,
    *,
    started_ms: int,
    finished_ms: int,
    arrays: Path | None = None,
    result: Mapping[str, Any] | None = None,
) -> RunRow:
    """Write everything a finished replay did, then its row as ``write_run`` does. A recording that
    was cut short is gone on with."""
    journal = _opened(engine, run, started_ms)
    for start in range(journal.seq, len(run.block), EVENTS_PER_STEP):
        end = min(start + EVENTS_PER_STEP, len(run.block))
        first, last = np.searchsorted(run.outcomes["seq"], (start, end), side="right")
        journal.write(run.block[start:end], run.outcomes[first:last], run.track[start:end])
    return write_run(
        engine, run, started_ms=started_ms, finished_ms=finished_ms, arrays=arrays, result=result
    )


def _opened(engine: Engine, run: Run, started_ms: int) -> SqlJournal:
    """A journal of this run, which stands where an earlier recording of it stopped."""
    explain = [book.reasons.__getitem__ for book in run.books]
    with transaction(engine) as connection:
        recorded = recorded_events(connection, run.run_id)
    if not recorded:
        return begin_run(engine, row_of(run, started_ms=started_ms), explain)
    _check_hash(read_run_row(engine, run.run_id), run)
    ours = run.outcomes[run.outcomes["seq"] <= recorded]
    if read_outcomes(engine, run.run_id).tobytes() != ours.tobytes():
        raise JournalError(f"run {run.run_id}: what is recorded of it differs, {_UNCAUSED}")
    return resume_run(engine, run.run_id, explain)


def _check_hash(row: RunRow, run: Run) -> None:
    if row.decisions_hash not in (None, run.decisions_hash):
        raise JournalError(
            f"run {run.run_id} is here with decisions {row.decisions_hash}, and now they are "
            f"{run.decisions_hash}, {_UNCAUSED}"
        )


def row_of(run: Run, *, started_ms: int) -> RunRow:
    """The row of a replay, as it stands before its end is written."""
    return row_under(
        run.setup,
        run_id=run.run_id,
        mode=RunMode.REPLAY,
        code=run.manifest.code,
        config_hash=run.manifest.config,
        data=run.manifest.data,
        seed=run.manifest.seed,
        started_ms=started_ms,
    )


def remove_run(engine: Engine, run_id: str) -> None:
    """Remove a replay, which can be had again by replaying. What a desk did on paper or live
    cannot, so to remove that is a JournalError. Cut short, it may be called again."""
    with transaction(engine) as connection:
        mode = known(connection, run_id).mode
    if mode != RunMode.REPLAY:
        raise JournalError(f"run {run_id} is {mode}: only a replay may be removed")
    of_runs = [table for table in metadata.sorted_tables if "run_id" in table.c]
    for table in reversed(of_runs):
        with transaction(engine, writes=True) as connection:
            connection.execute(delete(table).where(table.c.run_id == run_id))
        if engine.dialect.name == "postgresql":
            # or its check that no child is left wades through the dead ones, for every parent
            with transaction(engine.execution_options(isolation_level="AUTOCOMMIT")) as connection:
                connection.exec_driver_sql(f"VACUUM {table.name}")
