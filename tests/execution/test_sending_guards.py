"""Each guard of the order life twice: where it blocks, and where it lets pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from chain_model import (
    NO_COLLATERAL,
    NO_FAULTS,
    TOO_SMALL,
    Faults,
    MemoryAttempts,
    ModelChain,
    ModelEndpoint,
    World,
)
from desk_model import Desk, books_of

from core.errors import LockstepError
from execution.sending import Attempt, Ending, Level, Look, Seen, Sender, Signed, State, Tip
from execution.sending.evidence import Sight, expired, finalized
from execution.sending.life import ended_by

LAST_VALID = 1_000


def sight(height: int, view: int, level: Level | None = None, *, tip_slot: int = 5_000) -> Sight:
    seen = None if level is None else Seen(level, 4_900)
    return Sight(Tip(height, tip_slot), Look(view, seen))


@pytest.mark.parametrize(
    ("sights", "proven"),
    [
        ([sight(1_001, 5_000)], True),
        ([sight(1_001, 5_040)], True),
        # the last valid block itself may still land it
        ([sight(1_000, 5_000)], False),
        # another node answered, and its view is older than the height that was asked for
        ([sight(1_001, 4_999)], False),
        # a lagging endpoint adds nothing, and takes nothing away
        ([sight(900, 4_700), sight(1_001, 5_000)], True),
        ([sight(900, 4_700), sight(950, 4_800)], False),
        # somebody sees it, on a fork perhaps: not before nobody does
        ([sight(1_001, 5_000), sight(900, 4_950, Level.PROCESSED)], False),
        ([sight(1_001, 5_000), sight(1_001, 5_000, Level.FINALIZED)], False),
        # nobody answered
        ([], False),
    ],
)
def test_only_a_view_past_the_last_valid_height_proves_expiry(
    sights: list[Sight], proven: bool
) -> None:
    assert expired(sights, LAST_VALID) == proven


@pytest.mark.parametrize("level", [None, *Level])
def test_only_what_is_finalized_is_believed(level: Level | None) -> None:
    found = finalized([sight(900, 4_950), sight(990, 4_990, level)])
    assert (found is not None) == (level is Level.FINALIZED)


class Wire(ModelEndpoint):
    """Counts what is sent, by order."""

    def __init__(self, world: World, sends: list[bytes]) -> None:
        super().__init__(world)
        self._sends = sends

    async def send(self, payload: bytes) -> None:
        self._sends.append(payload)
        await super().send(payload)


@dataclass
class Bench:
    """A sender on a chain, its store and its desk."""

    faults: Faults = NO_FAULTS
    ttl_ms: int = 30_000

    def __post_init__(self) -> None:
        self.world = World(3, self.faults)
        self.sends: list[bytes] = []
        endpoints: Sequence[ModelEndpoint] = [Wire(self.world, self.sends)]
        self.chain = ModelChain(self.world, endpoints)
        self.store = MemoryAttempts(self.world)
        self.desk = Desk(self.world, intents=99)
        self.sender = self.start()

    def start(self) -> Sender:
        return Sender(
            self.chain,
            self.store,
            self.desk.tell,
            books=books_of,
            held=self.desk.held,
            halted=self.desk.halted,
            ttl_ms=self.ttl_ms,
            clock=self.world.clock,
            sleep=self.world.sleep,
        )

    def approve(self, book: int, lots: int, *, reduce: bool = False) -> Any:
        return self.desk._order(book, lots, reduce=reduce)

    async def settle(self, *orders: Any, halt_after_s: float | None = None) -> None:
        """Send these orders until all have ended."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.sender.run)
            for order in orders:
                await self.sender.submit(order)
            if halt_after_s is not None:
                await self.world.sleep(halt_after_s)
                await self.sender.halt()
            while self.sender.unsettled:
                await self.world.sleep(1)
            group.cancel_scope.cancel()
        self.desk.fold()

    def codes(self) -> list[int]:
        return [int(end["code"]) for _, end in sorted(self.desk.ends.items())]

    def sent_of(self, order_id: int) -> int:
        return sum(f'"order": {order_id},'.encode() in payload for payload in self.sends)


NOTHING_LANDS = replace(NO_FAULTS, drop=1.0)


def test_the_same_bytes_are_sent_again_and_again_until_the_time_to_live_is_over() -> None:
    bench = Bench(NOTHING_LANDS)
    anyio.run(bench.settle, bench.approve(0, 5))
    assert len(set(bench.sends)) == 1
    assert 6 <= len(bench.sends) <= 16
    assert bench.codes() == [Ending.EXPIRED]
    assert bench.store.rows[1, 1].state is State.EXPIRED
    landing = Bench()
    anyio.run(landing.settle, landing.approve(0, 5))
    assert landing.codes() == [Ending.NONE]
    assert landing.desk.held_lots[0] == 5


def test_an_order_that_outlives_its_transaction_is_signed_anew() -> None:
    bench = Bench(NOTHING_LANDS, ttl_ms=150_000)
    anyio.run(bench.settle, bench.approve(0, 5))
    assert bench.chain.signings == [(1, 1), (1, 2), (1, 3)][: len(bench.chain.signings)]
    assert len(bench.chain.signings) > 1
    assert len(set(bench.sends)) == len(bench.chain.signings)


def test_a_halt_stops_what_grows_and_lets_what_shrinks_go_on() -> None:
    bench = Bench(NOTHING_LANDS)
    bench.desk.held_lots.update({0: 9})
    orders = [
        bench.approve(0, -9, reduce=True),
        bench.approve(2, 5),
        bench.approve(3, 5),
    ]

    async def halted() -> None:
        await bench.settle(*orders, halt_after_s=3)

    anyio.run(halted)
    assert bench.sent_of(1) >= 6
    # one was in the air and is waited for, the one behind it was not even signed
    assert 1 <= bench.sent_of(2) <= 4
    assert bench.sent_of(3) == 0
    assert bench.codes() == [Ending.EXPIRED, Ending.HALTED, Ending.HALTED]


