"""Snapshots: the state of a run as bytes, so that a restart need not fold it from the beginning.

A snapshot is a shortcut, never a source of truth: the journal's events, folded from the start, give
the same bytes. One taken under another layout or wiring is refused.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from core.errors import LockstepError

FOLDED = ("account", "instruments", "positions", "orders", "values", "memory", "busy", "pairs")
"""Arrays that events change; all others are wiring, or scratch paper of one call."""

_DIGEST_BYTES = 32


class SnapshotError(LockstepError):
    """The bytes are not a snapshot of this wiring."""


def take(arrays: Mapping[str, Any]) -> bytes:
    """The state in these arrays, headed by a digest of their layout."""
    return _layout(arrays) + b"".join(arrays[name].tobytes() for name in FOLDED)


def put(arrays: Mapping[str, Any], snapshot: bytes) -> None:
    """Lay a snapshot into the arrays, in place. SnapshotError when it is of another layout."""
    size = sum(arrays[name].nbytes for name in FOLDED)
    if snapshot[:_DIGEST_BYTES] != _layout(arrays) or len(snapshot) != _DIGEST_BYTES + size:
        raise SnapshotError("the snapshot was taken under another set of books or another version")
    at = _DIGEST_BYTES
    for name in FOLDED:
        array = arrays[name]
        array.view("u1").reshape(-1)[:] = memoryview(snapshot)[at : at + array.nbytes]
        at += array.nbytes


def _layout(arrays: Mapping[str, Any]) -> bytes:
    told = [(name, str(arrays[name].dtype), len(arrays[name])) for name in FOLDED]
    return hashlib.sha256(repr(told).encode()).digest()
