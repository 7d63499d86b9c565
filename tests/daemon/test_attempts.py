"""The order life on the real journal and the real step: what a chain did is what the books say."""

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from chain_model import (
    LOT,
    NO_COLLATERAL,
    NO_FAULTS,
    TOO_LATE,
    TOO_SMALL,
    Crash,
    Faults,
    ModelChain,
    World,
)
from desk_model import check_crash
from journal_world import begun
from sqlalchemy import Engine
from test_journal_guards import APPROVED, DECISION, append, events
from worlds import SCRIPT, START, one_book, scripted

from backtest.replay import NoAdvisor
from core.errors import JournalError
from core.loop import run as run_loop
from core.model import Kind, Records
from daemon.journal import open_journal, read_events, sqlite_url
from daemon.journal.attempts import SqlAttempts
from daemon.live.service import Service, open_service, paper_row
from execution.reconcile import mismatches
from execution.sending import Attempt, Ending, Sender, Signed, State

pytestmark = pytest.mark.usefixtures("closing")

RUN = "paper"
SIGNED = Attempt(order_id=1, number=1, signed=Signed("abc", b"\x00\xff", 2**40), signed_ms=5)
LANDED = Attempt(
    order_id=1,
    number=1,
    signed=SIGNED.signed,
    signed_ms=5,
    state=State.LANDED,
    slot=2**40,
    quantity=-0.125,
    paid_micros=-(2**50),
    fee_micros=3,
    settled_ms=9,
)


def attempts_of(engine: Engine) -> SqlAttempts:
    journal = begun(engine)
    append(journal, events(1), DECISION, APPROVED)
    return SqlAttempts(engine, journal.run_id)


def test_an_attempt_comes_back_as_it_was_written(journal_url: str) -> None:
    attempts = attempts_of(open_journal(journal_url))
    for written, asked in ((SIGNED, []), (LANDED, [1, 2])):
        write = attempts.write_signed if written is SIGNED else attempts.write_verdict
        anyio.run(write, written)
        assert anyio.run(attempts.load, asked) == {1: written}
    # what is settled is told only of the orders asked for
    assert anyio.run(attempts.load, [2]) == {}


def test_the_newest_attempt_of_an_order_is_told(journal_url: str) -> None:
    attempts = attempts_of(open_journal(journal_url))
    anyio.run(attempts.write_signed, SIGNED)
    over = Attempt(order_id=1, number=1, signed=SIGNED.signed, signed_ms=5, state=State.EXPIRED)
    anyio.run(attempts.write_verdict, over)
    second = Attempt(order_id=1, number=2, signed=Signed("def", b"", 7), signed_ms=6)
    anyio.run(attempts.write_signed, second)
    assert anyio.run(attempts.load, [1]) == {1: second}


def test_a_signature_an_order_and_a_verdict_are_each_kept_once(journal_url: str) -> None:
    attempts = attempts_of(open_journal(journal_url))
    anyio.run(attempts.write_signed, SIGNED)
    twin = Attempt(order_id=1, number=2, signed=SIGNED.signed, signed_ms=6)
    unknown = Attempt(order_id=2, number=1, signed=Signed("new", b"", 7), signed_ms=6)
    for refused in (SIGNED, twin, unknown):
        with pytest.raises(JournalError):
            anyio.run(attempts.write_signed, refused)
    anyio.run(attempts.write_verdict, LANDED)
    with pytest.raises(JournalError, match="settled already"):
        anyio.run(attempts.write_verdict, LANDED)
    assert anyio.run(attempts.load, [1]) == {1: LANDED}


TARGETS = [1, 1, -1, -1, 0, 1, -1, 1, 0, 0, -1, 1] * 3
SETUP = one_book(SCRIPT, external=True, lot=LOT, leverage=5.0, book={"offset": 9.0})
CARRIED = frozenset({"open", "high", "low", "close", "volume", "open_interest"})
TTL_MS = 200_000


class Crashing:
    """A journal in whose every append the process may die, before it or after."""

    def __init__(self, service: Service, world: World) -> None:
        self._journal, self._world = service.journal, world

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        await self._world.boundary()
        await self._journal.append(events, outcomes, track)
        await self._world.boundary()


def opened(database: Engine, world: World) -> Service:
    row = paper_row(RUN, SETUP, started_ms=0)
    return open_service(SETUP, {"X": CARRIED}, database, row, world.clock)


