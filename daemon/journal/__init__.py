"""The journal: every run, event and outcome in SQLite or PostgreSQL, each row with its cause.

Import it only where a run is recorded or listed: it brings SQLAlchemy and Alembic, which a bulk
replay should not pay for.
"""

from daemon.journal.database import sqlite_url
from daemon.journal.migrate import open_journal, upgrade
from daemon.journal.replays import record_run, remove_run, row_of, write_run
from daemon.journal.runs import (
    BookRow,
    RunMode,
    RunRow,
    begin_run,
    finish_run,
    last_settled_ms,
    list_runs,
    place_after,
    read_events,
    read_outcomes,
    read_run_row,
    resume_run,
    row_under,
)
from daemon.journal.said import CommandRow, Said, read_commands
from daemon.journal.snapshots import read_snapshot, write_snapshot
from daemon.journal.writer import SqlJournal

__all__ = [
    "BookRow",
    "CommandRow",
    "RunMode",
    "RunRow",
    "Said",
    "SqlJournal",
    "begin_run",
    "finish_run",
    "last_settled_ms",
    "list_runs",
    "open_journal",
    "place_after",
    "read_commands",
    "read_events",
    "read_outcomes",
    "read_run_row",
    "read_snapshot",
    "record_run",
    "remove_run",
    "resume_run",
    "row_of",
    "row_under",
    "sqlite_url",
    "upgrade",
    "write_run",
    "write_snapshot",
]
