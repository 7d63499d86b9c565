"""The wall clock, read in this one place: everything else takes its time from an event."""

import time

_NANOS_PER_MS = 1_000_000


def now_ms() -> int:
    """Unix milliseconds, UTC."""
    return time.time_ns() // _NANOS_PER_MS
