"""A live run in one process: it stops, goes on, refuses what it cannot trust, keeps its latch."""

import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from journal_world import desk, histories
from worlds import SCRIPT, START, one_book, scripted

from backtest.assemble import Setup
from core.errors import JournalError
from core.model import Command, Kind, Mode, Records, Result
from daemon.journal import open_journal, read_events, read_outcomes, sqlite_url
from daemon.live.inbox import Inbox
from daemon.live.service import Service, open_service, paper_row, run_service
from daemon.observe.stopwatch import Tick
from daemon.supervisor import CoreStopped, Task, supervise
from risk.limits import Limits, Sizing, SizingRule

BARS = 12
FLAT = [100.0] * BARS
SETUP = one_book(
    SCRIPT,
    limits=Limits(),
    sizing=Sizing(rule=SizingRule.QUANTITY, value=10.0),
    book={"offset": 9.0},
    leverage=2.0,
)


DATABASES: list[Any] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close every database that a test opened."""
    yield
    while DATABASES:
        DATABASES.pop().dispose()


class Tape:
    """Blocks to be played, with something done before some of them; at the end the run stops."""

    def __init__(self, service: Service, targets: list[float], at: dict[int, Any]) -> None:
        events = scripted(targets, FLAT[: len(targets)], FLAT[: len(targets)]).events
        events = events[events["ts_known"] > max(service.recovered.last_bar_ms.values(), default=0)]
        self._blocks = np.split(events, np.flatnonzero(np.diff(events["ts_known"])) + 1)
        self._service, self._at = service, at

    async def __aiter__(self) -> AsyncIterator[Records]:
        for number, block in enumerate(self._blocks):
            if number in self._at:
                await self._at[number](self._service)
            yield block
        self._service.stop()
        await anyio.sleep_forever()


def opened(path: Path, setup: Setup = SETUP) -> Service:
    database = open_journal(sqlite_url(path))
    DATABASES.append(database)
    carried = {"X": frozenset({"open", "high", "low", "close", "volume", "open_interest"})}
    row = paper_row("paper", setup, started_ms=0)
    return open_service(setup, carried, database, row, lambda: START)


def played(
    path: Path, targets: list[float], at: dict[int, Any] | None = None, **more: Any
) -> Service:
    service = opened(path)
    anyio.run(lambda: run_service(service, Tape(service, targets, at or {}), **more))
    return service


def kept(service: Service) -> tuple[Records, Records]:
    database = service.journal.engine
    return read_events(database, "paper"), read_outcomes(database, "paper")


def say(word: Command) -> Callable[[Service], Any]:
    async def told(service: Service) -> None:
        await service.command(word)

    return told


def test_a_halt_survives_a_restart_and_only_a_resume_lifts_it(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    played(path, [0, 1, 1, 1], {1: say(Command.HALT)})
    again = opened(path)
    again.stop()
    assert again.engine.arrays["account"]["mode"][0] == Mode.HALTED
    played(path, [0, 1, 1, 1, 1, 1], {})
    service = played(path, [0, 1, 1, 1, 1, 1, 1, 1, 1], {0: say(Command.RESUME)})
    _, outcomes = kept(service)
    assert outcomes[outcomes["kind"] == Result.MODE]["reason"].tolist() == [
        Mode.HALTED,
        Mode.ACTIVE,
    ]
    assert outcomes[outcomes["kind"] == Result.FILL]["quantity"].tolist() == [10.0]


def test_a_close_carries_the_instrument_of_its_book_and_a_halt_none(tmp_path: Path) -> None:
    async def scene() -> list[tuple[int, int, int]]:
        database = open_journal(sqlite_url(tmp_path / "j.sqlite"))
        DATABASES.append(database)
        carried = {name: history.fields for name, history in histories().items()}
        row = paper_row("paper", desk(), started_ms=0)
        service = open_service(desk(), carried, database, row, lambda: START)
        blocks = aiter(service.inbox)
        for word, book in ((Command.CLOSE, 0), (Command.CLOSE, 3), (Command.HALT, 0)):
            await service.command(word, book)
        told = [(await anext(blocks))[0] for _ in range(3)]
        service.stop()
        await service.command(Command.HALT)
        assert [block async for block in blocks] == []
        return [(int(e["command"]), int(e["book"]), int(e["instrument"])) for e in told]

    places = {name: place for place, name in enumerate(histories())}
    assert anyio.run(scene) == [
        (Command.CLOSE, 0, places[desk().books[0].book.instrument]),
        (Command.CLOSE, 3, places[desk().books[3].book.instrument]),
        (Command.HALT, 0, 0),
    ]
    assert places[desk().books[3].book.instrument] == 1


def test_while_the_line_is_down_a_book_may_only_shrink(tmp_path: Path) -> None:
    async def down(service: Service) -> None:
        await service.link(0, False)

    async def up(service: Service) -> None:
        await service.link(0, True)

    service = played(tmp_path / "j.sqlite", [0, 1, 1, 1, 1], {1: down, 3: up})
    events, outcomes = kept(service)
    assert (events["kind"] == Kind.LINK).sum() == 2
    assert len(outcomes[outcomes["kind"] == Result.REFUSED]) == 1
    assert len(outcomes[outcomes["kind"] == Result.APPROVED]) == 1


def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    played(tmp_path / "j.sqlite", [0, 1, 1])
    with pytest.raises(JournalError, match=r"recorded with other settings.*--run NAME"):
        opened(tmp_path / "j.sqlite", changed(SETUP, equity=5_000.0))


def test_a_journal_that_does_not_reproduce_itself_is_not_traded_on(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    played(path, [0, 1, 1])
    with closing(sqlite3.connect(path)) as database:
        payload = database.execute("SELECT payload FROM events WHERE seq = 4").fetchone()[0]
        forged = np.frombuffer(payload, "f8") * 1.5
        database.execute("UPDATE events SET payload = ? WHERE seq = 4", (forged.tobytes(),))
        database.commit()
    with pytest.raises(JournalError, match="does not reproduce itself"):
        opened(path)


def test_sigterm_folds_what_is_in_and_ends(tmp_path: Path) -> None:
    async def terminate(_: Service) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await anyio.sleep(0.05)

    service = played(tmp_path / "j.sqlite", [0, 1, 1, 1, 1, 1], {3: terminate})
    assert service.stopping
    events, _ = kept(service)
    assert 0 < (events["kind"] == Kind.BAR).sum() < 6


def test_observers_see_each_step_after_it_is_durable(tmp_path: Path) -> None:
    seen: list[int] = []

    def ended(tick: Tick) -> None:
        with closing(sqlite3.connect(tmp_path / "j.sqlite")) as database:
            recorded = database.execute("SELECT max(seq) FROM events").fetchone()[0]
        seen.append(recorded - len(tick.events))

    played(tmp_path / "j.sqlite", [0, 1, 1], ended=ended)
    assert seen == sorted(seen)
    assert seen[0] == 0


def test_the_inbox_stamps_what_comes_late_with_when_it_came() -> None:
    async def collect() -> list[int]:
        inbox, stamps = Inbox(), []
        blocks = aiter(inbox)
        for ts in (5, 3, 9):
            event = scripted([1.0], [1.0], [1.0]).events[:1].copy()
            event["ts_known"] = ts
            await inbox.put(event)
            stamps.append(int((await anext(blocks))["ts_known"][0]))
        inbox.close()
        assert [block async for block in blocks] == []
        return stamps

    assert anyio.run(collect) == [5, 5, 9]


def test_an_edge_that_fails_is_started_again_and_its_outage_is_told() -> None:
    runs, outages, stop = [], [], anyio.Event

    async def scene() -> None:
        done = stop()

        async def edge() -> None:
            runs.append(1)
            if len(runs) < 3:
                raise ValueError("the line broke")
            done.set()
            await anyio.sleep_forever()

        async def told() -> None:
            outages.append(1)

        with anyio.fail_after(10):
            await supervise(
                [Task("core", done.wait, core=True), Task("edge", edge, on_fail=told)],
                lambda: True,
            )

    anyio.run(scene)
    assert (len(runs), len(outages)) == (3, 2)


@pytest.mark.parametrize("raises", [True, False])
def test_a_core_task_that_ends_unasked_ends_the_process(raises: bool) -> None:
    async def core() -> None:
        if raises:
            raise RuntimeError("the loop broke")

    async def scene() -> None:
        await supervise(
            [Task("core", core, core=True), Task("edge", anyio.sleep_forever)], lambda: False
        )

    with pytest.raises(ExceptionGroup) as caught:
        anyio.run(scene)
    assert caught.group_contains(RuntimeError if raises else CoreStopped)
