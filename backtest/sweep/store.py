"""Where rows are kept as they come: one SQLite file, one transaction a group, killed at any moment.

A sweep is known by a hash of its causes (data, code, settings, combinations), so ``--resume`` can
only ever go on with the very same one. A row is there whole or not at all.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from backtest.sweep.rows import Row
from core.errors import DataError

_SCHEMA = """
create table if not exists sweep (key text primary key, causes text not null);
create table if not exists row (
    key text not null, params text not null, place integer not null, body text not null,
    daily blob not null, primary key (key, params)
) without rowid;
"""


class Store:
    """The rows of sweeps in one file. DataError when the file is not such a store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.executescript(_SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction; SQLite rolls back what a killed process left half-done."""
        database = sqlite3.connect(self.path, timeout=60.0)
        try:
            with database:
                yield database
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path}: {error}: it is no store of sweeps") from error
        finally:
            database.close()

    def begin(self, key: str, causes: dict[str, Any], *, resume: bool) -> int:
        """Open sweep ``key``; answers how many rows it has, all forgotten without ``resume``."""
        with self._open() as database:
            if not resume:
                database.execute("delete from row where key = ?", (key,))
            text = json.dumps(causes, sort_keys=True)
            database.execute("insert or replace into sweep values (?, ?)", (key, text))
            found = database.execute("select count(*) from row where key = ?", (key,))
            return int(found.fetchone()[0])

    def find(self, key: str, wanted: Iterable[str]) -> dict[str, Row]:
        """The rows there are of these combinations, by ``params_key``."""
        query = "select body, daily from row where key = ? and params = ?"
        rows: dict[str, Row] = {}
        with self._open() as database:
            for params in wanted:
                found = database.execute(query, (key, params)).fetchone()
                if found is not None:
                    rows[params] = _row(*found)
        return rows

    def keep(self, key: str, rows: Sequence[Row]) -> None:
        """Keep a group of rows, all or none; returns when they are on disk."""
        with self._open() as database:
            database.executemany(
                "insert or replace into row values (?, ?, ?, ?, ?)", _cells(key, rows)
            )


def _cells(key: str, rows: Iterable[Row]) -> Iterator[tuple[str, str, int, str, bytes]]:
    for row in rows:
        body = json.dumps(row.plain())
        yield key, params_key(row.params), row.place, body, row.daily_micros.tobytes()


def _row(body: str, daily: bytes) -> Row:
    return Row(**json.loads(body), daily_micros=np.frombuffer(daily, np.int64))


def params_key(params: Any) -> str:
    """One text for one combination, whatever the order of its names."""
    return json.dumps(dict(params), sort_keys=True)
