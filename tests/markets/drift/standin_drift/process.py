"""The stand-in as a process of its own, which outlives a daemon that is killed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from standin_drift.desk import RemoteDesk


@dataclass
class Process:
    urls: list[str]
    desk: RemoteDesk
    pid: int

    @property
    def url(self) -> str:
        return self.urls[0]


@contextmanager
def spawn(*arguments: str) -> Iterator[Process]:
    """Run ``python -m standin_drift`` with a free port and these arguments until left."""
    folder = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {
        "PYTHONPATH": folder + os.pathsep + os.environ.get("PYTHONPATH", "")
    }
    command = [sys.executable, "-m", "standin_drift", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdout is not None
        try:
            line = child.stdout.readline()
            assert line, f"the stand-in did not start: {child.wait()}"
            urls = json.loads(line)["urls"]
            desk = RemoteDesk(urls[0])
            try:
                yield Process(urls, desk, child.pid)
            finally:
                desk.close()
        finally:
            child.kill()
