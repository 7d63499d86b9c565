"""Databases for the tests of the journal: a SQLite file, and a PostgreSQL server of our own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

SERVERS = Path("/usr/lib/postgresql")


def _newest_binaries() -> Path | None:
    """Folder of ``initdb`` and ``pg_ctl``."""
    found = shutil.which("initdb")
    if found and shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    folders = sorted(SERVERS.glob("*/bin"), key=lambda folder: float(folder.parent.name))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _server_user() -> dict[str, Any]:
    """Who the server runs as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL refuses to run as root, and there is no user 'postgres'")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """Folder of the socket of a server that lives as long as the tests and forgets all after."""
    binaries = _newest_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server: neither PATH nor /usr/lib/postgresql/*/bin has initdb")
    who = _server_user()
    # not under pytest's own folder: that one is closed to other users
    folder = Path(tempfile.mkdtemp(prefix="lockstep-pg-"))
    if who:
        os.chown(folder, who["user"], who["group"])
    data = folder / "data"

    def run(tool: str, *arguments: str) -> None:
        command = [binaries / tool, "-D", data, *arguments]
        subprocess.run(
            command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120, **who
        )

    try:
        run("initdb", "-A", "trust", "-U", "lockstep", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-F -k {folder} -c listen_addresses=''"
        run("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
        try:
            yield folder
        finally:
            run("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def empty_postgres(postgres_folder: Path, request: pytest.FixtureRequest) -> str:
    """URL of a database of this test's own, without any schema."""
    name = f"t{abs(hash(request.node.nodeid))}"
    with psycopg.connect(
        host=str(postgres_folder), user="lockstep", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://lockstep@/{name}?host={postgres_folder}"


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
