"""Orders on the wire: signed by the venue, sent by the order life, told by the program's events.

Every rule of the program that can refuse an order does so here, and is told by its name.
"""

from collections.abc import Callable
from typing import Any

import pytest
from drift_venue import rigged
from standin_drift.accounts import LOOKUP_TABLES
from standin_wire import Wire, opened

from core.sending import State
from markets.drift.chain import Terms
from markets.drift.layout import codes
from markets.drift.makers import ListedMakers

pytestmark = pytest.mark.anyio

SOL = 10**9
ASKS = [(150_010_000, SOL), (150_030_000, 2 * SOL)]
BIDS = [(149_990_000, SOL), (149_970_000, 2 * SOL)]


def book(wire: Wire) -> None:
    wire.desk.set_book(wire.maker["user"], 0, bids=BIDS, asks=ASKS)


def landed(wire: Wire) -> dict[str, Any]:
    """The only transaction that ever landed."""
    (entry,) = wire.desk.books()["landed"].values()
    return dict(entry)


async def test_an_order_is_filled_and_told_to_the_unit(wire: Wire) -> None:
    book(wire)
    async with rigged(wire, tables=LOOKUP_TABLES) as rig:
        told = await rig.ended(1.5, limit=150.2)
    fills = landed(wire)["fills"]
    quote = sum(fill["quoteAssetAmountFilled"] for fill in fills)
    fee = sum(fill["takerFee"] for fill in fills)
    assert len(fills) == 2
    assert (told["fill_quantity"], told["code"]) == (1.5, 0)
    assert round(told["fill_quantity"] * told["fill_price"] * 1e6) == quote
    assert round(told["fill_fee"] * 1e6) == fee > 0
    assert wire.position()["base"] == 15 * SOL // 10
    assert wire.position()["quote"] == -quote - fee


