"""The order rules of the stand-in: each error by its code, and what goes through, to the unit."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from standin_drift import Chain, Desk
from standin_orders import SOL, Trader, params, sells
from standin_wire import Wire

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def ioc(**changes: Any) -> Callable[[Wire], VersionedTransaction]:
    return lambda wire: wire.trader.take(params(**changes))


def after(
    arrange: str, order: dict[str, Any] | None = None, **values: Any
) -> Callable[[Wire], VersionedTransaction]:
    """A rule that bites once the desk has arranged something."""

    def build(wire: Wire) -> VersionedTransaction:
        target = {"set_user": [wire.trader.user], "set_state": []}.get(arrange, [0])
        getattr(wire.desk, arrange)(*target, **values)
        return wire.trader.take(params(**(order or {})))

    return build


def kind(name: str) -> Any:
    from driftpy.types import OrderType

    return getattr(OrderType, name)()


def post_only() -> Any:
    from driftpy.types import PostOnlyParams

    return PostOnlyParams.MustPostOnly()


def rest(wire: Wire, **changes: Any) -> None:
    """Let a resting order of the trader's land."""
    order = params(**{"bit_flags": 0, "price": 140_000_000} | changes)
    wire.chain.submit(wire.trader.place(order), wire.standin.nodes[0].strike)
    wire.desk.tick()


def stale(slots: int) -> Callable[[Wire], VersionedTransaction]:
    def build(wire: Wire) -> VersionedTransaction:
        wire.desk.set_market(0, strict_amm_oracle=True)
        wire.desk.set_oracle(0, follows_slot=False)
        wire.desk.tick(slots)
        return wire.trader.take(params())

    return build


def short_of_data(wire: Wire) -> VersionedTransaction:
    wire.desk.set_market(0, strict_amm_oracle=True)
    wire.desk.set_oracle(0, enough_data=False)
    return wire.trader.take(params())


def id_in_use(wire: Wire) -> VersionedTransaction:
    rest(wire, user_order_id=9)
    return wire.trader.take(params(user_order_id=9))


def too_many(wire: Wire) -> VersionedTransaction:
    wire.desk.set_book(wire.trader.user, 1, bids=[(50_000_000_000, 10**7)] * 32)
    return wire.trader.take(params(), markets=[1])


