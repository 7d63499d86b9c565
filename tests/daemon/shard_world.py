"""A PostgreSQL server to be killed, and workers and searches as processes of their own."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120.0


def until(true: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """What ``true`` answers once it is true; fails the test when that takes too long."""
    over = time.monotonic() + wait_s
    while not (found := true()):
        assert time.monotonic() < over, f"waited in vain: {what}"
        time.sleep(0.02)
    return found


class Nursery:
    """Where processes are forked (``shard_nursery``), once they are first needed."""

    def __init__(self) -> None:
        self._other: subprocess.Popen[str] | None = None

    def ask(self, *words: Any) -> Any:
        if self._other is None:
            self._other = self._opened()
        assert self._other.stdin is not None
        assert self._other.stdout is not None
        self._other.stdin.write(json.dumps(words) + "\n")
        self._other.stdin.flush()
        return json.loads(self._other.stdout.readline())

    def _opened(self) -> "subprocess.Popen[str]":
        opened = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("shard_nursery.py"))],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._close, opened)
        return opened

    @staticmethod
    def _close(opened: "subprocess.Popen[str]") -> None:
        with opened:
            assert opened.stdin is not None
            opened.stdin.close()


NURSERY = Nursery()


class Process:
    """``lockstep`` in a process of its own; what it says goes to files."""

    def __init__(self, folder: Path, words: Sequence[object]) -> None:
        self._files = [Path(tempfile.mkstemp(dir=folder, suffix=s)[1]) for s in (".out", ".err")]
        told = [str(word) for word in words]
        self.pid: int = NURSERY.ask("start", str(folder), *map(str, self._files), told)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self._code is None:
            self._code = NURSERY.ask("poll", self.pid)
        return self._code

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        until(lambda: self.poll() is not None, f"process {self.pid} ends")
        assert self._code is not None
        return self._code

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def said(self) -> tuple[str, str]:
        """What it left on stdout and stderr."""
        out, err = (file.read_text() for file in self._files)
        return out, err


def start(folder: Path, *words: object) -> Process:
    """``lockstep`` with these words."""
    return Process(folder, words)


def said(process: Process) -> tuple[str, str]:
    """What it left on stdout and stderr."""
    return process.said()


def finish(process: Process) -> str:
    """Its stdout, once it has ended well."""
    code = process.wait()
    out, err = process.said()
    assert code == 0, err
    return out


def without_seconds(out: str) -> dict[str, Any]:
    """What it told, but for how long it took."""
    told: dict[str, Any] = json.loads(out)
    return {name: value for name, value in told.items() if name != "seconds"}


def kill(*processes: Process) -> None:
    """kill -9."""
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()


@contextmanager
def working(folder: Path, count: int, words: Sequence[object]) -> Iterator[list[Process]]:
    """So many workers; those that still run at the end are killed."""
    workers = [start(folder, "worker", *words) for _ in range(count)]
    try:
        yield workers
    finally:
        kill(*workers)
