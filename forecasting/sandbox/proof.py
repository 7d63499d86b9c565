"""A sandbox proves itself before it is trusted: what must not be reached is put there to be tried.

A wall that was built but does not stand, on a kernel or in a container that does not keep it, is
found here, and not by the first model that tries.
"""

import json
import platform
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forecasting.sandbox.port import End, Limits, Ran, Sandbox

_ATTEMPTS = """
import ctypes, os, socket

def network(context):
    socket.create_connection(("127.0.0.1", context["port"]), 2).close()

def files(context):
    open(context["file"]).close()

def writing(context):
    open(context["file"] + ".new", "w").close()

def processes(context):
    if os.fork() == 0:
        os._exit(0)

def signals(context):
    os.kill(os.getppid(), 0)

def calls(context):
    if ctypes.CDLL(None).syscall(context["getppid"]) < 0:
        raise OSError

def decide(context):
    reached = []
    for attempt in (network, files, writing, processes, signals, calls):
        try:
            attempt(context)
        except OSError:
            continue
        reached.append(attempt.__name__)
    return {"reached": reached}
"""
_GETPPID = {"x86_64": 110, "aarch64": 173}


async def prove(sandbox: Sandbox) -> str | None:
    """Why the sandbox cannot be trusted, None where every attempt was stopped.

    Tried are a socket that listens, a file that anybody may read, writing beside it, another
    process, a signal, and a system call past the interpreter.
    """
    with socket.create_server(("127.0.0.1", 0)) as server, _canary() as file:
        context = {
            "port": server.getsockname()[1],
            "file": file,
            "getppid": _GETPPID.get(platform.machine(), -1),
        }
        ran = await sandbox.run(_ATTEMPTS, json.dumps(context).encode(), Limits())
    return _doubt(ran)


@contextmanager
def _canary() -> Iterator[str]:
    """A file that anybody may read, in a folder where anybody may write."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "canary")
        file.write_text("reached")
        file.chmod(0o644)
        Path(folder).chmod(0o777)
        yield str(file)


def _doubt(ran: Ran) -> str | None:
    if ran.end is End.UNAVAILABLE:
        return ran.reason
    if ran.end is not End.OK or ran.result is None:
        return f"its self-test ended with {ran.end}: {ran.reason}"
    reached = json.loads(ran.result)["reached"]
    return f"its self-test reached {', '.join(reached)}" if reached else None
