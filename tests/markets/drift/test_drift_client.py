"""solana's client held to what an answer is: all else is Unreachable, and ends no process."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from solders.keypair import Keypair

from core.sending import Level, Look, Preflight, Seen, Unreachable
from markets.drift.layout import code
from markets.drift.program import Program
from markets.drift.rpc import Account, Blockhash, Node

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("driftpy")]

KEY = str(Keypair().pubkey())
SIGNATURE = str(Keypair().sign_message(b""))
ANSWERS: dict[str, Any] = {
    "getGenesisHash": KEY,
    "getSlot": 7,
    "getFirstAvailableBlock": 0,
    "getBlockTime": 1_700_000_000,
    "getBalance": {"context": {"slot": 7}, "value": 5},
    "getEpochInfo": {
        "absoluteSlot": 9,
        "blockHeight": 8,
        "epoch": 0,
        "slotIndex": 9,
        "slotsInEpoch": 432_000,
    },
    "getLatestBlockhash": {
        "context": {"slot": 7},
        "value": {"blockhash": KEY, "lastValidBlockHeight": 150},
    },
    "getMultipleAccounts": {
        "context": {"slot": 7},
        "value": [
            {
                "data": ["AAEC", "base64"],
                "owner": KEY,
                "lamports": 1,
                "executable": False,
                "rentEpoch": 2**64 - 1,
                "space": 3,
            }
        ],
    },
    "getRecentPrioritizationFees": [{"slot": 7, "prioritizationFee": 3}],
    "getSignatureStatuses": {"context": {"slot": 7}, "value": [None]},
    "getTransaction": None,
    "sendTransaction": SIGNATURE,
}
CALLS: dict[str, tuple[Callable[[Node], Awaitable[Any]], Any]] = {
    "getSlot": (lambda node: node.slot(), 7),
    "getBlockTime": (lambda node: node.time_ms(7), 1_700_000_000_000),
    "getBalance": (lambda node: node.balance(KEY), 5),
    "getLatestBlockhash": (lambda node: node.blockhash(), Blockhash(KEY, 150)),
    "getMultipleAccounts": (
        lambda node: node.accounts([KEY]),
        (7, [Account(KEY, bytes([0, 1, 2]))]),
    ),
    "getRecentPrioritizationFees": (lambda node: node.fees([KEY]), [3]),
    "getSignatureStatuses": (lambda node: node.look(SIGNATURE), Look(7)),
    "getTransaction": (lambda node: node.logs(SIGNATURE), None),
    "sendTransaction": (lambda node: node.send(b"\x01\x02"), None),
}
Reply = Callable[[dict[str, Any]], bytes]


@asynccontextmanager
async def node_of(reply: Reply) -> AsyncIterator[tuple[Node, list[dict[str, Any]]]]:
    """A node whose line is answered so, and what it was asked."""
    asked: list[dict[str, Any]] = []

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            told = b""
            while b"\r\n\r\n" not in told or not told.endswith(b"}"):
                told += await stream.receive()
            asked.append(json.loads(told.partition(b"\r\n\r\n")[2]))
            body = reply(asked[-1])
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send(head.encode() + body)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            async with Node(f"http://127.0.0.1:{port}", Program(), KEY, timeout_s=2) as node:
                yield node, asked
            group.cancel_scope.cancel()


def whole(asked: dict[str, Any], **more: Any) -> bytes:
    result = {"result": ANSWERS[asked["method"]]}
    return json.dumps({"jsonrpc": "2.0", "id": asked["id"], **(more or result)}).encode()


@pytest.mark.parametrize("method", CALLS)
async def test_an_answer_is_read(method: str) -> None:
    call, told = CALLS[method]
    async with node_of(whole) as (node, asked):
        assert await call(node) == told
    assert [one["method"] for one in asked][:2] == ["getGenesisHash", method]
    assert len({one["id"] for one in asked}) == len(asked)


WRONG: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "nothing": lambda _: b"",
    "a page": lambda _: b"<html>upstream</html>",
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "a number": lambda _: b"1",
    "half of it": lambda asked: whole(asked)[:-5],
    "another question's": lambda asked: whole({**asked, "id": asked["id"] + 1}),
    "no result": lambda asked: whole(asked, nothing=1),
    "an empty error": lambda asked: whole(asked, error={}),
    "an error that is a word": lambda asked: whole(asked, error="limit"),
    # solana's own parser panics at this one, and takes the process with it
    "an error without data": lambda asked: whole(asked, error={"code": -32005, "message": "m"}),
    "a limit": lambda asked: whole(asked, error={"code": 429, "message": "Too many requests"}),
    "an object": lambda asked: whole(asked, result={"value": {"a": [1]}}),
    "a negative": lambda asked: whole(asked, result=-1),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("method", CALLS)
async def test_whatever_is_no_answer_is_unreachable(method: str, wrong: str) -> None:
    call, _ = CALLS[method]

    def reply(asked: dict[str, Any]) -> bytes:
        return (WRONG[wrong] if asked["method"] == method else whole)(asked)

    async with node_of(reply) as (node, _):
        with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:\d+: {method}: "):
            await call(node)


@pytest.mark.parametrize("wrong", WRONG)
async def test_nothing_is_asked_of_a_node_that_does_not_tell_its_chain(wrong: str) -> None:
    async with node_of(WRONG[wrong]) as (node, asked):
        for call, _ in CALLS.values():
            with pytest.raises(Unreachable, match="getGenesisHash"):
                await call(node)
    assert {one["method"] for one in asked} == {"getGenesisHash"}


async def test_an_error_the_chain_has_learnt_since_still_ends_its_transaction() -> None:
    """solana's own parser knows the errors of its release, and reads no other status."""
    status = {"slot": 6, "confirmations": None, "err": {"LearntSince": 1}}
    status |= {"status": {"Err": {"LearntSince": 1}}, "confirmationStatus": "finalized"}

    def reply(asked: dict[str, Any]) -> bytes:
        if asked["method"] != "getSignatureStatuses":
            return whole(asked)
        return whole(asked, result={"context": {"slot": 7}, "value": [status]})

    async with node_of(reply) as (node, _):
        seen = Seen(Level.FINALIZED, 6, code("UnknownError"))
        assert await node.look(SIGNATURE) == Look(7, seen)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        ({"InstructionError": [2, {"Custom": 6003}]}, 6003),
        ({"InstructionError": [2, "LearntSince"]}, code("UnknownError")),
        ("AccountNotFound", code("AccountNotFound")),
        ("AlreadyProcessed", None),
        ("BlockhashNotFound", Unreachable),
        ({"InstructionError": 5}, Unreachable),
        ("LearntSince", Unreachable),
        (None, Unreachable),
    ],
)
async def test_a_preflights_refusal_is_told_by_its_code(error: Any, refused: Any) -> None:
    def reply(asked: dict[str, Any]) -> bytes:
        if asked["method"] != "sendTransaction":
            return whole(asked)
        told = {"code": -32002, "message": "Transaction simulation failed", "data": {"err": error}}
        return whole(asked, error=told)

    async with node_of(reply) as (node, asked):
        if refused is None:
            await node.send(b"\x01")
        elif refused is Unreachable:
            with pytest.raises(Unreachable, match=r"simulation failed|not an answer"):
                await node.send(b"\x01")
        else:
            with pytest.raises(Preflight) as told:
                await node.send(b"\x01")
            assert told.value.code == refused
    config = {"encoding": "base64", "maxRetries": 0, "skipPreflight": False}
    assert asked[-1]["params"][1].items() >= (config | {"preflightCommitment": "processed"}).items()
