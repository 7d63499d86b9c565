"""Checkpoints: where an audit that found nothing ended, so that the next one goes on from there.

Unlike a snapshot it is the audit's own fold, so a state that a damaged process wrote down can never
become what its record is judged by. A file that does not fit is not used: the fold begins anew.
"""

import hashlib
from pathlib import Path

from core.compiled import source_digest
from core.engine import Engine
from core.errors import DataError
from core.snapshot import SnapshotError, put, take
from daemon.journal import RunRow

_CAUSE_BYTES = 32


def lay_checkpoint(file: Path, engine: Engine, row: RunRow) -> None:
    """Lay the state kept in ``file`` into the engine, if there is one of this run and this code."""
    if not file.exists():
        return
    kept = file.read_bytes()
    if kept[:_CAUSE_BYTES] == _cause(row):
        try:
            put(engine.arrays, kept[_CAUSE_BYTES:])
        except SnapshotError as error:
            raise DataError(f"{file}: {error}: remove it") from error


def keep_checkpoint(file: Path, engine: Engine, row: RunRow) -> None:
    """Keep the engine's state in ``file``, whole or not at all."""
    written = file.with_name(f"{file.name}.part")
    written.write_bytes(_cause(row) + take(engine.arrays))
    written.replace(file)


def _cause(row: RunRow) -> bytes:
    told = (row.run_id, row.started_ms, row.code, row.config_hash, source_digest())
    return hashlib.sha256(repr(told).encode()).digest()
