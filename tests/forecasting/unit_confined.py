"""Runs a command as the shipped unit would confine it, without systemd being there to do it.

    python unit_confined.py TERMS.json COMMAND...

The terms are read from the unit by the test. The kernel is told through libseccomp what systemd
would tell it: the calls that are listed, no new namespace, no other address family, no privilege.
"""

import ctypes
import errno
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

ALLOW, REFUSE = 0x7FFF0000, 0x00050000
NE, EQ, GT, MASKED_EQ = 1, 4, 6, 7
NO_NEW_PRIVILEGES, DROP_BOUNDING, CAPABILITIES = 38, 24, 64
# time, mount, cgroup, UTS, IPC, user, PID and network, as in linux/sched.h
NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
FAMILIES = 64
LIBC = ctypes.CDLL(None, use_errno=True)


class Compared(ctypes.Structure):
    """What an argument of a call is held against: ``struct scmp_arg_cmp``."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Filter:
    """A filter of system calls that is built rule by rule."""

    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(otherwise))

    def add(self, action: int, call: str, *compared: Compared) -> None:
        """One rule; a call this machine does not have needs none."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            rules = (Compared * len(compared))(*compared)
            done = self._library.seccomp_rule_add_array(
                self._context, ctypes.c_uint32(action), number, len(compared), rules
            )
            assert done == 0, (call, done)

    def load(self) -> None:
        """Obey it from here on."""
        assert self._library.seccomp_load(self._context) == 0


def confine(terms: dict[str, Any]) -> None:
    """Limits and privileges first: the filter takes away what they need."""
    os.umask(int(terms["umask"], 8))
    for name, most in terms["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    assert LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    for capability in range(CAPABILITIES):
        LIBC.prctl(DROP_BOUNDING, capability, 0, 0, 0)
    denied = Filter(ALLOW)
    for call in ("unshare", "setns"):
        denied.add(REFUSE | errno.EPERM, call)
    denied.add(REFUSE | errno.ENOSYS, "clone3")
    for flag in NAMESPACES:
        denied.add(REFUSE | errno.EPERM, "clone", Compared(0, MASKED_EQ, flag, flag))
    for family in set(range(FAMILIES)) - set(terms["families"]):
        denied.add(REFUSE | errno.EAFNOSUPPORT, "socket", Compared(0, EQ, family, 0))
    denied.add(REFUSE | errno.EAFNOSUPPORT, "socket", Compared(0, GT, FAMILIES - 1, 0))
    listed = Filter(REFUSE | errno.EPERM)
    for call in terms["calls"]:
        listed.add(ALLOW, call)
    listed.add(ALLOW, "seccomp")  # for the other filter, which could be loaded no more
    listed.load()
    denied.load()


if __name__ == "__main__":
    confine(json.loads(Path(sys.argv[1]).read_text()))
    os.execv(sys.argv[2], sys.argv[2:])
