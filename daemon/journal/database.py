"""Opening the database: what SQLite and PostgreSQL must be told so that a commit is on disk.

Every refusal of a database leaves here as one JournalError of one line, without the password; an
outage, which another attempt may find over, as JournalUnreachable.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, PendingRollbackError, SQLAlchemyError

from core.errors import JournalError, JournalUnreachable

DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
BUSY_MS_MAX = 10_000
HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
PASSING_STATES = ("08", "57P", "53")
"""SQLSTATE of a lost connection, of a server that stops or starts, of one that has no room."""
_TURNED_AWAY = re.compile(
    r"authentication failed|does not exist|pg_hba\.conf|permission denied|no password supplied"
    r"|not permitted to log in"
)
"""What a server says when it is there, and no attempt at this URL will get in."""
EXPECTED = "expected sqlite:///PATH or postgresql://USER@HOST/NAME"


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def engine_of(url: str) -> Engine:
    """An engine for this URL, not yet connected."""
    parsed = _parse(url)
    if parsed.drivername == DRIVERS["sqlite"]:
        return _sqlite(parsed)
    return _postgres(parsed)


def name_of(engine: Engine) -> str:
    """The database for a message: without its password, and without options, for one may be it."""
    return f"journal {engine.url.set(query={}).render_as_string(hide_password=True)}"


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # what cannot be parsed may hold a password anywhere, so it is not quoted
        raise JournalError(f"the journal's URL is not one: {EXPECTED}") from None
    driver = DRIVERS.get(parsed.drivername)
    if driver is None:
        raise JournalError(f"a journal cannot live in '{parsed.drivername}': {EXPECTED}")
    if driver == DRIVERS["sqlite"] and parsed.database in (None, "", ":memory:"):
        raise JournalError(f"a journal must outlive its process, so it needs a file: {EXPECTED}")
    if driver == DRIVERS["sqlite"] and parsed.query:
        raise JournalError(f"a SQLite journal takes no options: {EXPECTED}")
    return parsed.set(drivername=driver)


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # Python's driver would begin late, and never for DDL; with this, `begin` below is the one
        # to begin, and a migration is a transaction like any other
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS_MAX}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres(url: URL) -> Engine:
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
        cursor.close()
        connection.commit()

    return engine


@contextmanager
def transaction(engine: Engine, *, writes: bool = False) -> Iterator[Connection]:
    """One transaction: committed whole when the block ends, or nothing of it; else as ``refusals``
    says."""
    with (
        refusals(engine),
        engine.connect().execution_options(writes=writes) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def refusals(engine: Engine) -> Iterator[None]:
    """What the database refuses in this block is raised as JournalError; where it may be back by
    and by, as JournalUnreachable."""
    try:
        yield
    except (SQLAlchemyError, _driver_error(engine)) as error:
        kind = JournalUnreachable if _passes(engine, error) else JournalError
        raise kind(f"{name_of(engine)}: {_why(error, engine.url)}") from error


def _passes(engine: Engine, error: Exception) -> bool:
    """Whether another attempt may find it over. The code of what a server said while it was being
    connected to is lost in the driver, so there its words have to do. A session that goes on over
    a connection that was lost is told so, and not what lost it."""
    if isinstance(error, PendingRollbackError):
        return True
    raised: Any = getattr(error, "orig", None) or error
    if isinstance(raised, sqlite3.Error):
        return getattr(raised, "sqlite_errorcode", 0) & 0xFF in HELD
    state = getattr(raised, "sqlstate", None)
    if state is not None:
        return str(state).startswith(PASSING_STATES)
    driver: Any = engine.dialect.loaded_dbapi
    return isinstance(raised, driver.OperationalError) and not _TURNED_AWAY.search(str(raised))


def _driver_error(engine: Engine) -> type[Exception]:
    """What its driver raises; COPY goes past SQLAlchemy, so its errors come as they are."""
    driver: Any = engine.dialect.loaded_dbapi
    error: type[Exception] = driver.Error
    return error


def _why(error: BaseException, url: URL) -> str:
    """The first line of what the driver said, without the password should it be in there."""
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    line = said.splitlines()[0]
    return line.replace(str(url.password), "***") if url.password else line
