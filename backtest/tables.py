"""Tables that a database is given when they are first used: a search must not need a migration."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

from sqlalchemy import Connection, MetaData, func, inspect, select

ADVISORY_KEY = 7_121_989_106

Transaction: TypeAlias = Callable[[], AbstractContextManager[Connection]]
"""Opens one that is committed whole or not at all, such as ``engine.begin``."""


def ensure(
    transaction: Transaction,
    metadata: MetaData,
    fill: Callable[[Connection], None] = lambda _: None,
) -> None:
    """Make these tables where they lack, and ``fill`` them in the same transaction."""
    with transaction() as connection:
        if set(metadata.tables) <= set(inspect(connection).get_table_names()):
            return
    with transaction() as connection:
        if connection.dialect.name == "postgresql":
            # two that open it first at once would both make its tables
            connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_KEY)))
        metadata.create_all(connection)
        fill(connection)
