"""The stand-in for Solana and Drift keeps its word: driven by driftpy, solana-py and solders."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from standin_drift import ALWAYS, spawn
from standin_drift.accounts import LOOKUP_TABLES
from standin_orders import SOL, params
from standin_wire import Wire, opened

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


# -- the chain


async def test_a_forged_signature_and_an_unknown_blockhash_are_refused(wire: Wire) -> None:
    honest = wire.trader.take(params())
    forged = VersionedTransaction.populate(honest.message, [Signature(bytes([7] * 64))])
    assert (await wire.raw(forged))["error"]["code"] == -32003
    unknown = wire.trader.take(params(), blockhash=str(Keypair().pubkey()))
    told = (await wire.raw(unknown))["error"]
    assert (told["code"], told["data"]["err"]) == (-32002, "BlockhashNotFound")
    assert [one["answer"] for one in wire.desk.books()["sent"]] != ["accepted"] * 2
    await wire.send(honest)


async def test_a_blockhash_lives_150_blocks(wire: Wire) -> None:
    latest = (await wire.rpc.get_latest_blockhash("processed")).value
    early = wire.trader.take(params(), blockhash=str(latest.blockhash))
    late = wire.trader.take(params(price=150_990_000), blockhash=str(latest.blockhash))
    wire.desk.tick(149)
    assert (await wire.landed(early))["err"] is None
    height = (await wire.rpc.get_block_height("processed")).value
    assert height == latest.last_valid_block_height
    signature = await wire.send(late)
    wire.desk.tick()
    assert wire.desk.books()["expired"] == [str(signature)]
    assert (await wire.raw(late))["error"]["data"]["err"] == "BlockhashNotFound"


async def test_the_same_bytes_land_once(wire: Wire) -> None:
    transaction = wire.trader.take(params())
    for _ in range(3):
        await wire.send(transaction)
    wire.desk.tick()
    told = (await wire.raw(transaction))["error"]
    assert told["data"]["err"] == "AlreadyProcessed"
    wire.desk.tick(5)
    assert wire.position()["base"] == SOL
    assert len(wire.desk.books()["sent"]) == 4


async def test_lookup_tables_are_resolved(wire: Wire) -> None:
    from driftpy.address_lookup_table import get_address_lookup_table

    tables = [
        await get_address_lookup_table(wire.rpc, Pubkey.from_string(one)) for one in LOOKUP_TABLES
    ]
    small = wire.trader.take(params(), [wire.maker], tables=tables)
    assert len(bytes(small)) < len(bytes(wire.trader.take(params(), [wire.maker])))
    assert (await wire.landed(small))["fills"]


async def test_fees_come_from_the_wallet_and_units_have_a_limit(wire: Wire) -> None:
    wallet = wire.trader.key.pubkey()
    entry = await wire.landed(wire.trader.take(params(), price=1_000_000))
    assert entry["fee"] == 5_000 + 400_000
    assert (await wire.rpc.get_balance(wallet, "processed")).value == 10**9 - entry["fee"]
    dear = wire.trader.take(params(), price=10**10)
    assert (await wire.raw(dear))["error"]["data"]["err"] == "InsufficientFundsForFee"
    tight = (await wire.raw(wire.trader.take(params(), units=50_000)))["error"]["data"]
    assert tight["err"] == {"InstructionError": [2, "ComputationalBudgetExceeded"]}
    tried = (
        await wire.rpc.simulate_transaction(wire.trader.take(params()), False, "processed")
    ).value
    assert (tried.err, tried.units_consumed) == (None, 75_300)


async def test_a_status_rises_and_the_transaction_is_told(wire: Wire) -> None:
    from solana.rpc.commitment import Confirmed

    signature = await wire.send(wire.trader.take(params()))
    assert await wire.status(signature) is None
    for ticks, level in ((1, "Processed"), (1, "Confirmed"), (31, "Finalized")):
        wire.desk.tick(ticks)
        assert str((await wire.status(signature)).confirmation_status).endswith(level)
    versionless = await wire.call("getTransaction", str(signature), {"encoding": "json"})
    assert versionless["error"]["code"] == -32015
    for encoding in ("json", "base64"):
        told = await wire.rpc.get_transaction(signature, encoding, Confirmed, 0)
        assert told.value.transaction.meta.err is None
    wire.desk.tick(300)
    assert await wire.status(signature) is None
    assert await wire.status(signature, search=True) is not None
    listed = await wire.rpc.get_signatures_for_address(wire.trader.key.pubkey())
    assert [one.signature for one in listed.value] == [signature]


async def test_the_small_methods_answer(wire: Wire) -> None:
    assert (await wire.call("getHealth"))["result"] == "ok"
    assert (await wire.rpc.get_version()).value.solana_core
    assert (await wire.rpc.get_genesis_hash()).value
    assert len((await wire.call("getRecentPrioritizationFees", []))["result"]) == 150
    slot, height = await wire.rpc.get_slot(), await wire.rpc.get_block_height()
    assert slot.value - height.value == 20_000_000
    assert (await wire.call("getWeather"))["error"]["code"] == -32601
    both = [{"jsonrpc": "2.0", "id": at, "method": "getSlot"} for at in (3, 4)]
    batch = (await wire.http.post("/", json=both, headers={"content-encoding": "gzip"})).json()
    assert [one["id"] for one in batch] == [3, 4]


# -- pubsub


class Ear:
    """One websocket of solana's client; ``hear`` collects notices until there are so many."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.heard = socket, []

    async def subscribe(self, kind: str, *given: Any) -> None:
        await getattr(self.socket, f"{kind}_subscribe")(*given)
        await self.hear(0)

    async def hear(self, count: int) -> list[Any]:
        """With 0: the answer to a subscription."""
        async with asyncio.timeout(10):
            while not count or len(self.heard) < count:
                for one in await self.socket.recv():
                    if isinstance(getattr(one, "result", None), int):
                        return []
                    self.heard.append(one)
        got, self.heard = self.heard, []
        return got


