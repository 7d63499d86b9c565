"""Folding a block of events, from the start or from a snapshot on."""

from core.engine import Engine
from core.model import Records
from core.snapshot import put, take
from daemon.live.recovery import fold


def fold_on(engine: Engine, block: Records, snapshot: bytes | None = None) -> tuple[bytes, Records]:
    """The state after the block, and every outcome of it."""
    if snapshot is not None:
        put(engine.arrays, snapshot)
    outcomes = fold(engine, block)
    return take(engine.arrays), outcomes
