"""Forks daemons for tests out of a process that has imported and compiled everything already.

A start then takes a tenth of the time, and what dies by SIGKILL is a process like any other. Each
line of stdin is a JSON list, the script's name and its words; each of stdout its exit code.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
def opened(errors: Path) -> Iterator[Nursery]:
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
        with process:
            yield Nursery(process, errors)
            assert process.stdin is not None
            process.stdin.close()


def _warmed() -> dict[str, Any]:
    """The scripts by name, with what they need of data and compiled code at hand."""
    import live_child
    import venue_child

    from backtest.assemble import assemble

    for child, setup in ((live_child, live_child.setup()), (venue_child, venue_child.setup())):
        world = child.shelf_world(child.STRATEGY, child.BARS)
        engine = assemble(setup, {name: history.fields for name, history in world.items()})
        engine.warm(live_child.tape(child.STRATEGY, child.BARS))
    return {"live": live_child.main, "venue": venue_child.main}


def _born(main: Any, words: list[str]) -> None:
    os.dup2(2, 1)  # the log goes where errors go
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
    scripts = _warmed()
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