@contextlib.asynccontextmanager
async def listening(wire: Wire, node: int = 0) -> AsyncIterator[Ear]:
    from solana.rpc.websocket_api import connect

    port = int(wire.standin.urls[node].rsplit(":", 1)[1]) + 1
    async with connect(f"ws://127.0.0.1:{port}") as socket:
        yield Ear(socket)


async def test_pubsub_tells_accounts_logs_signatures_programs_and_slots(wire: Wire) -> None:
    from solders.rpc.config import RpcTransactionLogsFilterMentions

    user = Pubkey.from_string(wire.trader.user)
    transaction = wire.trader.take(params())
    async with listening(wire) as ear:
        await ear.subscribe("account", user, "confirmed", "base64")
        await ear.subscribe("logs", RpcTransactionLogsFilterMentions(user), "confirmed")
        await ear.subscribe("signature", transaction.signatures[0], "confirmed")
        await wire.send(transaction)
        wire.desk.tick()
        landed = wire.chain.slot
        wire.desk.tick()
        account, logs, signature = await ear.hear(3)
        assert account.result.context.slot == landed
        assert len(account.result.value.data) == 4_376
        assert logs.result.value.signature == transaction.signatures[0]
        assert any(line.startswith("Program data: ") for line in logs.result.value.logs)
        assert signature.result.value.err is None
        await ear.subscribe("program", Pubkey.from_string(wire.chain.world.program), "processed")
        await ear.subscribe("slot")
        wire.desk.tick()
        *accounts, slot = await ear.hear(5)
        world = wire.chain.world
        oracles = {world.oracle_key(feed) for feed in world.oracles}
        assert {str(one.result.value.pubkey) for one in accounts} == oracles
        assert slot.result.slot == wire.chain.slot


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("lose_notice", [2, 3]),
        ("duplicate_notice", [1, 1, 2, 3]),
        ("reorder_notice", [2, 1, 3]),
        ("", [1, 2, 3]),
    ],
)
async def test_notices_are_lost_repeated_and_reordered(
    wire: Wire, fault: str, told: list[int]
) -> None:
    async with listening(wire) as ear:
        await ear.subscribe("slot")
        first = wire.chain.slot
        if fault:
            wire.desk.faults(**{fault: 1})
        wire.desk.tick(3)
        heard = await ear.hear(len(told))
        assert [one.result.slot - first for one in heard] == told


