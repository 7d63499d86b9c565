"""Every rule of Drift's program that refuses an order stands in the journal by its name.

One order each, from the loop through the venue's sender and a node to the program, and back into
the journal's own rows on disk.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from drift_venue import Rig, rigged
from standin_wire import Wire, opened
from test_drift_orders import REFUSALS, book
from worlds import MINUTE, SCRIPT, one_book, scripted

from backtest.assemble import Setup
from core.model import Records
from daemon.journal import RunMode, open_journal, sqlite_url
from daemon.journal.attempts import SqlAttempts
from daemon.live.service import Service, open_service, paper_row, run_service
from daemon.supervisor import Task
from execution.sending import Sender
from markets.drift.layout import codes
from markets.drift.program import load_driftpy
from markets.history import History, merge
from risk.limits import Sizing, SizingRule

SOL, RUN = "SOL-PERP", "drift"
NAMED = {6003, 6023, 6024, 6050, 6059, 6061, 6071, 6117, 6147, 6148, 6154, 6252, 6254, 6289}
NAMED |= {*range(6261, 6267)}
"""Every code that the program's order rules name."""
LANDED = {"InvalidOrderIOC": 6050, "UserOrderIdAlreadyInUse": 6071}
"""What an order of ours can do nothing to meet: told of a transaction that landed with it."""


@dataclass
class Outside:
    """A ``daemon.live.service.Outside`` whose time is the stand-in's."""

    sender: Sender

    async def submit(self, approved: Records) -> None:
        await self.sender.submit(approved)

    async def recover(self, working: Records) -> None:
        await self.sender.recover(working)

    async def halt(self) -> None:
        await self.sender.halt()

    @property
    def tasks(self) -> list[Task]:
        return [Task("orders", self.sender.run, core=True)]

    def close(self) -> None:
        self.sender.close()


@dataclass
class OneOrder:
    """A tape at whose end its only order has ended too."""

    service: Service
    tape: Records

    async def __aiter__(self) -> AsyncIterator[Records]:
        journal, engine = self.service.journal, self.service.engine
        yield self.tape
        while journal.seq < len(self.tape) or len(engine.sent()):  # noqa: ASYNC110 - tells nobody
            await anyio.sleep(0.002)
        self.service.stop()
        await anyio.sleep_forever()


def setup_of(quantity: float) -> Setup:
    sizing = Sizing(rule=SizingRule.QUANTITY, value=quantity)
    made = one_book(SCRIPT, sizing=sizing, equity=1e9, book={"offset": 0.1}, external=True)
    (entry,), (instrument,) = made.books, made.instruments
    return replace(
        made,
        instruments=(replace(instrument, name=SOL, lot=0.001),),
        books=(replace(entry, book=replace(entry.book, name=SOL, instrument=SOL)),),
    )


async def traded(rig: Rig, folder: Path, quantity: float) -> None:
    """One order of the loop's, taken to its end in the journal."""
    start = (rig.clock() // MINUTE + 1) * MINUTE
    history: History = scripted([1.0], [150.0], [150.0], start=start)
    setup, database = setup_of(quantity), open_journal(sqlite_url(folder / "journal.sqlite"))
    row = replace(paper_row(RUN, setup, started_ms=0), mode=RunMode.LIVE)
    service = open_service(setup, {SOL: history.fields}, database, row, rig.clock, codes())
    sender = Sender(
        rig.chain,
        SqlAttempts(database, RUN),
        service.inbox.put,
        books=lambda _instrument: [0],
        held=lambda _book: 0.0,
        halted=lambda: False,
        ttl_ms=rig.ttl_ms,
        clock=rig.clock,
        sleep=rig.sleep,
    )
    rig.wire.desk.set_time(start + MINUTE)
    with anyio.fail_after(60):
        await run_service(service, OneOrder(service, merge([history])), Outside(sender))
    database.dispose()


def told(folder: Path) -> list[Any]:
    """The journal's rows of how orders ended, read as anybody would."""
    query = (
        "SELECT o.order_id, e.code, e.reason, f.quantity FROM orders o "
        "JOIN order_ends e USING (run_id, order_id) LEFT JOIN fills f USING (run_id, order_id)"
    )
    with closing(sqlite3.connect(folder / "journal.sqlite")) as journal:
        return journal.execute(query).fetchall()


def refused(folder: Path, arrange: Any, more: dict[str, Any]) -> list[Any]:
    load_driftpy()
    given = {"quantity": 1.0} | more
    quantity = given.pop("quantity")

    async def scene() -> None:
        async with opened() as wire:
            book(wire)
            arrange(wire)
            wire.desk.tick(2)
            async with rigged(wire, **given) as rig:
                await traded(rig, folder, quantity)

    anyio.run(scene)
    return told(folder)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_stands_in_the_journal_by_its_name(name: str, tmp_path: Path) -> None:
    ((order, code, reason, quantity),) = refused(tmp_path, *REFUSALS[name])
    assert (order, codes()[code], reason, quantity) == (1, name, name, None)


@pytest.mark.parametrize("name", LANDED)
def test_an_error_it_landed_with_stands_there_too(name: str, tmp_path: Path) -> None:
    def arrange(wire: Wire) -> None:
        wire.desk.faults(fail_transaction=1, fail_code=LANDED[name])

    assert refused(tmp_path, arrange, {}) == [(1, LANDED[name], name, None)]


def test_and_what_landed_too_late(tmp_path: Path) -> None:
    def arrange(wire: Wire) -> None:
        wire.desk.faults(delay_transaction=1, delay_slots=70)

    assert refused(tmp_path, arrange, {}) == [(1, 6061, "OrderDoesNotExist", None)]


def test_no_rule_that_has_a_code_is_left_out() -> None:
    seen = {*REFUSALS, *LANDED, "OrderDoesNotExist"}
    assert {codes()[code] for code in NAMED} <= seen
