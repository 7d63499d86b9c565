"""Databases for the tests of the journal: a SQLite file, and a PostgreSQL server of our own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import Server, serving


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A server that lives as long as the tests."""
    with serving() as server:
        yield server


@pytest.fixture
def empty_postgres(postgres_server: Server, request: pytest.FixtureRequest) -> str:
    """URL of a database of this test's own, without any schema."""
    return postgres_server.create(f"t{abs(hash(request.node.nodeid))}")


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes whatever database the test opens."""
    from daemon.journal import database

    opened, create = [], database.create_engine

    def kept(*arguments: Any) -> Any:
        opened.append(create(*arguments))
        return opened[-1]

    monkeypatch.setattr(database, "create_engine", kept)
    yield
    for engine in opened:
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new journal in each of our databases."""
    from daemon.journal import sqlite_url, upgrade

    if request.param == "sqlite":
        return sqlite_url(tmp_path / "journal.sqlite")
    url: str = request.getfixturevalue("empty_postgres")
    upgrade(url)
    return url
