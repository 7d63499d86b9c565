"""A daemon of its own for tests, whose orders go to a venue outside; it may kill itself on the way.

    python tests/daemon/venue_child.py JOURNAL PORT [BOUNDARY COUNT]

``BOUNDARY`` is unsent, unanswered or unjournaled (a fill that came in), or one of the journal's;
at its COUNT-th time the process sends itself SIGKILL. It ends with 0 when the tape is played.
"""

import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from live_child import RUN, Deadly, tape, watch_commits
from shelf import shelf_setup, shelf_world

from backtest.assemble import Setup
from core.events import fill_event
from core.model import Kind, Records
from core.ports import Journal
from daemon.journal import open_journal, sqlite_url
from daemon.live.service import Service, open_service, paper_row, run_service
from daemon.supervisor import Task
from markets.history import History

STRATEGY, BARS = "trend", 150
LINE_BYTES_MAX = 1 << 20


def setup() -> Setup:
    """The shelf's, with every instrument at a venue outside."""
    shelf = shelf_setup(STRATEGY)
    instruments = tuple(replace(each, external=True) for each in shelf.instruments)
    return replace(shelf, instruments=instruments)


def warmth() -> tuple[Setup, dict[str, History]]:
    """What a process has to have compiled and at hand before this one is forked from it."""
    return setup(), shelf_world(STRATEGY, BARS)


class SocketVenue:
    """The client of ``standin_venue``, and the smallest whole ``core.ports.Venue``."""

    tasks = ()

    def __init__(self, service: Service, port: int, deadly: Deadly) -> None:
        self._service, self._port, self._deadly = service, port, deadly
        self._upto = 0

    async def submit(self, approved: Any) -> None:
        await self._send(approved)

    async def recover(self, working: Records) -> None:
        """By status: tell the fills that are not journaled, send what never arrived."""
        async with await anyio.connect_tcp("127.0.0.1", self._port) as stream:
            known = await _ask(stream, op="status", orders=working["id"].tolist())
        self._upto = known["upto"]
        for order in working:
            told = known["quantities"].get(str(order["id"]))
            if told is None:
                await self._send(order)
                continue
            seen = told - float(order["quantity"])
            for fill in known["fills"]:
                if fill["order"] != order["id"]:
                    continue
                if abs(seen) > 1e-9:
                    seen -= fill["quantity"]
                else:
                    await self._tell(fill)

    async def follow(self) -> None:
        """An edge: every fill of the run from where the status stood."""
        async with await anyio.connect_tcp("127.0.0.1", self._port) as stream:
            await _say(stream, op="follow", after=self._upto)
            lines = BufferedByteReceiveStream(stream)
            while True:
                fill = json.loads(await lines.receive_until(b"\n", LINE_BYTES_MAX))
                self._upto += 1
                await self._tell(fill)

    async def _tell(self, fill: dict[str, Any]) -> None:
        self._deadly.pass_by("unjournaled")
        await self._service.inbox.put(fill_event(**fill))

    async def halt(self) -> None:
        """Nothing of it ever rests."""

    def close(self) -> None:
        """Nothing is open."""

    async def _send(self, order: Any) -> None:
        at = int(order["instrument"])
        asked = {"order": int(order["id"]), "instrument": at, "ts": int(order["born_ts"])}
        asked |= {"quantity": float(order["quantity"]), "price": float(order["reference"])}
        asked["lot"] = self._service.engine.instruments[at].lot
        self._deadly.pass_by("unsent")
        async with await anyio.connect_tcp("127.0.0.1", self._port) as stream:
            await _say(stream, op="submit", **asked)
            self._deadly.pass_by("unanswered")
            await _hear(stream)


async def _say(stream: SocketStream, **asked: Any) -> None:
    await stream.send(json.dumps(asked).encode() + b"\n")


async def _hear(stream: SocketStream) -> Any:
    answer = await BufferedByteReceiveStream(stream).receive_until(b"\n", LINE_BYTES_MAX)
    return json.loads(answer)


async def _ask(stream: SocketStream, **asked: Any) -> Any:
    await _say(stream, **asked)
    return await _hear(stream)


class SettledTape:
    """The tape, a bar at a time, each once every order of the one before has ended: only so does a
    fill come at the same place in every run."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._account = service.engine.arrays["account"]
        self._last = dict(service.recovered.last_bar_ms)

    async def __aiter__(self) -> AsyncIterator[Records]:
        events, last = tape(STRATEGY, BARS), max(self._last.values(), default=0)
        bars = events["kind"] == Kind.BAR
        folded = np.array([self._last.get(int(i), 0) for i in events["instrument"]])
        events = events[events["ts_known"] > np.where(bars, folded, last)]
        for block in np.split(events, np.flatnonzero(events["kind"] == Kind.BAR) + 1):
            if not len(block):
                continue
            await self._settled()
            ahead = self._service.journal.seq + len(block)
            yield block
            while self._service.journal.seq < ahead:
                await anyio.lowlevel.checkpoint()
        await self._settled()
        self._service.stop()
        await anyio.sleep_forever()

    async def _settled(self) -> None:
        while self._service.inbox.waiting or len(self._service.engine.sent()):
            await anyio.lowlevel.checkpoint()


def main() -> None:
    """Play the tape to its end, or die on the way."""
    path, port, boundary, count = *sys.argv[1:3], *(sys.argv[3:] or ["never", "0"])
    database = open_journal(sqlite_url(Path(path)))
    carried = {name: each.fields for name, each in shelf_world(STRATEGY, BARS).items()}
    row = paper_row(RUN, setup(), started_ms=0)
    service = open_service(setup(), carried, database, row, lambda: service.recovered.last_ms)
    deadly = Deadly(boundary, int(count))
    venue = SocketVenue(service, int(port), deadly)

    def wrap(journal: Journal) -> Journal:
        watch_commits(database, deadly)
        return deadly.around(journal)

    fills = Task("fills", venue.follow)
    anyio.run(
        lambda: run_service(
            service,
            SettledTape(service),
            venue,
            edges=lambda _: [fills],
            wrap=wrap,
            snapshot_events=100,
        )
    )


if __name__ == "__main__":
    main()