async def feed(service: Service, sender: Sender, world: World) -> None:
    """Every market event that is not journaled yet, each bar at its time and to its end."""
    engine = service.engine
    prices = [100.0 + k % 7 for k in range(len(TARGETS))]
    market = scripted(TARGETS, prices, prices).events
    known = read_events(service.journal.engine, RUN)
    for k in range(int((known["kind"] != Kind.FILL).sum()), len(market)):
        world.elapse(max(0, int(market["ts_known"][k]) - world.now_ms))
        while service.inbox.waiting or sender.unsettled or len(engine.sent()):
            await world.sleep(0.4)
        # a fill that is folded may still be on its way into the journal
        ahead = int(engine.arrays["account"]["seq"][0]) + 1
        await service.inbox.put(market[k : k + 1])
        while service.journal.seq < ahead:
            await world.sleep(0.4)
    while len(engine.sent()):
        await world.sleep(0.4)
    service.stop()
    sender.close()


async def lived(database: Engine, world: World, chain: ModelChain) -> Service:
    """One process: recover, settle what was under way, and go on."""
    service = opened(database, world)
    engine = service.engine
    sender = Sender(
        chain,
        SqlAttempts(database, RUN),
        service.inbox.put,
        books=lambda _instrument: range(len(engine.books)),
        held=lambda book: float(engine.arrays["positions"]["quantity"][book]),
        halted=lambda: False,
        ttl_ms=TTL_MS,
        clock=world.clock,
        sleep=world.sleep,
    )
    try:
        await sender.recover(engine.sent())
        async with anyio.create_task_group() as group:
            group.start_soon(
                run_loop, engine, service.inbox, Crashing(service, world), sender, NoAdvisor()
            )
            group.start_soon(sender.run)
            group.start_soon(feed, service, sender, world)
    finally:
        service.inbox.close()
    return service


def survived(database: Engine, world: World) -> tuple[Service, int]:
    """Processes until one is not crashed, and how many were."""
    chain, crashes = ModelChain(world), 0
    while True:
        world.plan_crash()
        try:
            return anyio.run(lived, database, world, chain), crashes
        except (Crash, BaseExceptionGroup) as ending:
            check_crash(ending)
            crashes += 1
            world.elapse(world.chance.choice((0, 2_000, 90_000)))


@pytest.mark.slow
@pytest.mark.parametrize("faults", [NO_FAULTS, Faults()])
def test_the_books_agree_with_the_chain_to_the_micro_through_every_crash(
    tmp_path: Path, faults: Faults
) -> None:
    path = tmp_path / "journal.sqlite"
    database = open_journal(sqlite_url(path))
    world = World(5, faults, start_ms=START)
    world.boundaries_per_crash = 200
    service, crashes = survived(database, world)
    world.replay_all()
    assert crashes > 3
    fills = [fill for landed in world.landed.values() for fill in landed.fills]
    arrays = service.engine.arrays
    account = arrays["account"][0]
    assert account["cash_micros"] == account["start_micros"] - sum(
        fill.paid_micros + fill.fee_micros for fill in fills
    )
    lots = round(sum(fill.quantity for fill in fills) / LOT)
    held = [("X", float(arrays["positions"]["quantity"][0]))]
    assert mismatches(held, {"X": lots * Decimal(str(LOT))}, {"X": LOT}) == ()
    check_rows(path, world)


def check_rows(path: Path, world: World) -> None:
    """Every attempt is settled as the chain has it, and what ended short says why."""
    with closing(sqlite3.connect(path)) as connection:
        states = dict(connection.execute("SELECT state, count(*) FROM attempts GROUP BY 1"))
        ends = dict(connection.execute("SELECT code, reason FROM order_ends"))
        working = connection.execute("SELECT count(*) FROM order_states WHERE status = 'working'")
        assert working.fetchone() == (0,)
    errors = [landed.error for landed in world.landed.values() if landed.error is not None]
    assert states.get("landed", 0) == len(world.landed) - len(errors) > 0
    assert states.get("failed", 0) == len(errors)
    assert "signed" not in states
    ours = {int(code): code.name.lower() for code in Ending}
    venue = {code: f"code {code}" for code in (NO_COLLATERAL, TOO_LATE, TOO_SMALL)}
    assert ends.items() <= (ours | venue).items()
    assert set(errors) <= ends.keys()