def test_orders_after_a_halt_was_lifted_are_sent() -> None:
    bench = Bench()

    async def lifted() -> None:
        await bench.sender.halt()
        await bench.settle(bench.approve(0, 5))

    anyio.run(lifted)
    assert bench.codes() == [Ending.NONE]


@pytest.mark.parametrize("halted", [True, False])
def test_after_a_restart_a_halt_still_holds(halted: bool) -> None:
    bench = Bench()
    bench.desk.is_halted = halted
    bench.approve(0, 5)
    anyio.run(bench.sender.recover, bench.desk.sent())
    bench.desk.fold()
    assert bench.codes() == [Ending.HALTED if halted else Ending.NONE]
    assert bench.sent_of(1) == (0 if halted else len(bench.sends))


@pytest.mark.parametrize("unfilled", [1.0, 0.0])
def test_a_leg_that_grows_is_sent_only_after_its_book_is_flat(unfilled: float) -> None:
    bench = Bench(replace(NO_FAULTS, unfilled=unfilled), ttl_ms=60_000)
    bench.desk.held_lots.update({0: 300})
    legs = [bench.approve(0, -300, reduce=True), bench.approve(0, -50)]
    anyio.run(bench.settle, *legs)
    if unfilled:
        assert bench.codes() == [Ending.NONE, Ending.CROSSING]
        assert bench.desk.held_lots[0] == 300
    else:
        assert bench.codes() == [Ending.NONE, Ending.NONE]
        assert bench.desk.held_lots[0] == -50
        assert bench.world.of_order(2)[0].slot > bench.world.of_order(1)[0].slot + 32


def test_what_cannot_be_signed_and_what_fails_end_with_the_venues_code() -> None:
    for faults, code, sends in (
        (replace(NO_FAULTS, unsignable=1.0), TOO_SMALL, False),
        (replace(NO_FAULTS, fail=1.0), NO_COLLATERAL, True),
    ):
        bench = Bench(faults)
        anyio.run(bench.settle, bench.approve(0, 5))
        assert bench.codes() == [code]
        assert bool(bench.sends) == sends
        assert bench.desk.held_lots[0] == 0


def test_a_preflight_refusal_is_no_evidence_but_names_why_nothing_landed() -> None:
    refusing = replace(NO_FAULTS, preflight=1.0)
    for faults, code in ((replace(refusing, drop=1.0), NO_COLLATERAL), (refusing, Ending.NONE)):
        bench = Bench(faults, ttl_ms=200_000)
        anyio.run(bench.settle, bench.approve(0, 5))
        assert bench.codes() == [code]
        assert bench.desk.held_lots[0] == (0 if code else 5)
        assert len(bench.chain.signings) == 1


def test_an_unknown_fate_blocks_its_instrument_and_no_other() -> None:
    bench = Bench(NOTHING_LANDS)
    anyio.run(bench.settle, bench.approve(0, 5), bench.approve(1, 5), bench.approve(2, 5))
    assert [bench.sent_of(order_id) > 0 for order_id in (1, 2, 3)] == [True, False, True]
    landing = Bench(ttl_ms=60_000)
    anyio.run(landing.settle, *[landing.approve(book, 5) for book in (0, 1, 2)])
    first, second, other = (landing.world.of_order(order_id)[0].slot for order_id in (1, 2, 3))
    assert second > first + 32 > other


def test_silence_settles_nothing() -> None:
    bench = Bench(replace(NO_FAULTS, unreachable=1.0))
    order = bench.approve(0, 5)

    async def silent() -> None:
        signed = Signed("s", b'{"signature": "s"}', 1)
        await bench.store.write_signed(
            Attempt(order_id=1, number=1, signed=signed, signed_ms=bench.world.now_ms)
        )
        async with anyio.create_task_group() as group:
            group.start_soon(bench.sender.recover, bench.desk.sent())
            await bench.world.sleep(3_600)
            assert bench.sender.unsettled == 1
            bench.world.faults = NO_FAULTS
            while bench.sender.unsettled:
                await bench.world.sleep(1)
        bench.desk.fold()

    anyio.run(silent)
    assert order["id"] == 1
    assert bench.codes() == [Ending.EXPIRED]


def test_an_attempt_of_an_order_that_nobody_knows_refuses_the_start() -> None:
    bench = Bench()
    bench.approve(0, 5)
    stray = Attempt(order_id=7, number=1, signed=Signed("s", b"", 1), signed_ms=0)
    anyio.run(bench.store.write_signed, stray)
    with pytest.raises(LockstepError, match="order 7 is unsettled"):
        anyio.run(bench.sender.recover, bench.desk.sent())
    assert not bench.sends
    del bench.store.rows[7, 1]
    bench.sender = bench.start()
    anyio.run(bench.sender.recover, bench.desk.sent())
    bench.desk.fold()
    assert bench.codes() == [Ending.NONE]


def test_one_price_gives_back_what_was_paid_to_the_micro() -> None:
    world = World(11, NO_FAULTS)
    for _ in range(2_000):
        lots, paid = world.chance.randint(1, 10**7), world.chance.randint(1, 10**14)
        ended = ended_by(
            Attempt(
                order_id=1,
                number=1,
                signed=Signed("s", b"", 1),
                signed_ms=0,
                state=State.LANDED,
                quantity=-lots * 1e-3,
                paid_micros=-paid,
                fee_micros=7,
            )
        )
        assert round(ended.quantity * ended.price * 1e6) == -paid
        assert ended.price > 0
