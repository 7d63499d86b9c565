"""Writing a finished replay into the journal, step by step, as the loop would have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from sqlalchemy import Engine, make_url

from backtest.run import BookInfo, Run
from core.errors import UnknownName
from daemon.journal import (
    SqlJournal,
    begin_run,
    open_journal,
    read_run_row,
    resume_run,
    row_of,
    write_run,
)

EVENTS_PER_STEP = 4_096


def record(run: Run, url: str, *, kept_ms: int, path: Path, result: dict[str, Any]) -> str:
    """Write a run whole and answer where; one that is there already is compared with it."""
    engine = open_journal(url)
    try:
        started_ms = kept_ms - round(run.seconds * 1000)
        journal = _journal(engine, run, started_ms)
        anyio.run(_append_rest, journal, run)
        write_run(
            engine, run, started_ms=started_ms, finished_ms=kept_ms, arrays=path, result=result
        )
        return make_url(url).render_as_string(hide_password=True)
    finally:
        engine.dispose()


def _journal(engine: Engine, run: Run, started_ms: int) -> SqlJournal:
    """Where to go on: a recording that was interrupted is finished, not begun again."""
    explain = [_explain(book) for book in run.books]
    try:
        recorded = read_run_row(engine, run.run_id).recorded
    except UnknownName:
        recorded = 0
    if recorded:
        return resume_run(engine, run.run_id, explain)
    return begin_run(engine, row_of(run, started_ms=started_ms), explain)


def _explain(book: BookInfo) -> Callable[[int], str]:
    return lambda code: book.reasons.get(code, str(code))


async def _append_rest(journal: SqlJournal, run: Run) -> None:
    seqs = run.outcomes["seq"]
    for start in range(journal.seq, len(run.block), EVENTS_PER_STEP):
        end = min(start + EVENTS_PER_STEP, len(run.block))
        first, last = np.searchsorted(seqs, [start + 1, end + 1])
        await journal.append(run.block[start:end], run.outcomes[first:last], run.track[start:end])
