"""Who gave a command and why: kept beside its event, which holds numbers only.

An audit needs the event alone; the person who reads the record months later needs this.
"""

from dataclasses import dataclass

from sqlalchemy import Engine, select

from daemon.journal.database import transaction
from daemon.journal.schema import commands


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Who gives a command, and why."""

    who: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRow:
    """A command as it took effect, at event ``seq``; ``book`` is a place, None for all books."""

    seq: int
    ts: int
    word: str
    book: int | None
    who: str
    reason: str


FIELDS = tuple(CommandRow.__dataclass_fields__)


def read_commands(engine: Engine, run_id: str, limit: int) -> list[CommandRow]:
    """The last commands of a run, the oldest first."""
    columns = [commands.c[name] for name in FIELDS]
    query = select(*columns).where(commands.c.run_id == run_id).order_by(commands.c.seq.desc())
    with transaction(engine) as connection:
        rows = connection.execute(query.limit(limit)).all()
    return [CommandRow(**row._mapping) for row in reversed(rows)]
