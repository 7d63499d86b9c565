"""Books of opposite sides on one account: each exits whole, and no exit can turn the account."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from drift_venue import Rig, rigged
from standin_wire import Wire

from execution.sending import Sender

pytestmark = pytest.mark.anyio

LEFT, RIGHT = 0, 1
SOL = 10**9


class Pair:
    """Two books in one instrument under one sender; ``folded`` is what the loop has made of it."""

    def __init__(self, rig: Rig, sender: Sender) -> None:
        self.rig, self.sender = rig, sender
        self.folded: dict[int, float] = defaultdict(float)

    async def send(self, *legs: tuple[int, float, bool]) -> list[float]:
        """Send (book, quantity, reduce-only) one behind the other; answers what was filled."""
        count = len(self.rig.told)
        for book, quantity, reduce_only in legs:
            order = self.rig.order(quantity, book=book, reduce_only=reduce_only)
            await self.sender.submit(self.rig.row(order))
        with anyio.fail_after(30):
            while len(self.rig.told) < count + len(legs):  # noqa: ASYNC110 - the sender tells
                await anyio.sleep(0.005)
        return [float(told["fill_quantity"]) for told in self.rig.told[count:]]

    def flags(self) -> list[bool]:
        """Whether each order that landed was reduce-only on the wire."""
        landed = sorted(self.rig.wire.desk.books()["landed"].values(), key=lambda one: one["slot"])
        return [order["reduce_only"] for entry in landed for order in entry["orders"]]

    @property
    def venue(self) -> float:
        return int(self.rig.wire.position().get("base", 0)) / SOL


@asynccontextmanager
async def paired(wire: Wire) -> AsyncIterator[Pair]:
    levels: dict[str, Any] = {"bids": [(149_990_000, 99 * SOL)], "asks": [(150_010_000, 99 * SOL)]}
    wire.desk.set_book(wire.maker["user"], 0, **levels)
    async with rigged(wire) as rig, anyio.create_task_group() as group:
        sender = Sender(
            rig.chain,
            rig.attempts,
            rig.tell,
            books=lambda _instrument: [LEFT, RIGHT],
            held=lambda book: pair.folded[book],
            halted=lambda: False,
            ttl_ms=rig.ttl_ms,
            clock=rig.clock,
            sleep=rig.sleep,
        )
        pair = Pair(rig, sender)
        group.start_soon(sender.run)
        yield pair
        sender.close()


async def test_books_that_net_to_nothing_both_exit_whole(wire: Wire) -> None:
    async with paired(wire) as pair:
        assert await pair.send((LEFT, 1.0, False), (RIGHT, -1.0, False)) == [1.0, -1.0]
        assert pair.venue == 0.0
        # nothing is folded yet, so the sender goes by what it told
        assert await pair.send((LEFT, -1.0, True), (RIGHT, 1.0, True)) == [-1.0, 1.0]
        assert pair.venue == 0.0
        assert pair.flags() == [False, False, False, True]


async def test_an_exit_larger_than_the_net_is_not_clamped_to_it(wire: Wire) -> None:
    async with paired(wire) as pair:
        await pair.send((LEFT, 1.0, False), (RIGHT, -0.4, False))
        assert await pair.send((LEFT, -1.0, True)) == [-1.0]
        assert pair.venue == -0.4
        assert await pair.send((RIGHT, 0.4, True)) == [0.4]
        assert pair.venue == 0.0
        assert pair.flags() == [False, False, False, True]


@pytest.mark.parametrize("beside", [0.0, -1.0])
async def test_an_exit_sent_twice_does_not_turn_the_account(wire: Wire, beside: float) -> None:
    async with paired(wire) as pair:
        await pair.send((LEFT, 1.0, False), *([(RIGHT, beside, False)] if beside else []))
        twice = await pair.send((LEFT, -1.0, True), (LEFT, -1.0, True))
        assert twice == [-1.0, 0.0]
        assert pair.venue == beside
        assert pair.flags()[-1]


async def test_books_of_one_side_keep_the_flag(wire: Wire) -> None:
    async with paired(wire) as pair:
        await pair.send((LEFT, 1.0, False), (RIGHT, 0.5, False))
        assert await pair.send((LEFT, -1.0, True), (RIGHT, -0.5, True)) == [-1.0, -0.5]
        assert pair.venue == 0.0
        assert pair.flags() == [False, False, True, True]


async def test_after_a_restart_the_net_is_what_the_books_hold(wire: Wire) -> None:
    async with paired(wire) as pair:
        await pair.send((LEFT, 1.0, False), (RIGHT, -1.0, False))
    async with paired(wire) as pair:
        pair.rig.orders = 2
        pair.folded.update({LEFT: 1.0, RIGHT: -1.0})
        assert await pair.send((LEFT, -1.0, True)) == [-1.0]
        assert pair.venue == -1.0
        assert pair.flags()[-1] is False
