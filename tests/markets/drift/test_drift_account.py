"""The account: who may trade it, what it holds to the unit, and a key that is never shown."""

import copy
import json
import pickle
from decimal import Decimal
from typing import Any

import base58
import pytest
from drift_venue import key_of, rigged
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair
from standin_drift import margin as program_margin
from standin_wire import Wire

from core.errors import ConfigError
from markets.drift.account import AccountError, check_access, read_holdings
from markets.drift.keys import Key
from markets.drift.market import read_perp
from markets.drift.users import Position, funding_owed

pytestmark = pytest.mark.anyio

SOL = 10**9


def stranger() -> str:
    return str(Keypair().pubkey())


async def refused(wire: Wire, key: str, authority: str, sub_account: int = 0) -> str:
    async with rigged(wire) as rig:
        with pytest.raises(AccountError) as told:
            await check_access(rig.reader, key, authority, sub_account)
    return str(told.value)


async def test_authority_and_delegate_may_trade_and_nobody_else(wire: Wire) -> None:
    authority, delegate = str(wire.trader.key.pubkey()), stranger()
    told = await refused(wire, delegate, authority)
    assert f"belongs to {authority}, and it has no delegate" in told
    wire.desk.set_user(wire.trader.user, delegate=delegate)
    wire.desk.tick(2)
    async with rigged(wire) as rig:
        assert (await check_access(rig.reader, authority, authority, 0)).authority == authority
        assert (await check_access(rig.reader, delegate, authority, 0)).delegate == delegate
    assert f"its delegate is {delegate}" in await refused(wire, stranger(), authority)


async def test_a_sub_account_that_is_not_there_is_told_with_those_that_are(wire: Wire) -> None:
    authority = str(wire.trader.key.pubkey())
    wire.desk.add_user(authority, sub_account=3)
    told = await refused(wire, authority, authority, 1)
    assert told == f"authority {authority} has no sub-account 1: it has 0, 3"
    assert "is unknown to program" in await refused(wire, authority, stranger())


@pytest.mark.parametrize(
    ("status", "said"), [(1, "is being liquidated"), (2, "is bankrupt"), (4, "is reduce-only")]
)
async def test_an_account_that_is_not_free_is_not_traded(
    wire: Wire, status: int, said: str
) -> None:
    wire.desk.set_user(wire.trader.user, status=status)
    wire.desk.tick(2)
    authority = str(wire.trader.key.pubkey())
    assert said in await refused(wire, authority, authority)


async def test_open_orders_nobody_knows_of_stop_us_before_the_first(wire: Wire) -> None:
    wire.desk.set_book(wire.trader.user, 0, bids=[(100_000_000, SOL)])
    wire.desk.tick(2)
    authority = str(wire.trader.key.pubkey())
    assert "has 1 open orders that are not ours" in await refused(wire, authority, authority)


async def test_a_delegates_key_trades(wire: Wire) -> None:
    delegate = Keypair()
    wire.desk.set_user(wire.trader.user, delegate=str(delegate.pubkey()))
    wire.desk.fund(str(delegate.pubkey()), 10**9)
    wire.desk.set_book(wire.maker["user"], 0, asks=[(150_010_000, SOL)])
    wire.desk.tick(2)
    async with rigged(wire, key=delegate) as rig:
        assert (await rig.ended(0.5, limit=150.1))["fill_quantity"] == 0.5


async def test_what_an_account_holds_is_what_the_program_has_to_the_unit(wire: Wire) -> None:
    wire.desk.set_book(wire.maker["user"], 0, asks=[(150_010_000, 100 * SOL)])
    async with rigged(wire) as rig:
        await rig.ended(12.34, limit=150.1)
        wire.desk.settle_hour(0, 15_000_000)
        wire.desk.set_oracle(0, price=151_234_567)
        wire.desk.tick(40)
        held = await read_holdings(rig.reader, wire.trader.user, rig.clock)
        assert held.positions == {"SOL-PERP": Decimal("12.34")}
        assert held.deposit == 10_000_000_000
        assert held.slot == wire.chain.slot - 1
        # 0.015 quote a unit on 12.34
        assert (held.funding_settled, held.funding_owed) == (0, -185_100)
        user = wire.chain.world.users[wire.trader.user]
        with wire.chain.world.edit() as draft:
            free = program_margin.free_collateral(draft, user, initial=True, orders=True)
        assert held.margin.free == pytest.approx(free + held.funding_owed, abs=2)
        assert held.margin.maintenance < held.margin.initial < held.margin.collateral
        await rig.ended(-0.34, limit=149.0)
        wire.desk.tick(2)
        held = await read_holdings(rig.reader, wire.trader.user, rig.clock)
        assert (held.funding_settled, held.funding_owed) == (-185_100, 0)


@given(st.integers(-(10**15), 10**15), st.integers(-(10**12), 10**12))
def test_funding_is_rounded_towards_nothing_as_the_program_does(base: int, rate: int) -> None:
    position = Position(0, base, 0, 0, 0, 0)
    market: Any = type("Market", (), {"funding_long": rate, "funding_short": rate})
    exact = Decimal(-base) * rate / 10**12
    assert abs(funding_owed(position, market) - exact) < 1
    assert abs(funding_owed(position, market)) <= abs(exact)


async def test_a_market_is_read_as_it_is(wire: Wire) -> None:
    account = wire.chain.account(wire.chain.world.perp_key(1), wire.chain.slot)
    assert account is not None
    market = read_perp(account.data)
    assert (market.name, market.status, market.tier) == ("BTC-PERP", "Active", "A")
    assert (market.index, market.step, market.tick) == (1, 10**7, 100)
    assert market.oracle == wire.chain.world.oracle_key(1)


def test_a_key_is_read_in_both_of_its_forms_and_shown_in_none() -> None:
    pair = Keypair()
    secrets = [json.dumps(list(bytes(pair))), base58.b58encode(bytes(pair)).decode()]
    for secret in secrets:
        key = Key(secret)
        assert key.address == str(pair.pubkey())
        for shown in (repr(key), str(key), f"{key}", f"{vars(type(key))}"):
            assert secret not in shown
            assert secrets[1][:20] not in shown
        for leak in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                leak(key)


@pytest.mark.parametrize(
    "secret",
    ["", "hello", "[1,2,3]", "[300]", '["a"]', "[1.5]", base58.b58encode(bytes(64)).decode(), "["],
)
def test_what_is_no_key_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(ConfigError) as told:
        Key(secret)
    assert str(told.value).startswith("the signing key is neither")
    assert len(secret) < 5 or secret not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__


def test_halves_that_do_not_belong_together_are_refused() -> None:
    one, two = bytes(Keypair()), bytes(Keypair())
    with pytest.raises(ConfigError):
        Key(json.dumps(list(one[:32] + two[32:])))
    assert key_of(Keypair()).address
