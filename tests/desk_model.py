"""The side of the engine in memory: approves orders, folds their ends, and outlives crashes.

It is as strict as the engine: an end of an order that is not working, or a fill that crosses zero,
fails the test at once.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np
from chain_model import LOT, Crash, MemoryAttempts, ModelChain, World

from core.model import ORDER, Records, joined
from execution.sending import Sender

INSTRUMENTS, BOOKS_EACH = 3, 2


@dataclass
class Desk:
    """Books over instruments, and the orders the journal knows; ``inbox`` dies with a process."""

    world: World
    intents: int
    legs_both: float = 0.4
    halts: float = 0.0
    approved: dict[int, Any] = field(default_factory=dict)
    working: dict[int, Any] = field(default_factory=dict)
    ends: dict[int, Any] = field(default_factory=dict)
    halted_ids: set[int] = field(default_factory=set)
    held_lots: Counter[int] = field(default_factory=Counter)
    inbox: list[Records] = field(default_factory=list)
    is_halted: bool = False

    def held(self, book: int) -> float:
        return self.held_lots[book] * LOT

    def halted(self) -> bool:
        return self.is_halted

    async def tell(self, event: Records) -> None:
        await self.world.boundary()
        self.inbox.append(event)
        await self.world.boundary()

    def fold(self) -> None:
        for event in self.inbox:
            row = event[0]
            order = self.working.pop(int(row["order"]))
            book, lots = int(order["book"]), round(row["fill_quantity"] / LOT)
            held = self.held_lots[book]
            assert row["final"] == 1.0
            assert held * (held + lots) >= 0, "a fill crossed zero"
            self.held_lots[book] = held + lots
            self.ends[int(order["id"])] = row
        self.inbox = []

    def sent(self) -> Records:
        return joined([self.working[k] for k in sorted(self.working)], ORDER)

    @property
    def done(self) -> bool:
        return len(self.approved) >= self.intents and not self.working

    def approve(self) -> list[Any]:
        """What a book that has no order under way wants next: to open, to close, or to turn."""
        busy = {int(order["book"]) for order in self.working.values()}
        free = [b for b in range(INSTRUMENTS * BOOKS_EACH) if b not in busy]
        if not free or len(self.approved) >= self.intents:
            return []
        chance, book = self.world.chance, self.world.chance.choice(free)
        held, grow = self.held_lots[book], chance.randint(1, 500) * chance.choice((-1, 1))
        if held == 0:
            return [self._order(book, grow, reduce=False)]
        legs = [self._order(book, -held, reduce=True)]
        if self.world.struck(self.legs_both):
            legs.append(self._order(book, -held // abs(held) * abs(grow), reduce=False))
        return legs

    def _order(self, book: int, lots: int, *, reduce: bool) -> Any:
        row = np.zeros(1, ORDER)
        row["id"] = len(self.approved) + 1
        row["book"], row["instrument"] = book, book // BOOKS_EACH
        row["born_ts"], row["quantity"] = self.world.now_ms, lots * LOT
        row["reduce_only"] = reduce
        self.approved[int(row["id"][0])] = self.working[int(row["id"][0])] = row[0]
        return row[0]


def books_of(instrument: int) -> range:
    return range(instrument * BOOKS_EACH, (instrument + 1) * BOOKS_EACH)


async def process(desk: Desk, chain: ModelChain, store: MemoryAttempts, ttl_ms: int) -> None:
    """One process, from its recovery until all intents are done or it crashes."""
    world = desk.world
    sender = Sender(
        chain,
        store,
        desk.tell,
        books=books_of,
        held=desk.held,
        halted=desk.halted,
        ttl_ms=ttl_ms,
        clock=world.clock,
        sleep=world.sleep,
    )
    await sender.recover(desk.sent())
    desk.fold()
    async with anyio.create_task_group() as group:
        group.start_soon(sender.run)
        while not desk.done:
            await world.boundary()
            desk.fold()
            if world.struck(desk.halts):
                await halt(desk, sender)
            # the orders are in the journal now; the process may die before they are submitted
            for order in [] if desk.is_halted else desk.approve():
                await world.boundary()
                await sender.submit(order)
            await world.sleep(world.chance.choice((0.1, 1.0, 5.0)))
        sender.close()


async def halt(desk: Desk, sender: Sender) -> None:
    desk.is_halted = not desk.is_halted
    if desk.is_halted:
        desk.halted_ids |= {k for k, order in desk.working.items() if not order["reduce_only"]}
        await sender.halt()


async def lives(desk: Desk, chain: ModelChain, store: MemoryAttempts, ttl_ms: int) -> None:
    """Processes, one after another, until one is not crashed."""
    while True:
        try:
            await process(desk, chain, store, ttl_ms)
        except (Crash, BaseExceptionGroup) as ending:
            check_crash(ending)
            desk.inbox = []
            desk.world.elapse(desk.world.chance.choice((0, 2_000, 120_000)))
            desk.world.plan_crash()
        else:
            return


def check_crash(ending: BaseException) -> None:
    """Only our own crash may end a process."""
    if isinstance(ending, BaseExceptionGroup):
        _, others = ending.split(Crash)
        if others is not None:
            raise others