@pytest.mark.parametrize(("fault", "code"), [("close_clean", 1000), ("close_abrupt", 1006)])
async def test_sockets_close_cleanly_or_drop(wire: Wire, fault: str, code: int) -> None:
    from websockets.exceptions import ConnectionClosed

    async with listening(wire) as ear:
        await ear.subscribe("slot")
        wire.desk.faults(**{fault: 1})
        wire.desk.tick()
        with pytest.raises(ConnectionClosed) as closed:
            await ear.hear(1)
        assert (closed.value.rcvd.code if closed.value.rcvd else 1006) == code


# -- faults of transactions and of HTTP


async def test_a_dropped_transaction_lands_when_its_bytes_come_again(wire: Wire) -> None:
    transaction = wire.trader.take(params())
    wire.desk.faults(drop_transaction=1)
    signature = await wire.send(transaction)
    wire.desk.tick(40)
    assert await wire.status(signature, search=True) is None
    assert (await wire.landed(transaction))["fills"]


async def test_a_delayed_one_lands_later_or_expires(wire: Wire) -> None:
    wire.desk.faults(delay_transaction=1, delay_slots=12)
    signature = str(await wire.send(wire.trader.take(params())))
    wire.desk.tick(12)
    assert wire.desk.books()["pending"] == [signature]
    wire.desk.tick()
    assert signature in wire.desk.books()["landed"]
    wire.desk.faults(delay_transaction=1, delay_slots=151)
    lost = str(await wire.send(wire.trader.take(params())))
    wire.desk.tick(160)
    assert wire.desk.books()["expired"] == [lost]


async def test_one_that_passed_preflight_lands_with_an_error(wire: Wire) -> None:
    wire.desk.faults(fail_transaction=1, fail_code=6023)
    entry = await wire.landed(wire.trader.take(params()))
    assert (entry["code"], entry["orders"], entry["fills"]) == (6023, [], [])
    assert wire.position() == {}
    signature = Signature.from_string(next(iter(wire.desk.books()["landed"])))
    assert (await wire.status(signature)).err.err.code == 6023


async def test_a_hidden_status_shows_late_though_the_position_is_there(wire: Wire) -> None:
    wire.desk.faults(hide_status=1, hide_slots=10)
    signature = await wire.send(wire.trader.take(params()))
    wire.desk.tick(10)
    assert await wire.status(signature, search=True) is None
    assert wire.position()["base"] == SOL
    wire.desk.tick()
    assert await wire.status(signature) is not None


async def test_a_fork_takes_back_what_was_confirmed(wire: Wire) -> None:
    stays = await wire.landed(wire.trader.take(params(base_asset_amount=2 * SOL)))
    before = wire.desk.user(wire.trader.user)
    wire.desk.faults(fork_transaction=1, fork_slots=10)
    transaction = wire.trader.take(params())
    signature = await wire.send(transaction)
    wire.desk.tick(10)
    assert str((await wire.status(signature)).confirmation_status).endswith("Confirmed")
    assert wire.position()["base"] == 3 * SOL
    wire.desk.tick()
    assert await wire.status(signature, search=True) is None
    assert wire.desk.user(wire.trader.user) == before
    books = wire.desk.books()
    assert list(books["vanished"]) == [str(signature)]
    assert stays in books["landed"].values()
    again = await wire.landed(transaction)
    assert again["fills"]


@pytest.mark.parametrize(("fault", "status"), [("http_429", 429), ("http_500", 500)])
async def test_http_fails_without_json(wire: Wire, fault: str, status: int) -> None:
    wire.desk.faults(**{fault: 1, "methods": ["getSlot"]})
    assert (await wire.call("getHealth"))["result"] == "ok"
    ask = {"jsonrpc": "2.0", "id": 1, "method": "getSlot"}
    answer = await wire.http.post("/", json=ask)
    assert (answer.status_code, answer.text[:6]) == (status, "<html>")
    assert (await wire.http.post("/", json=ask)).status_code == 200


