"""A node's notices wake the sender, and can do nothing else, however wrong they are."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from drift_venue import Rig, rigged
from solders.keypair import Keypair
from standin_drift.ledger import FINALIZED_AFTER
from standin_wire import Wire
from websockets.asyncio.server import ServerConnection, serve

from core.sending import Ending, State, Unreachable
from execution.sending.life import Ended, Life
from markets.drift.notices import socket_of
from markets.drift.program import Program
from markets.drift.rpc import Node

pytestmark = pytest.mark.anyio

SOL = 10**9
SLOTS_PER_S = 100
NOWHERE = "ws://127.0.0.1:1"
SIGNATURE = str(Keypair().sign_message(b""))


@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("http://127.0.0.1:8899", "ws://127.0.0.1:8900"),
        ("https://rpc.example", "wss://rpc.example"),
        (
            "https://user:word@rpc.example/v2/?api-key=k",
            "wss://user:word@rpc.example/v2/?api-key=k",
        ),
        ("http://user:word@[::1]:8899/path", "ws://user:word@[::1]:8900/path"),
    ],
)
def test_a_socket_is_where_nodes_have_it(url: str, socket: str) -> None:
    assert socket_of(url) == socket


async def lived(rig: Rig, resend_s: float) -> tuple[Ended, float]:
    """An order's end as time goes by, and how many seconds it took."""
    wire = rig.wire
    wire.desk.set_book(wire.maker["user"], 0, asks=[(150_010_000, 100 * SOL)])
    wire.desk.clock(slots_per_s=SLOTS_PER_S)
    life = Life(rig.chain, rig.attempts, lambda _: False, rig.clock, anyio.sleep, resend_s)
    begun = time.monotonic()
    with anyio.fail_after(60):
        ended = await life.live(rig.order(1.0, limit=150.1), None)
    wire.desk.clock(slots_per_s=0)
    return ended, time.monotonic() - begun


async def test_an_order_ends_when_it_is_final_and_not_at_the_next_look(wire: Wire) -> None:
    """It is final after a third of a second here; the looks are three seconds apart."""
    took = {}
    for name, more in (("hinted", {}), ("alone", {"socket": NOWHERE})):
        async with rigged(wire, **more) as rig:
            rig.orders = len(took)
            wire.standin.nodes[0].calls.clear()
            ended, took[name] = await lived(rig, 3.0)
            assert (ended.quantity, ended.code) == (1.0, 0)
            assert wire.standin.nodes[0].calls["getSignatureStatuses"] == 1
    assert took["hinted"] < 2.0, took
    assert took["alone"] >= 3.0, took


FAULTS: dict[str, dict[str, float]] = {
    "dropped": {"lose_notice": 1e9},
    "delayed": {"delay_notice": 1e9, "delay_notice_slots": 60},
    "duplicated": {"duplicate_notice": 1e9},
    "reordered": {"reorder_notice": 1e9},
    "false": {"false_notice": 1e9},
    "cut": {"close_abrupt": 1e9},
    "closed": {"close_clean": 1e9},
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_wrong_notice_changes_nothing_but_the_time(wire: Wire, fault: str) -> None:
    wire.desk.faults(**FAULTS[fault])
    async with rigged(wire) as rig:
        ended, _ = await lived(rig, 0.3)
        (attempt,) = rig.attempts.rows.values()
    books = wire.desk.books()
    assert (ended.quantity, attempt.state) == (1.0, State.LANDED)
    assert {one["signature"] for one in books["sent"]} == {attempt.signed.signature}
    assert list(books["landed"]) == [attempt.signed.signature]
    assert wire.chain.slot - attempt.slot >= FINALIZED_AFTER
    assert wire.position()["base"] == SOL


async def test_a_notice_of_what_never_landed_fills_nothing(wire: Wire) -> None:
    wire.desk.faults(false_notice=1e9, drop_transaction=1e9)
    async with rigged(wire) as rig:
        ended, _ = await lived(rig, 0.3)
        (attempt,) = rig.attempts.rows.values()
    assert (ended.quantity, ended.code, attempt.state) == (0.0, Ending.EXPIRED, State.EXPIRED)
    assert wire.chain.height(wire.chain.slot) > attempt.signed.last_valid_height
    assert wire.standin.nodes[0].strike.struck["false_notice"] == 1
    assert (wire.position(), wire.desk.books()["landed"]) == ({}, {})


async def test_nothing_listens_any_more_once_an_order_has_ended(wire: Wire) -> None:
    wire.desk.faults(lose_notice=1e9)
    async with rigged(wire) as rig:
        await lived(rig, 0.2)
        with anyio.fail_after(5):
            while wire.standin.pubsubs[0].lines:  # noqa: ASYNC110 - an onlooker has no event
                await anyio.sleep(0.01)
    assert wire.standin.pubsubs[0].connections == 1


Talk = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def node_of(talk: Talk, timeout_s: float = 0.5) -> AsyncIterator[Node]:
    """A node whose socket talks so."""
    async with serve(talk, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        given: dict[str, Any] = {
            "timeout_s": timeout_s,
            "socket": f"ws://127.0.0.1:{port}/?key=hid",
        }
        async with Node("http://127.0.0.1:1", Program(), SIGNATURE, **given) as node:
            yield node


@pytest.mark.parametrize(
    "answer",
    [
        *("", "{}", "[1]", "null", "7", "<html>", '{"jsonrpc": "2.0", "id": 99, "result": 5}'),
        # solana's own parser panics at this one, and takes the process with it
        '{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "behind"}}',
        '[{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "behind"}}]',
        '{"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no such method"}}',
        b"\xff\xfe",
    ],
)
async def test_what_a_socket_may_answer_is_at_worst_no_hint(driftpy: None, answer: Any) -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(answer)
        await connection.wait_closed()

    async with node_of(talk) as node:
        with anyio.fail_after(10), pytest.raises(Unreachable, match="signatureSubscribe") as told:
            await node.hint(SIGNATURE)
    assert "hid" not in str(told.value)


async def test_a_socket_that_never_opens_is_given_up_in_its_time(driftpy: None) -> None:
    async def nothing(stream: Any) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, nothing)
            more: dict[str, Any] = {"timeout_s": 0.2, "socket": f"ws://127.0.0.1:{port}"}
            async with Node("http://127.0.0.1:1", Program(), SIGNATURE, **more) as node:
                with anyio.fail_after(5), pytest.raises(Unreachable, match="TimeoutError"):
                    await node.hint(SIGNATURE)
            group.cancel_scope.cancel()
