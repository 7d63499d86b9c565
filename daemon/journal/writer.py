"""The journal itself: one transaction for each step of the loop, durable before the loop goes on.

Rows go to the driver as they are, past SQLAlchemy's handling of parameters: it costs more than
SQLite takes to store them. PostgreSQL gets them by COPY, its own way to take many.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, Engine, Table

from core.errors import JournalError
from core.model import Kind, Records
from daemon.journal.database import transaction
from daemon.journal.projection import Block, Columns, Mark, Names, Text, endings, tables
from daemon.journal.said import CommandRow, Said

COMMANDS_KEPT = 100


class SqlJournal:
    """Records one run: a ``core.ports.Journal``, made by ``begin_run`` or ``resume_run``.

    ``explain`` has the text of a reason code for every book, in the engine's order; ``codes`` the
    names of an outside venue's codes.
    """

    def __init__(
        self,
        engine: Engine,
        run_id: str,
        explain: Iterable[Text],
        mark: Mark | None = None,
        commands: Iterable[CommandRow] = (),
        codes: Mapping[int, str] | None = None,
    ) -> None:
        self.engine = engine
        self.run_id = run_id
        self._reasons = [Names(text) for text in explain]
        self._codes = endings(codes or {})
        self._mark = mark or Mark()
        self._turn = CapacityLimiter(1)
        self._said: deque[Said] = deque()
        self.commands = tuple(commands)
        """The last commands that are durable, the oldest first."""

    @property
    def seq(self) -> int:
        """Number of the last event recorded."""
        return self._mark.seq

    def say(self, said: Said) -> None:
        """Who gave the next command, and why. To be called once a command, in the order in which
        they will be appended; it is written with the event itself."""
        self._said.append(said)

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        """Record a step whole, on disk when this returns, or raise JournalError and nothing of it.

        It runs in a thread, for a commit waits for the disk, and a loop that waits with it neither
        reads its sockets nor answers its watchdog. It has a limiter of its own, so that no slow
        call elsewhere can hold up the journal. The thread is never abandoned, so a cancelled
        append has ended, one way or the other, before its caller goes on.
        """
        if len(events):
            await to_thread.run_sync(self.write, events, outcomes, track, limiter=self._turn)

    def write(self, events: Records, outcomes: Records, track: Records) -> None:
        """As ``append``, in the thread of the caller."""
        assert len(events) == len(track), (len(events), len(track))
        ordered = int((events["kind"] == Kind.COMMAND).sum())
        said = tuple(islice(self._said, ordered))
        texts = (self._reasons, self._codes)
        block = Block(self.run_id, self._mark, events, outcomes, track, *texts, said)
        _check_place(block)
        with transaction(self.engine, writes=True) as connection:
            for table, columns in tables(block):
                add(connection, table, columns)
        self._mark = block.after
        if ordered:
            for _ in said:
                self._said.popleft()
            self.commands = (*self.commands, *block.commands)[-COMMANDS_KEPT:]


def _check_place(block: Block) -> None:
    """The engine and the journal must agree on where the run is: outcomes carry the number."""
    seqs, first, last = block.outcomes["seq"], block.mark.seq + 1, block.after.seq
    strays = seqs[(seqs < first) | (seqs > last)]
    if len(strays):
        raise JournalError(
            f"run {block.run_id}: an outcome of event {int(strays[0])} was appended with events "
            f"{first} to {last}: the engine is not where the journal is"
        )


def add(connection: Connection, table: Table, columns: Columns) -> None:
    """Insert rows that are given column by column."""
    rows = list(zip(*columns.values(), strict=True))
    quote = connection.dialect.identifier_preparer.quote
    target = f"{quote(table.name)} ({', '.join(quote(name) for name in columns)})"
    if connection.dialect.name == "postgresql":
        _copy(connection, target, rows)
    elif rows:
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(f"INSERT INTO {target} VALUES ({marks})", rows)


def _copy(connection: Connection, target: str, rows: Sequence[tuple[Any, ...]]) -> None:
    cursor: Any = connection.connection.cursor()
    with cursor.copy(f"COPY {target} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
