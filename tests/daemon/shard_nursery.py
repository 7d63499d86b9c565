"""Forks ``lockstep`` for tests out of a process that has imported and compiled everything already.

A start then takes a tenth of the time, and what dies by SIGKILL is a process like any other.

Each line of stdin is a JSON list: ``start``, a folder, files for stdout and stderr, and the words,
answered by the id of the process; or ``poll`` and an id, answered by its exit code, null while it
runs. What still runs when stdin ends is killed, for a test that failed leaves it.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any


def _warm() -> None:
    """Do once what every command will need."""
    from cli_calls import succeed

    from markets.export import write
    from markets.synthetic import sample

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write(sample(bars=2_000)["SOL-PERP"], Path("SOL-PERP.feather"))
        trend = ("--strategy", "trend", "--data", "SOL-PERP.feather", "--json")
        succeed("replay", *trend)
        succeed("sweep", *trend, "--optuna", 4, "--threads", 1)
        os.chdir(here)
    import psycopg  # noqa: F401 - and this
    from optuna.storages import RDBStorage  # noqa: F401

    from daemon.commands import stressing, walking, worker  # noqa: F401


def _born(folder: str, out: str, err: str, words: list[str]) -> None:
    from daemon.main import app

    code = 1
    try:
        os.chdir(folder)
        for name, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
            os.dup2(os.open(name, os.O_RDWR), descriptor)
        app(words)
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _answer(running: set[int], word: str, *rest: Any) -> int | None:
    if word == "start":
        child = os.fork()
        if child == 0:
            _born(*rest)
        running.add(child)
        return child
    child, status = os.waitpid(rest[0], os.WNOHANG)
    running.discard(child)
    return os.waitstatus_to_exitcode(status) if child else None


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    running: set[int] = set()
    _warm()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(running, *json.loads(line))) + "\n")
        answers.flush()
    for child in running:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
