"""Makers from a book server: named in the transaction, and missed only by an exit."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from drift_venue import rigged
from standin_wire import Wire

from core.sending import Unreachable
from markets.drift.makers import BookServer

pytestmark = pytest.mark.anyio

SOL = 10**9


class Server:
    """A DLOB server's ``/topMakers``: it answers as it is told to, and keeps what it was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.asked = answer, list[str]()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split(" ")[1])
        if self.answer:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
            writer.write(f"Content-Length: {len(self.answer)}\r\n\r\n".encode() + self.answer)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def served(answer: bytes) -> AsyncIterator[tuple[Server, BookServer]]:
    made = Server(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with BookServer(made.url) as book:
        yield made, book
    server.close()
    await server.wait_closed()


async def test_an_order_meets_the_makers_the_book_server_names(wire: Wire) -> None:
    wire.desk.set_market(0, amm_base=0)
    wire.desk.set_book(wire.maker["user"], 0, bids=[(149_990_000, SOL)], asks=[(150_010_000, SOL)])
    # it names us too, if our orders rest; nobody trades with himself
    answer = json.dumps([wire.trader.user, wire.maker["user"]]).encode()
    async with served(answer) as (server, book), rigged(wire, makers=book) as rig:
        assert (await rig.ended(0.5, limit=150.1))["fill_quantity"] == 0.5
        assert (await rig.ended(-0.5, limit=149.0, reduce_only=True))["fill_quantity"] == -0.5
    assert server.asked == [
        "/topMakers?marketName=SOL-PERP&side=ask&limit=4",
        "/topMakers?marketName=SOL-PERP&side=bid&limit=4",
    ]


@pytest.mark.parametrize("answer", [b"", b"<html>", b'{"error": 1}', b"[1]"])
async def test_without_makers_an_exit_still_goes_to_the_amm_and_an_opening_waits(
    wire: Wire, answer: bytes
) -> None:
    async with rigged(wire) as rig:
        assert (await rig.ended(0.5, limit=151.0))["fill_quantity"] == 0.5
    async with served(answer) as (_, book), rigged(wire, makers=book) as rig:
        with pytest.raises(Unreachable, match="topMakers"):
            await book.rest_against("SOL-PERP", buying=True)
        with anyio.fail_after(20):
            rig.orders = 5
            told = await rig.ended(0.5, limit=151.0)
            assert (told["fill_quantity"], told["code"]) == (0.0, -1)
            told = await rig.ended(-0.5, limit=149.0, reduce_only=True)
            assert told["fill_quantity"] == -0.5