def half_full(wire: Wire) -> VersionedTransaction:
    wire.desk.set_market(0, amm_base=SOL // 2)
    return wire.trader.take(params(), condition=100 << 8 | 2)


def market_not_passed(wire: Wire) -> VersionedTransaction:
    rest(wire, market_index=1)
    return wire.trader.take(params())


def maker_without_stats(wire: Wire) -> VersionedTransaction:
    lame = {"user": wire.maker["user"], "stats": wire.maker["user"]}
    return wire.trader.take(params(), [lame])


def foreign_user(wire: Wire) -> VersionedTransaction:
    wire.trader.user = wire.maker["user"]
    return wire.trader.take(params())


def cut_short(wire: Wire) -> VersionedTransaction:
    program = Pubkey.from_string(wire.chain.world.program)
    whole = wire.trader.instruction("cancel_order", {"order_id": 1}, wire.trader.named())
    return wire.trader.signed(Instruction(program, bytes(whole.data)[:10], whole.accounts))


def unknown_instruction(wire: Wire) -> VersionedTransaction:
    program = Pubkey.from_string(wire.chain.world.program)
    return wire.trader.signed(Instruction(program, bytes(8), wire.trader.named()))


def no_such_user(wire: Wire) -> VersionedTransaction:
    wire.trader.user = str(Keypair().pubkey())
    return wire.trader.take(params())


RULES: list[tuple[int, Callable[[Wire], VersionedTransaction]]] = [
    (6050, lambda wire: wire.trader.place(params())),
    (6050, lambda wire: wire.trader.take(params(order_type=kind("Market")))),
    (6050, lambda wire: wire.trader.take(params(order_type=kind("Oracle")))),
    (6051, lambda wire: wire.trader.take(params(post_only=post_only()))),
    (6057, lambda wire: wire.trader.place(params(post_only=post_only(), bit_flags=0))),
    (6191, ioc(price=0)),
    (6289, lambda wire: wire.trader.take(params(), condition=1)),
    (6289, lambda wire: wire.trader.take(params(price=150_000_000), condition=100 << 8 | 1)),
    (6289, half_full),
    (6061, ioc(max_ts=1)),
    (6071, id_in_use),
    (6060, too_many),
    (6059, ioc(base_asset_amount=9_999_999)),
    (6056, after("set_market", {"base_asset_amount": 10**7}, min_order_size=10**8)),
    (6003, ioc(base_asset_amount=2_000 * SOL)),
    (6252, after("set_state", min_perp_auction_duration=10)),
    (6023, after("set_market", {"price": 200_000_000}, amm_spread=60_000)),
    (6024, after("set_state", exchange_status=0xFF)),
    (6024, after("set_state", exchange_status=8)),
    (6147, after("set_market", status="Settlement")),
    (6148, after("set_market", status="FillPaused")),
    (6148, after("set_market", paused_operations=4)),
    (6154, after("set_market", max_open_interest=SOL // 2)),
    (6046, after("set_market", status="ReduceOnly")),
    (6254, after("set_user", status=4)),
    (6117, after("set_user", status=1)),
    (6125, after("set_user", status=2)),
    (6261, after("set_oracle", price=0)),
    (6262, after("set_oracle", price=800_000_000, twap=150_000_000)),
    (6263, after("set_oracle", price=150_000_000, conf=4_000_000)),
    (6264, stale(121)),
    (6265, short_of_data),
    (6266, stale(11)),
    (6078, market_not_passed),
    (6236, maker_without_stats),
    (101, unknown_instruction),
    (102, cut_short),
    (2003, foreign_user),
    (3012, no_such_user),
]


@pytest.mark.parametrize(("code", "build"), RULES)
async def test_an_order_against_the_rules_fails_with_its_code(
    wire: Wire, code: int, build: Callable[[Wire], VersionedTransaction]
) -> None:
    transaction = build(wire)
    told = (await wire.raw(transaction))["error"]
    assert told["code"] == -32002
    assert told["data"]["err"] == {"InstructionError": [2, {"Custom": code}]}
    assert f"{code:#x}" in told["message"]
    assert any(f"Error Number: {code}" in line for line in told["data"]["logs"])
    # and the same where preflight was skipped: it lands, fails, pays its fee and changes nothing
    before = wire.desk.user(wire.maker["user"])
    wire.chain.submit(transaction, wire.standin.nodes[0].strike)
    wire.desk.tick()
    entry = wire.desk.books()["landed"][str(transaction.signatures[0])]
    assert (entry["code"], entry["fee"]) == (code, 5_000)
    assert not entry["orders"]
    assert wire.desk.user(wire.maker["user"]) == before


async def test_what_the_rules_allow_goes_through(wire: Wire) -> None:
    far = await wire.landed(wire.trader.take(params(price=150_000_000)))
    assert (far["err"], far["fills"]) == (None, [])
    nothing = await wire.landed(wire.trader.take(sells(reduce_only=True)))
    assert (nothing["err"], nothing["fills"]) == (None, [])
    rounded = await wire.landed(wire.trader.take(params(base_asset_amount=SOL + 9_999_999)))
    assert rounded["orders"][0]["filled"] == SOL
    clamped = await wire.landed(
        wire.trader.take(sells(base_asset_amount=5 * SOL, reduce_only=True))
    )
    assert clamped["orders"][0]["filled"] == SOL
    assert wire.position()["base"] == 0
    await wire.landed(wire.trader.take(params()))
    await wire.landed(wire.trader.take(sells(base_asset_amount=3 * SOL), condition=100 << 8 | 2))
    assert wire.position()["base"] == -2 * SOL
    wire.desk.set_oracle(0, price=150_000_000, twap5=80_000_000)
    apart = await wire.landed(wire.trader.take(params()))
    assert (apart["err"], apart["fills"]) == (None, [])
    assert wire.desk.user(wire.trader.user)["orders"] == {}


async def test_a_stale_oracle_sends_the_amm_away_and_makers_stay(wire: Wire) -> None:
    wire.desk.set_book(wire.maker["user"], 0, asks=[(150_500_000, SOL)])
    wire.desk.set_oracle(0, follows_slot=False)
    wire.desk.tick(20)
    alone = await wire.landed(wire.trader.take(params()))
    assert (alone["err"], alone["fills"]) == (None, [])
    met = await wire.landed(wire.trader.take(params(), [wire.maker]))
    assert [fill["maker"] for fill in met["fills"]] == [wire.maker["user"]]


async def test_two_takes_in_one_transaction_share_the_book_and_fail_together(wire: Wire) -> None:
    wire.desk.set_market(0, amm_base=0)
    wire.desk.set_book(wire.maker["user"], 0, asks=[(150_500_000, SOL * 3 // 2)])
    takes = [wire.trader.take_instruction(params(price=150_900_000), [wire.maker])] * 2
    entry = await wire.landed(wire.trader.signed(*takes))
    assert [order["filled"] for order in entry["orders"]] == [SOL, SOL // 2]
    wire.desk.set_book(wire.maker["user"], 0, asks=[(150_500_000, SOL)])
    before = wire.desk.user(wire.trader.user)
    whole = wire.trader.take_instruction(params(), [wire.maker], 100 << 8 | 2)
    wire.chain.submit(wire.trader.signed(whole, whole), wire.standin.nodes[0].strike)
    wire.desk.tick()
    assert wire.desk.user(wire.trader.user) == before


async def test_a_late_order_takes_with_the_order_that_rests(wire: Wire) -> None:
    """Why an IOC sub-account keeps no resting orders: the take looks up the last order's id."""
    wire.desk.set_market(0, amm_base=0)
    rest(wire, price=151_000_000)
    wire.desk.set_market(0, amm_base=5 * SOL)
    entry = await wire.landed(wire.trader.take(params(max_ts=1, base_asset_amount=3 * SOL)))
    assert entry["orders"][0]["filled"] == SOL


async def test_resting_orders_count_and_all_are_cancelled(wire: Wire) -> None:
    from driftpy.decode.user import decode_user

    rest(wire)
    rest(wire, price=139_000_000)
    account = await wire.rpc.get_account_info(Pubkey.from_string(wire.trader.user), "processed")
    seen = decode_user(account.value.data)
    assert (seen.open_orders, seen.perp_positions[0].open_bids) == (2, 2 * SOL)
    entry = await wire.landed(wire.trader.cancel_all())
    assert entry["err"] is None
    assert wire.desk.user(wire.trader.user)["orders"] == {}


async def test_a_delegate_signs_and_settled_funding_is_exact(wire: Wire) -> None:
    await wire.landed(wire.trader.take(params(base_asset_amount=3 * SOL)))
    before = wire.position()["quote"]
    wire.desk.settle_hour(0, 12_345_678_901)
    delegate = Keypair()
    wire.desk.fund(str(delegate.pubkey()), 10**9)
    wire.desk.set_user(wire.trader.user, delegate=str(delegate.pubkey()))
    wire.trader.key = delegate
    entry = await wire.landed(wire.trader.take(params(price=150_000_000)))
    (paid,) = entry["funding"]
    assert paid["fundingPayment"] == -37_037_036
    assert wire.position()["quote"] == before - 37_037_036


async def test_profit_settles_into_the_deposit(wire: Wire) -> None:
    await wire.landed(wire.trader.take(params()))
    wire.desk.set_oracle(0, price=160_000_000)
    profit = wire.position()["quote"] + 160_000_000
    entry = await wire.landed(wire.trader.settle_pnl())
    assert entry["err"] is None
    assert wire.position()["quote"] == -160_000_000
    assert wire.desk.user(wire.trader.user)["collateral"] == 10_000_000_000 + profit
    again = (await wire.raw(wire.trader.settle_pnl(units=300_000)))["error"]
    assert again["data"]["err"] == {"InstructionError": [2, {"Custom": 6259}]}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([params, sells]),
            st.integers(10**7, 40 * SOL),
            st.integers(140_000_000, 160_000_000),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=15, deadline=None)
def test_money_and_positions_balance_to_the_unit(
    driftpy: None, takes: list[tuple[Any, int, int, bool]]
) -> None:
    chain = Chain()
    desk = Desk(chain, [])
    trader = Trader(chain, desk, Keypair.from_seed(bytes(32)), collateral=10**12)
    maker = desk.add_maker("maker")
    desk.set_market(0, amm_base=0)
    for side, base, price, reduce_only in takes:
        bids, asks = [(149_999_900, 7 * SOL)], [(150_000_100, 7 * SOL), (150_123_400, 9 * SOL)]
        desk.set_book(maker["user"], 0, bids, asks)
        order = side(base_asset_amount=base, price=price, reduce_only=reduce_only)
        outcome = chain.runtime.execute(
            trader.take(order, [maker]), chain.slot, chain.now_s, keep=True
        )
        assert outcome.err is None
    sides = [desk.user(one) for one in (trader.user, maker["user"])]
    held = [one["positions"].get(0, {"base": 0, "quote": 0, "entry": 0}) for one in sides]
    fees = sides[0]["fees"]["fees_paid"] - sides[1]["fees"]["rebates"]
    assert held[0]["base"] + held[1]["base"] == 0
    assert held[0]["quote"] + held[1]["quote"] == -fees
    market = chain.world.perps[0]
    assert market.base_long == -market.base_short == abs(held[0]["base"])
    if held[0]["base"] == 0:
        assert held[0]["entry"] == 0
