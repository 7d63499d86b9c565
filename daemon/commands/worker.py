"""``lockstep worker``: takes shards of searches and stress from the journal; start several."""

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.commands.journals import Url, journal_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backtest.shards import Shard, Shards
    from backtest.validation.ledger import Ledger

EPILOG = (
    "Example: lockstep worker --journal postgresql://trader@db/lockstep\n\n"
    "Run it where the paths that were typed for 'lockstep sweep --shards' lead to the same files; "
    "a worker whose data, settings or code are others refuses. It may be killed at any moment: "
    "what it held is free again when its lease has run out. Clocks of the machines must agree to "
    "within a lease."
)
BEATS_PER_LEASE = 3
IDLE_S = 0.5


def worker(
    journal: Url = None,
    lease: Annotated[
        str, typer.Option(metavar="30s", help="How long a killed worker's shard waits.")
    ] = "30s",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Default: one a processor.")
    ] = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="End when no shard is free, instead of waiting.")
    ] = False,
) -> None:
    """Work on shards until stopped."""
    import os
    import socket

    from daemon.console import write
    from daemon.journal import open_journal
    from daemon.journal.patience import patiently
    from daemon.journal.trials import shard_table, trial_ledger
    from markets.intervals import parse_interval

    lease_ms = parse_interval(lease)
    name = f"{socket.gethostname()}-{os.getpid()}"[:120]
    url = journal_url(journal)
    database = patiently(lambda: open_journal(url))
    try:
        table, ledger = patiently(lambda: (shard_table(database), trial_ledger(database)))
        write(f"worker {name} waits for shards", to_error=True)
        _serve(table, ledger, name, lease_ms, threads or os.cpu_count() or 1, drain=drain)
    finally:
        database.dispose()


def _serve(
    table: "Shards", ledger: "Ledger", name: str, lease_ms: int, threads: int, *, drain: bool
) -> None:
    import time

    from daemon.clock import now_ms
    from daemon.console import write
    from daemon.journal.patience import patiently

    while True:
        shard = patiently(lambda: table.claim(name, now_ms=now_ms(), lease_ms=lease_ms))
        if shard is not None:
            _do(table, ledger, shard, name, lease_ms, threads)
            write(f"{shard.study} {shard.place}: done", to_error=True)
        elif drain:
            return
        else:
            time.sleep(IDLE_S)


def _do(
    table: "Shards", ledger: "Ledger", shard: "Shard", name: str, lease_ms: int, threads: int
) -> None:
    """Work on one shard. What cannot be done fails it; who cannot do it gives it back and ends."""
    from core.errors import JournalUnreachable, LockstepError
    from daemon.commands.offering import Unfit
    from daemon.journal.patience import patiently

    try:
        with _heartbeat(table, shard, name, lease_ms):
            result = _result(shard, ledger, threads)
    except Unfit:
        patiently(lambda: table.release(shard, name))
        raise
    except JournalUnreachable:
        raise
    except LockstepError as error:
        why = str(error)
        patiently(lambda: table.fail(shard, why))
        return
    patiently(lambda: table.finish(shard, result))


def _result(shard: "Shard", ledger: "Ledger", threads: int) -> "dict[str, Any]":
    from daemon.commands import sharding, stressing
    from daemon.commands.offering import Unfit

    if shard.kind in {"sweep", "fit"}:
        return sharding.work(shard, ledger, threads=threads)
    if shard.kind in {"world", "luck"}:
        return stressing.work(shard)
    raise Unfit(f"shard of {shard.study}: this worker knows no '{shard.kind}': it has other code")


@contextmanager
def _heartbeat(table: "Shards", shard: "Shard", name: str, lease_ms: int) -> "Iterator[None]":
    """Holds the lease for as long as the work takes."""
    import threading

    from core.errors import JournalUnreachable
    from daemon.clock import now_ms

    over = threading.Event()

    def beat() -> None:
        while not over.wait(lease_ms / 1_000 / BEATS_PER_LEASE):
            with suppress(JournalUnreachable):  # the next beat may find it back
                table.extend(shard, name, until_ms=now_ms() + lease_ms)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
