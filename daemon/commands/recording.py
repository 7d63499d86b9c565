"""Writing a finished replay into the journal, step by step, as the loop would have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from backtest.run import Run
from daemon.journal import open_journal, record_run
from daemon.journal.calls import write_calls
from forecasting.questions import Reply


def record(
    run: Run,
    url: str,
    *,
    kept_ms: int,
    path: Path,
    result: dict[str, Any],
    replies: Sequence[Reply] = (),
) -> str:
    """Write a run whole, with the calls behind its ``replies``, and answer where; one that is there
    already is compared with it."""
    engine = open_journal(url)
    started_ms = kept_ms - round(run.seconds * 1000)
    try:
        record_run(
            engine, run, started_ms=started_ms, finished_ms=kept_ms, arrays=path, result=result
        )
        numbered = [(int(reply.question.id.rpartition("/")[2]), reply) for reply in replies]
        write_calls(engine, run.run_id, numbered)
    finally:
        engine.dispose()
    return make_url(url).render_as_string(hide_password=True)
