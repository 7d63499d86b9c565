"""Cancel-all on the wire: what rests is gone for good, whatever nodes and forks do in between."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from drift_venue import Rig, rigged
from standin_drift.faults import ALWAYS
from standin_wire import Wire, opened

from markets.drift.cancelling import Cancelling
from markets.drift.layout import codes

pytestmark = pytest.mark.anyio

SOL, BTC = 10**9, 10**7
Told = list[tuple[int | None, str]]


def rest(wire: Wire) -> None:
    """Two orders in one market, one in another, where the user holds nothing."""
    user = wire.trader.user
    wire.desk.set_book(user, 0, bids=[(100_000_000, SOL)], asks=[(200_000_000, SOL)])
    wire.desk.set_book(user, 1, bids=[(40_000_000_000, BTC)])


def resting(wire: Wire) -> int:
    return len(wire.desk.user(wire.trader.user)["orders"])


def signatures(wire: Wire) -> set[str]:
    return {sent["signature"] for sent in wire.desk.books()["sent"]}


async def cleared(rig: Rig, at_turn: dict[int, Callable[[], Any]] | None = None) -> Told:
    """Clear the account; something may happen at a turn. Answers what was told."""
    told: Told = []
    turns = 0

    async def sleep(seconds: float) -> None:
        nonlocal turns
        turns += 1
        (at_turn or {}).get(turns, lambda: None)()
        await rig.sleep(seconds)

    def tell(found: int | None, why: str) -> None:
        told.append((found, why))

    with anyio.fail_after(60):
        await Cancelling(rig.chain, rig.reader, tell, pause_s=2.0, sleep=sleep).clear()
    return told


async def test_all_that_rests_in_any_market_goes_by_one_transaction(wire: Wire) -> None:
    rest(wire)
    wire.desk.tick(40)
    async with rigged(wire) as rig:
        told = await cleared(rig)
    assert resting(wire) == 0
    assert told == [(3, "")]
    (entry,) = wire.desk.books()["landed"].values()
    assert entry["err"] is None
    assert len(signatures(wire)) == 1


async def test_the_program_wants_every_market_named_in_which_an_order_rests(wire: Wire) -> None:
    rest(wire)
    wire.desk.tick(2)
    answer = await wire.raw(wire.trader.cancel_all())
    assert f"{codes_of('PerpMarketNotFound'):#x}" in answer["error"]["message"]


async def test_where_nothing_rests_nothing_is_sent(wire: Wire) -> None:
    async with rigged(wire) as rig:
        await cleared(rig)
    assert wire.desk.books()["sent"] == []


async def test_an_order_too_young_to_be_final_is_not_overlooked(wire: Wire) -> None:
    rest(wire)
    wire.desk.tick(2)
    async with rigged(wire) as rig:
        since = wire.chain.slot
        await cleared(rig)
    assert resting(wire) == 0
    # it returned only when what it did was final
    (entry,) = wire.desk.books()["landed"].values()
    assert wire.chain.slot - 32 >= entry["slot"] > since


async def test_a_fork_that_brings_orders_back_is_answered_by_the_same_bytes(wire: Wire) -> None:
    rest(wire)
    wire.desk.tick(40)
    wire.desk.faults(0, fork_transaction=1, fork_slots=10)
    async with rigged(wire) as rig:
        await cleared(rig)
    assert resting(wire) == 0
    books = wire.desk.books()
    assert books["vanished"].keys() == books["landed"].keys() == signatures(wire)


async def test_another_is_signed_only_when_the_first_can_land_no_more(wire: Wire) -> None:
    rest(wire)
    wire.desk.tick(40)
    wire.desk.faults(0, drop_transaction=ALWAYS)
    heal = {40: lambda: wire.desk.faults(0, drop_transaction=0)}
    start = wire.chain.slot
    async with rigged(wire) as rig:
        await cleared(rig, heal)
    assert resting(wire) == 0
    first, *others = {sent["signature"]: sent["slot"] for sent in wire.desk.books()["sent"]}.items()
    assert first[1] > start + 150
    assert len(others) == 1
    assert wire.desk.books()["landed"].keys() == {others[0][0]}


async def test_what_is_in_the_way_is_told_and_waited_for(wire: Wire) -> None:
    rest(wire)
    wire.desk.tick(40)
    wallet = str(wire.trader.key.pubkey())
    wire.desk.fund(wallet, -(10**9))
    wire.desk.tick()
    acts = {
        5: lambda: wire.desk.fund(wallet, 10**9),
        10: lambda: wire.desk.faults(0, http_500=ALWAYS),
        15: lambda: wire.desk.faults(0, http_500=0),
    }
    async with rigged(wire) as rig:
        told = await cleared(rig, acts)
    assert resting(wire) == 0
    refused, *rest_of_it = told
    assert refused[0] == 3
    assert "refused with the venue's code" in refused[1]
    assert any(found is None and "500" in why for found, why in rest_of_it)
    assert wire.desk.books()["landed"]


async def test_on_a_bad_day_with_two_nodes_all_is_gone_in_the_end() -> None:
    async with opened(2) as wire:
        rest(wire)
        wire.desk.tick(40)
        line = dict.fromkeys(("http_429", "http_500", "http_refused", "http_lost_answer"), 0.1)
        lost = {"drop_transaction": 0.5, "delay_transaction": 0.3, "fork_transaction": 0.3}
        for node in range(2):
            wire.desk.faults(node, fail_transaction=0.2, fail_code=codes_of("InvalidOracle"))
            wire.desk.faults(node, **line, **lost)
        wire.desk.faults(1, lag_slots=5)
        async with rigged(wire) as rig:
            await cleared(rig)
            assert resting(wire) == 0
            wire.desk.tick(200)
        assert resting(wire) == 0


def codes_of(name: str) -> int:
    return next(code for code, known in codes().items() if known == name)