async def test_it_goes_as_an_ioc_limit_with_a_time_to_live(wire: Wire) -> None:
    book(wire)
    async with rigged(wire) as rig:
        before = rig.clock()
        await rig.ended(1.019, limit=150.2)
        (order,) = landed(wire)["orders"]
        assert order["ioc"]
        assert order["user_order_id"] == 0
        assert before // 1_000 <= order["max_ts"] <= (before + rig.ttl_ms) // 1_000
    # down to the step of 0.01, and to the tick of 0.0001 on our side
    assert (order["base"], order["price"]) == (101 * SOL // 100, 150_200_000)


@pytest.mark.parametrize(
    ("quantity", "limit", "sent"),
    [
        (0.5, 1_000.0, 153_000_000),
        (-0.5, 1.0, 147_000_000),
        (0.5, 150.12345678, 150_123_400),
        (-0.5, 149.12345678, 149_123_500),
    ],
)
async def test_a_price_stays_within_its_limit_and_the_oracles_collar(
    wire: Wire, quantity: float, limit: float, sent: int
) -> None:
    book(wire)
    async with rigged(wire) as rig:
        await rig.ended(quantity, limit=limit)
    assert landed(wire)["orders"][0]["price"] == sent


async def test_the_collar_is_drawn_around_the_oracle_of_now(wire: Wire) -> None:
    async with rigged(wire) as rig:
        for price in (150_000_000, 151_000_000, 149_500_000):
            wire.desk.set_oracle(0, price=price)
            wire.desk.tick(2)
            await rig.ended(0.1, limit=1e6)
    prices = [entry["orders"][0]["price"] for entry in wire.desk.books()["landed"].values()]
    assert prices == [153_000_000, 154_020_000, 152_490_000]


async def test_what_meets_nothing_lands_without_a_fill(wire: Wire) -> None:
    wire.desk.set_market(0, amm_base=0)
    async with rigged(wire) as rig:
        told = await rig.ended(1.0, limit=150.0)
    assert landed(wire)["err"] is None
    assert (told["fill_quantity"], told["code"], told["final"]) == (0.0, 0, 1.0)


async def test_an_exit_shrinks_a_position_and_never_turns_it(wire: Wire) -> None:
    book(wire)
    async with rigged(wire) as rig:
        await rig.ended(0.5)
        exit_ = await rig.ended(-2.0, reduce_only=True)
        again = await rig.ended(-2.0, reduce_only=True)
    assert exit_["fill_quantity"] == -0.5
    assert (again["fill_quantity"], again["code"]) == (0.0, 0)
    assert wire.position()["base"] == 0


async def test_no_two_attempts_have_one_signature(wire: Wire) -> None:
    async with rigged(wire) as rig:
        same = {"born_ms": rig.clock(), "expires_ms": rig.clock() + 9_000, "limit": 150.0}
        orders = [rig.order(0.1, **same) for _ in range(20)]
        signed = [await rig.chain.sign(order, n) for order in orders for n in (1, 2, 3)]
    assert len({one.signature for one in signed}) == len(signed)


async def test_makers_that_do_not_fit_or_are_none_are_left_out(wire: Wire) -> None:
    users = [wire.desk.add_maker(f"m{k}")["user"] for k in range(4)]
    wire.desk.set_book(users[0], 0, asks=ASKS)
    async with rigged(wire, makers=ListedMakers([users[0], wire.trader.stats, *users[1:]])) as rig:
        signed = await rig.chain.sign(rig.order(0.1), 1)
        told = await rig.ended(0.1, limit=150.02)
    assert len(signed.payload) <= 1_232
    assert told["fill_quantity"] == 0.1


Arrange = Callable[[Wire], Any]
REFUSALS: dict[str, tuple[Arrange, dict[str, Any]]] = {
    "InsufficientCollateral": (book, {"quantity": 10_000.0}),
    "OrderAmountTooSmall": (book, {"quantity": 0.009}),
    "InvalidOrderMinOrderSize": (
        lambda wire: wire.desk.set_market(0, min_order_size=SOL),
        {"quantity": 0.5},
    ),
    "PriceBandsBreached": (
        lambda wire: (
            wire.desk.set_market(0, amm_base=0),
            wire.desk.set_book(wire.maker["user"], 0, asks=[(160_000_000, SOL)]),
        ),
        {"terms": Terms(collar=0.5)},
    ),
    "ExchangePaused": (lambda wire: wire.desk.set_state(exchange_status=8), {}),
    "MarketPlaceOrderPaused": (lambda wire: wire.desk.set_market(0, status="Settlement"), {}),
    "MarketFillOrderPaused": (lambda wire: wire.desk.set_market(0, status="FillPaused"), {}),
    "MaxOpenInterest": (lambda wire: wire.desk.set_market(0, max_open_interest=SOL // 2), {}),
    "UserReduceOnly": (lambda wire: wire.desk.set_user(wire.trader.user, status=4), {}),
    "UserIsBeingLiquidated": (lambda wire: wire.desk.set_user(wire.trader.user, status=1), {}),
    "PlaceAndTakeOrderSuccessConditionFailed": (
        lambda wire: (
            wire.desk.set_market(0, amm_base=0),
            wire.desk.set_book(wire.maker["user"], 0),
        ),
        {"terms": Terms(only_if_filled=True)},
    ),
    "ImpossibleFill": (
        lambda wire: wire.desk.set_state(min_perp_auction_duration=10),
        {"makers": ListedMakers()},
    ),
    "OracleNonPositive": (lambda wire: wire.desk.set_oracle(0, price=0), {}),
    "OracleTooVolatile": (lambda wire: wire.desk.set_oracle(0, twap=20_000_000), {}),
    "OracleTooUncertain": (lambda wire: wire.desk.set_oracle(0, conf=4_000_000), {}),
    "OracleStaleForMargin": (lambda wire: stale(wire, 130), {}),
    "OracleStaleForAMM": (lambda wire: stale(wire, 20), {}),
    "OracleInsufficientDataPoints": (
        lambda wire: (
            wire.desk.set_market(0, strict_amm_oracle=True),
            wire.desk.set_oracle(0, enough_data=False),
        ),
        {"makers": ListedMakers()},
    ),
    "AccountNotFound": (
        lambda wire: wire.desk.fund(str(wire.trader.key.pubkey()), -(10**9)),
        {},
    ),
    "ComputationalBudgetExceeded": (book, {"terms": Terms(units=30_000)}),
}


def stale(wire: Wire, slots: int) -> None:
    wire.desk.set_oracle(0, follows_slot=False)
    wire.desk.tick(slots)


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_rule_of_the_program_refuses_by_its_name(wire: Wire, name: str) -> None:
    book(wire)
    arrange, more = REFUSALS[name]
    more = dict(more)
    rig_more = {key: more.pop(key) for key in ("terms", "makers") if key in more}
    arrange(wire)
    wire.desk.tick(2)
    async with rigged(wire, **rig_more) as rig:
        told = await rig.ended(more.pop("quantity", 1.0), limit=1e6, **more)
    assert codes()[int(told["code"])] == name
    assert (told["fill_quantity"], told["final"]) == (0.0, 1.0)
    assert not wire.position().get("base")


@pytest.mark.parametrize("name", ["StaleForAMM", "TooVolatile"])
async def test_a_bad_oracle_never_keeps_us_from_getting_out(wire: Wire, name: str) -> None:
    """The same oracles that refuse an opening let an exit be sent; what the program then says of
    it is the program's."""
    book(wire)
    async with rigged(wire) as rig:
        assert (await rig.ended(0.5))["fill_quantity"] == 0.5
        if name == "StaleForAMM":
            stale(wire, 20)
        else:
            wire.desk.set_oracle(0, twap=20_000_000)
            wire.desk.tick(2)
        told = await rig.ended(-0.5, limit=149.0, reduce_only=True)
    if name == "StaleForAMM":
        assert told["fill_quantity"] == -0.5
    else:
        assert codes()[int(told["code"])] == "OracleTooVolatile"
        assert len(wire.desk.books()["sent"]) > 1


async def test_what_lands_too_late_is_skipped_by_the_program(wire: Wire) -> None:
    book(wire)
    wire.desk.faults(delay_transaction=1, delay_slots=70)
    async with rigged(wire) as rig:
        told = await rig.ended(1.0)
        assert codes()[int(told["code"])] == "OrderDoesNotExist"
        (attempt,) = rig.attempts.rows.values()
    assert attempt.state is State.FAILED
    assert wire.position() == {}


async def test_the_price_of_compute_is_what_others_pay_within_bounds(wire: Wire) -> None:
    fees = []
    for low, high in ((0, 200_000), (0, 3_000), (50_000, 60_000)):
        async with rigged(wire, terms=Terms(units=400_000, fee_min=low, fee_max=high)) as rig:
            await rig.ended(0.1)
        fees.append(list(wire.desk.books()["landed"].values())[-1]["fee"])
    # three quarters of the stand-in's last slots paid up to 7,000
    assert [(fee - 5_000) * 10**6 // 400_000 // 100 * 100 for fee in fees] == [7_000, 3_000, 50_000]


async def test_one_node_of_two_may_fail_or_stand_still(driftpy: None) -> None:
    async with opened(nodes=2) as wire:
        book(wire)
        wire.desk.faults(0, http_refused=1e9)
        async with rigged(wire) as rig:
            assert (await rig.ended(0.1))["fill_quantity"] == 0.1
        wire.desk.faults(0, http_refused=0, frozen=True)
        async with rigged(wire) as rig:
            rig.orders = 1
            rig.reader.newest.check(wire.chain.slot, "us")
            wire.desk.tick(40)
            assert (await rig.ended(0.1))["fill_quantity"] == 0.1
