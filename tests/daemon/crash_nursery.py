"""Forks daemons for tests out of a process that has imported and compiled everything already.

A start then takes a tenth of the time, and what dies by SIGKILL is a process like any other. Its
words are the scripts' names. Each line of stdin is a JSON list, a script's name and its words; each
of stdout its exit code.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIFE_S_MAX = 3_600


class Nursery:
    """The other end of it: ``run`` answers the exit code, -9 for who was killed."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        self._process, self._errors = process, errors

    def run(self, script: str, *words: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([script, *map(str, words)]) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, -9), self._errors.read_text()[-4_000:]
        return code


@contextmanager
def opened(errors: Path, *scripts: str) -> Iterator[Nursery]:
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, __file__, *scripts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
        with process:
            yield Nursery(process, errors)
            assert process.stdin is not None
            process.stdin.close()


def _warmed(script: str) -> Any:
    """A script's main, with what it needs of data and compiled code at hand."""
    child = importlib.import_module(f"{script}_child")  # it makes our own packages importable
    from backtest.assemble import assemble
    from markets.history import merge

    setup, world = child.warmth()
    engine = assemble(setup, {name: history.fields for name, history in world.items()})
    engine.warm(merge(list(world.values())))
    return child.main


def _born(main: Any, words: list[str]) -> None:
    os.dup2(2, 1)  # the log goes where errors go
    signal.alarm(LIFE_S_MAX)
    sys.argv = ["", *words]
    code = 1
    try:
        main()
        code = 0
    except BaseException:  # noqa: BLE001 - the other end is to see it, whatever it is
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    scripts = {script: _warmed(script) for script in sys.argv[1:]}
    for line in sys.stdin:
        script, *words = json.loads(line)
        child = os.fork()
        if child == 0:
            _born(scripts[script], words)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
