"""A PostgreSQL server to be killed, and workers and searches as processes of their own."""

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


def start(folder: Path, *words: object) -> "subprocess.Popen[str]":
    """``lockstep`` with these words in a process of its own; what it says goes to files."""
    with (
        tempfile.NamedTemporaryFile("w", dir=folder, suffix=".out", delete=False) as out,
        tempfile.NamedTemporaryFile("w", dir=folder, suffix=".err", delete=False) as err,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.main", *map(str, words)],
            cwd=folder,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdout=out,
            stderr=err,
            text=True,
        )
    process.args = (out.name, err.name)
    return process


def said(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What it left on stdout and stderr."""
    names: Any = process.args
    return Path(names[0]).read_text(), Path(names[1]).read_text()


def finish(process: "subprocess.Popen[str]") -> str:
    """Its stdout, once it has ended well."""
    code = process.wait(timeout=WAIT_S)
    out, err = said(process)
    assert code == 0, err
    return out


def kill(*processes: "subprocess.Popen[str]") -> None:
    """kill -9."""
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait(timeout=WAIT_S)


@contextmanager
def working(
    folder: Path, count: int, words: Sequence[object]
) -> "Iterator[list[subprocess.Popen[str]]]":
    """So many workers; those that still run at the end are killed."""
    workers = [start(folder, "worker", *words) for _ in range(count)]
    try:
        yield workers
    finally:
        kill(*(worker for worker in workers if worker.poll() is None))
