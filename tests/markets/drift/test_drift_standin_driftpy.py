"""Driven by the real DriftClient: it trades, sees the truth, and fails as driftpy is known to.

The defects shown here are driftpy's own; they are why the adapter keeps its own sender and feeds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from solders.pubkey import Pubkey
from standin_drift.margin import free_collateral
from standin_drift.world import Draft
from standin_orders import SOL, params
from standin_wire import Wire

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("capsys"),  # driftpy prints
]


@contextlib.asynccontextmanager
async def subscribed(wire: Wire, mode: Any) -> AsyncIterator[Any]:
    """A DriftClient of the trader, on a chain that runs."""
    from driftpy.account_subscription_config import AccountSubscriptionConfig
    from driftpy.accounts.bulk_account_loader import BulkAccountLoader
    from driftpy.drift_client import DriftClient
    from driftpy.types import OracleInfo, OracleSource
    from solana.rpc.commitment import Confirmed

    oracle = Pubkey.from_string(wire.chain.world.oracle_key(6))
    config: dict[str, Any] = {"commitment": Confirmed}
    if mode == "polling":
        config = {"bulk_account_loader": BulkAccountLoader(wire.rpc, frequency=0.05)}
    client = DriftClient(
        wire.rpc,
        wire.trader.key,
        perp_market_indexes=[0],
        spot_market_indexes=[0],
        oracle_infos=[OracleInfo(oracle, OracleSource.PythLazer())],
        account_subscription=AccountSubscriptionConfig(mode, **config),
        tx_sender_blockhash_commitment=Confirmed,
    )
    wire.desk.clock(slots_per_s=50)
    async with asyncio.timeout(30):
        await client.subscribe()
        yield client
        if mode != "cached":
            left = client.get_user().account_subscriber.unsubscribe()
            await (left or asyncio.sleep(0))
        await client.unsubscribe()


async def until(
    condition: Callable[[], Any], refresh: Callable[[], Awaitable[None]] | None = None
) -> Any:
    async with asyncio.timeout(20):
        while not (value := condition()):
            if refresh is not None:
                await refresh()
            await asyncio.sleep(0.01)
    return value


def price(client: Any) -> int:
    return client.get_oracle_price_data_for_perp_market(0).price


@pytest.mark.parametrize("mode", ["cached", "polling", "websocket"])
async def test_it_trades_in_every_mode_and_sees_what_the_books_say(wire: Wire, mode: str) -> None:
    from driftpy.types import MakerInfo

    wire.desk.set_book(wire.maker["user"], 0, asks=[(150_040_000, SOL // 2)])
    async with subscribed(wire, mode) as client:
        assert client.get_user().get_total_collateral() == 10_000_000_000
        user, stats = (Pubkey.from_string(wire.maker[name]) for name in ("user", "stats"))
        account = await client.program.account["User"].fetch(user)
        await client.place_and_take_perp_order(params(), [MakerInfo(user, stats, account, None)])

        def position() -> Any:
            held = client.get_user().get_perp_position(0)
            return held if held and held.base_asset_amount else None

        async def refresh() -> None:
            if mode == "cached":
                await client.account_subscriber.update_cache()
                await client.get_user().account_subscriber.update_cache()

        seen = await until(position, refresh)
        draft = Draft(wire.chain.world, wire.chain.world.state)
        mine = wire.chain.world.users[wire.trader.user]
        free = free_collateral(draft, mine, initial=True, orders=True)
        assert client.get_user().get_free_collateral() == free
        wire.desk.set_oracle(0, price=160_000_000)
        await until(lambda: price(client) == 160_000_000, refresh)
    truth = wire.position()
    assert (seen.base_asset_amount, seen.quote_asset_amount) == (truth["base"], truth["quote"])
    # half at the maker's 150.04, half at the AMM's 150.075, each fee of 3.5 bp rounded up
    assert truth["base"] == SOL
    assert truth["entry"] == -(75_020_000 + 75_037_500)
    assert truth["quote"] == truth["entry"] - 26_257 - 26_264


async def test_it_finds_all_markets_by_their_accounts_and_reads_the_events(wire: Wire) -> None:
    from anchorpy import Program, Provider, Wallet
    from driftpy.accounts.oracle import DRIFT_IDL
    from driftpy.events.parse import parse_logs
    from solana.rpc.commitment import Confirmed
    from solana.rpc.types import MemcmpOpts

    program = Pubkey.from_string(wire.chain.world.program)
    for filter_, count in (("2pTyMkwXuti", 3), ("HqqNdyfVbzv", 1)):
        found = await wire.rpc.get_program_accounts(
            program, encoding="base64", filters=[MemcmpOpts(0, filter_)]
        )
        assert len(found.value) == count
    signature = await wire.send(wire.trader.take(params()))
    wire.desk.tick(2)
    told = await wire.rpc.get_transaction(
        signature, commitment=Confirmed, max_supported_transaction_version=0
    )
    coder = Program(DRIFT_IDL, program, Provider(wire.rpc, Wallet(wire.trader.key)))
    events = parse_logs(coder, told.value.transaction.meta.log_messages)
    assert [event.name for event in events] == [
        "OrderActionRecord",
        "OrderRecord",
        "OrderActionRecord",
    ]
    fill = wire.desk.books()["landed"][str(signature)]["fills"][0]
    assert events[2].data.quote_asset_amount_filled == fill["quoteAssetAmountFilled"] == 150_075_000
    assert events[2].data.taker_fee == fill["takerFee"]
    assert str(events[2].data.taker) == wire.trader.user


async def test_it_takes_a_transaction_that_failed_for_one_that_did_not(wire: Wire) -> None:
    async with subscribed(wire, "cached") as client:
        wire.desk.faults(fail_transaction=1, fail_code=6023)
        signature = await client.place_and_take_perp_order(params())
    assert wire.desk.books()["landed"][str(signature)]["code"] == 6023


@pytest.mark.parametrize("fault", ["close_clean", "close_abrupt"])
async def test_its_oracle_feed_outlives_a_drop_and_not_a_clean_close(
    wire: Wire, fault: str
) -> None:
    async with subscribed(wire, "websocket") as client:
        wire.desk.set_oracle(0, price=151_000_000)
        await until(lambda: price(client) == 151_000_000)
        pubsub = wire.standin.pubsubs[0]
        before = pubsub.connections
        wire.desk.faults(**{fault: 1})  # only oracles change, so it strikes their socket
        await until(lambda: pubsub.connections > before)
        wire.desk.set_oracle(0, price=152_000_000)
        if fault == "close_abrupt":
            await until(lambda: price(client) == 152_000_000)
        else:
            await asyncio.sleep(0.3)
            assert price(client) == 151_000_000


async def test_its_polling_ends_for_good_with_one_bad_answer(wire: Wire) -> None:
    async with subscribed(wire, "polling") as client:
        loader = client.account_subscriber.bulk_account_loader
        wire.desk.faults(http_429=1)
        await until(loader.task.done)
        assert isinstance(loader.task.exception(), ValueError)
