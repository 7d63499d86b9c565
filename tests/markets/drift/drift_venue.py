"""The venue's chain on a stand-in: its nodes, its reader, and orders as the engine has them."""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
from solders.keypair import Keypair
from standin_wire import Wire

from core.model import ORDER, Records
from core.sending import Attempt, Order
from execution.sending import Sender
from markets.drift.chain import DriftChain, Terms
from markets.drift.keys import Key
from markets.drift.makers import ListedMakers, Makers
from markets.drift.program import Program
from markets.drift.rpc import Node
from markets.drift.views import Reader

MARKETS = {0: 0, 1: 1}


def key_of(pair: Keypair) -> Key:
    return Key(json.dumps(list(bytes(pair))))


@dataclass
class MemoryAttempts:
    """What the journal keeps of attempts, in memory."""

    rows: dict[tuple[int, int], Attempt] = field(default_factory=dict)

    async def write_signed(self, attempt: Attempt) -> None:
        assert (attempt.order_id, attempt.number) not in self.rows
        assert all(row.signed.signature != attempt.signed.signature for row in self.rows.values())
        self.rows[attempt.order_id, attempt.number] = attempt

    async def write_verdict(self, attempt: Attempt) -> None:
        self.rows[attempt.order_id, attempt.number] = attempt

    async def load(self, order_ids: Sequence[int]) -> dict[int, Attempt]:
        return {key[0]: row for key, row in sorted(self.rows.items())}


@dataclass
class Rig:
    """A chain on a wire's nodes, on the stand-in's own clock."""

    wire: Wire
    chain: DriftChain
    reader: Reader
    attempts: MemoryAttempts = field(default_factory=MemoryAttempts)
    told: list[Any] = field(default_factory=list)
    orders: int = 0
    ttl_ms: int = 20_000

    def clock(self) -> int:
        return self.wire.chain.time_ms

    def order(self, quantity: float, **more: Any) -> Order:
        self.orders += 1
        terms: dict[str, Any] = {
            "id": self.orders,
            "book": 0,
            "instrument": 0,
            "quantity": quantity,
            "limit": 1e6 if quantity > 0 else 1e-3,
            "reduce_only": False,
            "born_ms": self.clock(),
            "expires_ms": self.clock() + self.ttl_ms,
        }
        return Order(**(terms | more))

    def row(self, order: Order) -> Any:
        row = np.zeros(1, ORDER)
        for name in ("id", "book", "instrument", "quantity", "limit", "reduce_only"):
            row[name] = getattr(order, name)
        row["born_ts"] = order.born_ms
        return row[0]

    async def tell(self, event: Records) -> None:
        self.told.append(event[0])

    async def ended(self, quantity: float, **more: Any) -> Any:
        """The end of one order, taken through its life by the real sender, as time goes on."""
        sender = Sender(
            self.chain,
            self.attempts,
            self.tell,
            books=lambda _instrument: [0],
            held=lambda _book: 0.0,
            halted=lambda: False,
            ttl_ms=self.ttl_ms,
            clock=self.clock,
            sleep=self.sleep,
        )
        order, count = self.order(quantity, **more), len(self.told)
        async with anyio.create_task_group() as group:
            group.start_soon(sender.run)
            await sender.submit(self.row(order))
            while len(self.told) == count:  # noqa: ASYNC110 - the sender tells, and nobody else
                await anyio.sleep(0.005)
            sender.close()
        return self.told[-1]

    async def sleep(self, seconds: float) -> None:
        self.wire.desk.tick(round(seconds * 1_000 / self.wire.chain.slot_ms))
        await anyio.lowlevel.checkpoint()


@contextlib.asynccontextmanager
async def rigged(
    wire: Wire,
    *,
    makers: Makers | None = None,
    terms: Terms | None = None,
    key: Keypair | None = None,
    sub_account: int = 0,
    timeout_s: float = 0.4,
    tables: Sequence[str] = (),
    socket: str = "",
) -> AsyncIterator[Rig]:
    """A rig whose time is the stand-in's."""
    program = Program(wire.chain.world.program)
    authority = str(wire.trader.key.pubkey())
    user = program.user(authority, sub_account)
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                Node(url, program, user, timeout_s=timeout_s, socket=socket)
            )
            for url in wire.standin.urls
        ]
        reader = Reader(program, nodes, lambda: wire.chain.time_ms)
        found = await reader.tables(tables)
        chain = DriftChain(
            reader,
            key_of(key or wire.trader.key),
            authority,
            sub_account,
            MARKETS,
            makers or ListedMakers([wire.maker["user"]]),
            terms or Terms(),
            found,
        )
        yield Rig(wire, chain, reader)
