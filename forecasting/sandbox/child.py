"""What runs inside a sandbox: it locks itself in, and only then runs the code it was given.

It imports nothing of ours and takes its job from stdin, so that no sandbox has to show it a file.
Frames, lines that begin with a nonce, go out on what was stdout; what the code prints goes to
stderr. Code that digs the nonce out of this process gains nothing: all it can do with it is state
a result, as it could by returning one.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import Any

FILE = "agent.py"
TRACE_CHARS_MAX, GRACE_S = 2_000, 5
DIE_WITH_PARENT, NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 1, 38, 22, 2
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, VERSION, BENEATH = 444, 445, 446, 1, 1
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
# all that any version of Landlock can deny in files, by its version; then the network, and scopes
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}


class Code(SourceLoader):
    """Imports code that stands in no file."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_filename(self, _name: str) -> str:
        return FILE

    def get_data(self, _path: str | bytes) -> bytes:
        return self._text.encode()


class Frames:
    """The one way out, and the job's limit on what goes through it."""

    def __init__(self, nonce: str, result_bytes: int) -> None:
        self._nonce, self._most = nonce, result_bytes
        self._out = os.dup(1)
        os.dup2(2, 1)
        self.memory = f"{nonce} memory null\n".encode()

    def send(self, word: str, value: Any = None) -> None:
        """One frame; a value that is too long goes out as that fact."""
        text = json.dumps(value, allow_nan=False)
        if len(text) > self._most:
            word, text = "too_large", "null"
        self.write(f"{self._nonce} {word} {text}\n".encode())

    def write(self, frame: bytes) -> None:
        """The bytes, all of them."""
        while frame:
            frame = frame[os.write(self._out, frame) :]

    def raised(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """What the interpreter calls for an exception that nobody caught."""
        if issubclass(kind, MemoryError):
            self.write(self.memory)  # there may be no room to build anything
            os._exit(1)
        while trace is not None and trace.tb_frame.f_code.co_filename != FILE:
            trace = trace.tb_next
        told = "".join(traceback.format_exception(kind, error, trace))
        self.send("raised", told[-TRACE_CHARS_MAX:])
        os._exit(1)


def limit(job: dict[str, Any]) -> None:
    """Bounds that cannot be lifted again; the alarm is for when nobody watches us any more."""
    signal.alarm(int(job["seconds"]) + GRACE_S)
    seconds = int(job["seconds"]) + 1
    for what, soft, hard in (
        (resource.RLIMIT_AS, job["memory_bytes"], job["memory_bytes"]),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_FSIZE, job["printed_bytes"], job["printed_bytes"]),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))


def call(name: str, *arguments: Any) -> int:
    """A function of the C library; OSError where it fails."""
    done: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return done


def open_only(readable: list[str]) -> None:
    """Landlock: no file but those beneath these paths, and those to read; names for a ``path/``."""
    version = call("syscall", CREATE_RULESET, None, 0, VERSION)
    rights = FILE_RIGHTS[max(known for known in FILE_RIGHTS if known <= version)]
    handled = (ctypes.c_uint64 * 3)(rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 * (3 if version >= 6 else 2 if version >= 4 else 1)
    rules = call("syscall", CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(size), 0)
    for path in readable:
        names_only, is_dir = path.endswith("/"), os.path.isdir(path)  # noqa: PTH112
        allowed = READ_DIR if names_only else READ_FILE | EXECUTE | (READ_DIR if is_dir else 0)
        beneath = os.open(path, os.O_PATH)
        rule = allowed.to_bytes(8, sys.byteorder) + beneath.to_bytes(4, sys.byteorder)
        call("syscall", ADD_RULE, rules, BENEATH, rule, 0)
        os.close(beneath)
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call("syscall", RESTRICT_SELF, rules, 0)
    os.close(rules)


def obey_filter(program: bytes) -> None:
    """The system calls the filter allows, and no others, for good; and no life after our parent."""

    class Program(ctypes.Structure):
        _fields_ = (("steps", ctypes.c_ushort), ("first", ctypes.c_char_p))

    filter_ = Program(len(program) // 8, program)
    call("prctl", DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call("prctl", SET_SECCOMP, FILTER, ctypes.byref(filter_), 0, 0)


def main() -> None:
    """The job, from its reading to its last frame."""
    job = json.loads(sys.stdin.buffer.read())
    frames = Frames(job["nonce"], job["result_bytes"])
    context = json.loads(job["context"])
    if job["readable"]:
        open_only(job["readable"])
    limit(job)
    if job["filter"]:
        obey_filter(bytes.fromhex(job["filter"]))
    frames.send("ready")
    sys.excepthook = frames.raised
    loader = Code(job["code"])
    spec = spec_from_loader("agent", loader, origin=FILE)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    decide = getattr(module, "decide", None)
    if not callable(decide):
        raise TypeError("the code defines no function decide(context)")
    result = decide(context)
    if not isinstance(result, dict):
        raise TypeError(f"decide returned {type(result).__name__}, not a dict")
    sys.stdout.flush()
    frames.send("returned", result)
    os._exit(0)


if __name__ == "__main__":
    main()
