"""A daemon of its own for tests: it plays a tape into a run, and may kill itself at a boundary.

    python tests/daemon/live_child.py JOURNAL [BOUNDARY COUNT]

``BOUNDARY`` is before, inside or after the journal's commit; at its COUNT-th time the process sends
itself SIGKILL. It ends with 0 when the tape is played.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import numpy as np
from sqlalchemy import Engine as Database
from sqlalchemy import event

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from shelf import shelf_setup, shelf_world  # noqa: E402

from backtest.assemble import Setup  # noqa: E402
from core.model import Records  # noqa: E402
from core.ports import Journal  # noqa: E402
from daemon.journal import open_journal, sqlite_url  # noqa: E402
from daemon.live.service import Service, open_service, paper_row, run_service  # noqa: E402
from markets.history import History, merge  # noqa: E402

BARS = 900
STRATEGY = "e3"
RUN = "paper-test"


def setup() -> Setup:
    """The shelf's."""
    return shelf_setup(STRATEGY)


def warmth() -> tuple[Setup, dict[str, History]]:
    """What a process has to have compiled and at hand before this one is forked from it."""
    return setup(), shelf_world(STRATEGY, BARS)


def tape(strategy: str = STRATEGY, bars: int = BARS) -> Records:
    """Every event of the strategy's world, as a replay would see it."""
    return merge(list(shelf_world(strategy, bars).values()))


class TapeFeed:
    """What became known at one moment is one block; it goes on after the last bar heard."""

    def __init__(self, service: Service) -> None:
        self._from = max(service.recovered.last_bar_ms.values(), default=0)
        self._service = service

    async def __aiter__(self) -> AsyncIterator[Records]:
        events = tape()
        events = events[events["ts_known"] > self._from]
        for block in np.split(events, np.flatnonzero(np.diff(events["ts_known"])) + 1):
            if len(block):
                yield block
        self._service.stop()
        await anyio.sleep_forever()


class Deadly:
    """Kills the process at the COUNT-th time that it passes the boundary named."""

    def __init__(self, boundary: str, count: int) -> None:
        self._boundary, self._left = boundary, count

    def pass_by(self, boundary: str) -> None:
        """Die here when it is time."""
        if boundary == self._boundary:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, journal: Journal) -> Journal:
        """The journal, whose boundaries are passed by."""
        return _DeadlyJournal(journal, self)


class _DeadlyJournal:
    def __init__(self, journal: Journal, deadly: Deadly) -> None:
        self._journal, self._deadly = journal, deadly

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        self._deadly.pass_by("before")
        await self._journal.append(events, outcomes, track)
        self._deadly.pass_by("after")


def watch_commits(database: Database, deadly: Deadly) -> None:
    """Pass by ``inside`` at every commit from now on."""
    event.listen(database, "commit", lambda _connection: deadly.pass_by("inside"))


def main() -> None:
    """Play the tape to its end, or die on the way."""
    path, boundary, count = sys.argv[1], *(sys.argv[2:] or ["never", "0"])
    database = open_journal(sqlite_url(Path(path)))
    world = shelf_world(STRATEGY, BARS)
    carried = {name: history.fields for name, history in world.items()}
    row = paper_row(RUN, setup(), started_ms=0)
    service = open_service(setup(), carried, database, row, lambda: service.recovered.last_ms)
    deadly = Deadly(boundary, int(count))

    def wrap(journal: Journal) -> Journal:
        watch_commits(database, deadly)
        return deadly.around(journal)

    feed = TapeFeed(service)
    anyio.run(lambda: run_service(service, feed, wrap=wrap, snapshot_events=100))


if __name__ == "__main__":
    main()
