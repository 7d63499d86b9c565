"""A PostgreSQL server of our own, to start, to stop, and to kill."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

SERVERS = Path("/usr/lib/postgresql")
RESTART_S = 60.0


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


class Server:
    """A server on a socket in ``folder``."""

    def __init__(self, binaries: Path, folder: Path, who: dict[str, Any]) -> None:
        self.folder = folder
        self._binaries, self._who = binaries, who

    def run(self, tool: str, *arguments: str) -> None:
        """One of PostgreSQL's own tools on this server's data."""
        command = [self._binaries / tool, "-D", self.folder / "data", *arguments]
        subprocess.run(
            command,
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            timeout=120,
            **self._who,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-F -k {self.folder} -c listen_addresses=''"
        self.run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def kill(self) -> None:
        """kill -9 of the server and of everything it started."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        family = [pid, *_children(pid)]
        for each in family:
            with_no_mercy(each)
        over = time.monotonic() + RESTART_S
        while any(Path(f"/proc/{each}/stat").exists() and not _dead(each) for each in family):
            assert time.monotonic() < over, "the server outlives kill -9"
            time.sleep(0.02)
        # where nobody reaps the dead, their ids look alive to the next server
        for lock in (self.folder / "data" / "postmaster.pid", *self.folder.glob(".s.PGSQL.*.lock")):
            lock.unlink()

    def create(self, name: str) -> str:
        """URL of a new database."""
        with psycopg.connect(
            host=str(self.folder), user="lockstep", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://lockstep@/{name}?host={self.folder}"


def with_no_mercy(pid: int) -> None:
    """kill -9 of one that may be gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def _dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@contextmanager
def serving() -> Iterator[Server]:
    """A server that lives inside the block and forgets all after."""
    binaries = _newest_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server: neither PATH nor /usr/lib/postgresql/*/bin has initdb")
    who = _server_user()
    # not under pytest's own folder: that one is closed to other users
    folder = Path(tempfile.mkdtemp(prefix="lockstep-pg-"))
    if who:
        os.chown(folder, who["user"], who["group"])
    server = Server(binaries, folder, who)
    try:
        server.run(
            "initdb", "-A", "trust", "-U", "lockstep", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        server.start()
        try:
            yield server
        finally:
            server.run("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)
