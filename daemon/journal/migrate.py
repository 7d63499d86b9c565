"""The schema's age: a new file is given ours, any other must have it, and only a command moves it.

A daemon that altered a database on its way up would do so on every machine at once, with nobody
watching and no backup taken. So it refuses, and names the command.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect

from core.errors import JournalError
from daemon.journal.database import engine_of, name_of, transaction
from daemon.journal.schema import REVISION

MIGRATIONS = Path(__file__).with_name("migrations")
UPGRADE = "lockstep journal upgrade"


def open_journal(url: str) -> Engine:
    """The database at ``url``, with our schema. A SQLite file that is new or empty is given it;
    an empty PostgreSQL database, or an older or newer schema, is a JournalError."""
    engine = engine_of(url)
    try:
        with transaction(engine) as connection:
            found = revision(connection)
            blank = found is None and _is_blank(connection)
        if blank and engine.dialect.name == "sqlite":
            upgrade(url)
        elif found != REVISION:
            raise JournalError(f"{name_of(engine)}: {_advice(found, blank=blank)}")
    except JournalError:
        engine.dispose()
        raise
    return engine


def upgrade(url: str) -> str:
    """Bring the schema at ``url`` up to ours, whole or not at all; answers its revision."""
    engine = engine_of(url)
    try:
        with transaction(engine, writes=True) as connection:
            found = revision(connection)
            if found is None and not _is_blank(connection):
                raise JournalError(f"{name_of(engine)}: {_advice(found, blank=False)}")
            migrate(connection, found)
    finally:
        engine.dispose()
    return REVISION


def migrate(connection: Connection, found: str | None) -> None:
    """Run what lies between ``found`` and our schema, inside the caller's transaction."""
    try:
        command.upgrade(alembic_config(connection), REVISION)
    except CommandError as error:
        raise JournalError(_advice(found, blank=False)) from error


def revision(connection: Connection) -> str | None:
    """The schema's revision; None when there is none."""
    return MigrationContext.configure(connection).get_current_revision()


def _is_blank(connection: Connection) -> bool:
    """Whether there are no tables but the empty one that a downgrade leaves."""
    return set(inspect(connection).get_table_names()) <= {"alembic_version"}


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration, without a file of its own."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def _advice(found: str | None, *, blank: bool) -> str:
    """Why this schema will not do, and what to run."""
    if blank:
        return f"the database is empty: run `{UPGRADE}`"
    if found is None:
        return "this is a database, but not a journal: name another one"
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if found in known:
        return f"its schema {found} is older than ours, {REVISION}: run `{UPGRADE}`"
    return f"its schema {found} is newer than ours, {REVISION}: update Lockstep (`git pull`)"
