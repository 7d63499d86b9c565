"""Exactly once: whatever the chain, its nodes and crashes do, each order is settled as it was.

``LOCKSTEP_INTENTS`` sets how many intents the long form sends; a failure names its seed.
"""

import math
import os
from collections import Counter
from dataclasses import replace

import anyio
import pytest
from chain_model import (
    LOT,
    NO_COLLATERAL,
    NO_FAULTS,
    TOO_SMALL,
    Faults,
    MemoryAttempts,
    ModelChain,
    World,
)
from desk_model import Desk, lives

from execution.sending import Ending, State

INTENTS = int(os.environ.get("LOCKSTEP_INTENTS", "1200"))
INTENTS_A_SEED = 60
SHORT_MS, LONG_MS = 8_000, 240_000


def played(
    seed: int,
    *,
    intents: int = INTENTS_A_SEED,
    faults: Faults = NO_FAULTS,
    boundaries_per_crash: int = 0,
    crash_at: int | None = None,
    ttl_ms: int = SHORT_MS,
    halts: float = 0.0,
) -> tuple[World, Desk, ModelChain, MemoryAttempts]:
    """Play a desk to the end of its intents, and then replay every transaction ever sent."""
    world = World(seed, faults)
    chain, store = ModelChain(world), MemoryAttempts(world)
    desk = Desk(world, intents, halts=halts)
    world.boundaries_per_crash = boundaries_per_crash
    world.plan_crash()
    world.crash_at = crash_at or world.crash_at
    anyio.run(lives, desk, chain, store, ttl_ms)
    landed = dict(world.landed)
    world.replay_all()
    assert world.landed == landed, "a settled transaction landed later"
    check(world, desk, store)
    return world, desk, chain, store


def check(world: World, desk: Desk, store: MemoryAttempts) -> None:
    """What landed on the chain and what the desk was told are the same, order by order."""
    assert desk.ends.keys() == desk.approved.keys()
    assert all(row.state is not State.SIGNED for row in store.rows.values()), "left unsettled"
    held: Counter[int] = Counter()
    for order_id, order in desk.approved.items():
        landed, end = world.of_order(order_id), desk.ends[order_id]
        assert len(landed) <= 1, f"order {order_id} landed twice"
        fills = landed[0].fills if landed else ()
        lots = round(sum(fill.quantity for fill in fills) / LOT)
        held[int(order["book"])] += lots
        assert round(end["fill_quantity"] / LOT) == lots
        paid = round(end["fill_quantity"] * end["fill_price"] * 1e6)
        assert paid == sum(fill.paid_micros for fill in fills)
        assert round(end["fill_fee"] * 1e6) == sum(fill.fee_micros for fill in fills)
        if landed:
            assert end["code"] == (landed[0].error or 0)
        else:
            check_unlanded(world, store, order_id, int(end["code"]))
    assert +held == +desk.held_lots or held == desk.held_lots


def check_unlanded(world: World, store: MemoryAttempts, order_id: int, code: int) -> None:
    """An order that never landed has a reason, and no attempt of it could land any more."""
    assert code in (*(set(Ending) - {Ending.NONE}), TOO_SMALL, NO_COLLATERAL)
    for attempt in store.of(order_id):
        assert attempt.state is State.EXPIRED
        assert world.heights[-1] > attempt.signed.last_valid_height


def test_without_faults_every_intent_lands_once_and_is_told() -> None:
    world, desk, chain, _ = played(1, ttl_ms=LONG_MS)
    assert len(world.landed) == len(chain.signings) == len(desk.approved)
    assert {int(end["code"]) for end in desk.ends.values()} == {0}
    assert all(end["fill_quantity"] for end in desk.ends.values())


@pytest.mark.slow
@pytest.mark.parametrize("ttl_ms", [SHORT_MS, LONG_MS])
def test_with_every_fault_and_crashes_each_intent_is_settled_as_it_was(ttl_ms: int) -> None:
    codes: Counter[int] = Counter()
    states: Counter[State] = Counter()
    numbers = set()
    for seed in range(math.ceil(INTENTS / INTENTS_A_SEED / 2)):
        _, desk, chain, store = played(
            1_000_000 * (ttl_ms == LONG_MS) + seed,
            faults=Faults(),
            boundaries_per_crash=100,
            ttl_ms=ttl_ms,
            halts=0.02,
        )
        codes.update(int(end["code"]) for end in desk.ends.values())
        states.update(row.state for row in store.rows.values())
        numbers |= {number for _, number in chain.signings}
    # every way an order can end was met, or the faults prove nothing
    assert {0, NO_COLLATERAL, Ending.EXPIRED} <= codes.keys()
    assert {State.LANDED, State.FAILED, State.EXPIRED} <= states.keys()
    assert max(numbers) > 1 or ttl_ms == SHORT_MS, "no order was signed anew"


FEW = 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "step"), [(NO_FAULTS, 1), (replace(Faults(), fork=0.1), 5)], ids=["calm", "faulty"]
)
def test_a_crash_at_any_boundary_doubles_and_loses_nothing(faults: Faults, step: int) -> None:
    whole = played(7, intents=FEW, faults=faults)[0].boundaries
    for crash_at in range(1, whole, step):
        played(7, intents=FEW, faults=faults, crash_at=crash_at)
    assert whole > 100
