"""Snapshots in the journal: the newest states of a run, from which a restart goes on."""

from sqlalchemy import Engine, delete, insert, select

from daemon.journal.database import transaction
from daemon.journal.schema import snapshots

KEPT = 2


def write_snapshot(engine: Engine, run_id: str, seq: int, state: bytes) -> None:
    """Keep the state after event ``seq``, and drop all but the newest few."""
    of_run = snapshots.c.run_id == run_id
    with transaction(engine, writes=True) as connection:
        connection.execute(insert(snapshots), {"run_id": run_id, "seq": seq, "state": state})
        newest = select(snapshots.c.seq).where(of_run).order_by(snapshots.c.seq.desc()).limit(KEPT)
        kept = connection.scalars(newest).all()
        connection.execute(delete(snapshots).where(of_run, snapshots.c.seq < min(kept)))


def read_snapshot(engine: Engine, run_id: str) -> tuple[int, bytes] | None:
    """The newest snapshot of a run and its event, if there is one."""
    query = select(snapshots.c.seq, snapshots.c.state).where(snapshots.c.run_id == run_id)
    with transaction(engine) as connection:
        row = connection.execute(query.order_by(snapshots.c.seq.desc()).limit(1)).one_or_none()
    return None if row is None else (int(row.seq), bytes(row.state))