async def test_answers_fail_to_come(wire: Wire) -> None:
    wire.desk.faults(http_timeout=1)
    with pytest.raises(httpx.ReadTimeout):
        await wire.call("getSlot")
    wire.desk.faults(http_refused=1)
    transaction = wire.trader.take(params())
    with pytest.raises(httpx.RemoteProtocolError):
        await wire.raw(transaction)
    assert wire.desk.books()["sent"] == []
    wire.desk.faults(http_lost_answer=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await wire.raw(transaction)
    wire.desk.tick()
    assert str(transaction.signatures[0]) in wire.desk.books()["landed"]


async def test_a_chance_strikes_now_and_then_and_always_always(wire: Wire) -> None:
    wire.desk.faults(http_500=0.5)
    ask = {"jsonrpc": "2.0", "id": 1, "method": "getSlot"}
    codes = [(await wire.http.post("/", json=ask)).status_code for _ in range(40)]
    assert 5 < codes.count(500) < 35
    wire.desk.faults(http_500=ALWAYS)
    assert {(await wire.http.post("/", json=ask)).status_code for _ in range(9)} == {500}
    with pytest.raises(AssertionError, match="no such field"):
        wire.desk.faults(http_418=1)


async def test_an_account_can_change_twice_within_a_slot(wire: Wire) -> None:
    user = Pubkey.from_string(wire.trader.user)
    first = await wire.rpc.get_account_info(user, "processed")
    wire.desk.set_user(wire.trader.user, status=4)
    second = await wire.rpc.get_account_info(user, "processed")
    assert first.context.slot == second.context.slot
    assert first.value.data != second.value.data


async def test_nodes_lag_and_freeze_each_on_its_own() -> None:

    from solana.rpc.core import RPCException

    async with opened(nodes=3) as wire:
        wire.desk.faults(1, lag_slots=5)
        wire.desk.faults(2, frozen=True)
        signature = await wire.send(wire.trader.take(params()))
        wire.desk.tick(4)
        seen = [await wire.status(signature, node) is not None for node in range(3)]
        assert seen == [True, False, False]
        wire.desk.tick(4)
        seen = [await wire.status(signature, node) is not None for node in range(3)]
        assert seen == [True, True, False]
        user = Pubkey.from_string(wire.trader.user)
        slots = [(await rpc.get_account_info(user, "processed")).context.slot for rpc in wire.rpcs]
        assert [wire.chain.slot - slot for slot in slots] == [0, 5, 8]
        fresh = wire.trader.take(params(), blockhash=wire.chain.blockhash(wire.chain.slot))
        with pytest.raises(RPCException, match="Blockhash not found"):
            await wire.send(fresh, node=2)
        await wire.send(fresh)


def test_a_process_of_its_own_keeps_its_chain_for_whoever_comes() -> None:
    with spawn("--slots-per-s", "0", "--nodes", "2") as process:
        names = process.desk.add_user(str(Keypair().pubkey()), collateral=5_000_000)
        slot = process.desk.tick(3)
        process.desk.faults(node=1, lag_slots=2)
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "getSlot",
            "params": [{"commitment": "processed"}],
        }
        told = [
            httpx.post(url, json=body, trust_env=False).json()["result"] for url in process.urls
        ]
        assert told == [slot, slot - 2]
        assert process.desk.user(names["user"])["collateral"] == 5_000_000
        assert process.desk.faults(node=1)["lag_slots"] == 2
        assert process.desk.books()["landed"] == {}
        process.desk.clock(slots_per_s=200)
        while process.desk.clock()["slot"] < slot + 5:
            time.sleep(0.01)
        refused = httpx.post(f"{process.url}/standin/nonsense", json={}, trust_env=False)
        assert refused.status_code == 404
