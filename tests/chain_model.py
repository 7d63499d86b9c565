"""A chain in memory that does to its users what real ones do, at random and on purpose.

Time is virtual and moves whenever somebody waits or asks. A block lands transactions once, may be
abandoned with all that is in it until it is final, and nodes see it late: each endpoint has several
nodes behind it, each answer comes from any of them, and a node may stand still for minutes. Sends
are dropped, delayed, reordered, doubled, refused although passed on, and failed although landed.
Hints are late, false, or never come.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from anyio import lowlevel

from execution.sending import (
    Attempt,
    Fill,
    Level,
    Look,
    Order,
    Preflight,
    Seen,
    Signed,
    State,
    Tip,
    Unreachable,
    Unsignable,
)

SLOT_MS = 400
FINAL_SLOTS = 32
VALID_BLOCKS = 150
LOT = 0.001
TOO_LATE, NO_COLLATERAL, TOO_SMALL = 6061, 6003, 6059


class Crash(BaseException):
    """The process is killed here."""


@dataclass(frozen=True)
class Faults:
    """How often each thing goes wrong, as a probability a call (a slot: fork, skip, freeze)."""

    drop: float = 0.3
    delay: float = 0.4
    double: float = 0.2
    lost_answer: float = 0.15
    preflight: float = 0.1
    unreachable: float = 0.1
    hidden: float = 0.2
    lag: float = 0.3
    fork: float = 0.05
    skip: float = 0.05
    freeze: float = 0.03
    fail: float = 0.1
    unfilled: float = 0.15
    partial: float = 0.3
    unsignable: float = 0.03
    mute: float = 0.3
    lie: float = 0.2


NO_FAULTS = Faults(**dict.fromkeys(Faults.__dataclass_fields__, 0.0))


@dataclass(frozen=True)
class Landed:
    """What a transaction did at its slot."""

    order_id: int
    slot: int
    error: int | None
    fills: tuple[Fill, ...]


@dataclass
class Node:
    """A node's newest slot; it never goes back."""

    view: int = 0
    frozen_to: int = 0


class World:
    """The chain, its clock, and the moment of the next crash."""

    def __init__(self, seed: int, faults: Faults, *, start_ms: int = 1_000_000) -> None:
        self.chance = random.Random(seed)
        self.faults = faults
        self.now_ms = self.start_ms = start_ms
        self.heights = [1_000]
        self.landed: dict[str, Landed] = {}
        self.ghosts: list[tuple[str, Landed, int]] = []
        self.air: list[tuple[int, bytes]] = []
        self.sent: dict[str, bytes] = {}
        self.signed = 0
        self.boundaries = 0
        self.calls = 0
        self.crash_at: int | None = None
        self.boundaries_per_crash = 0

    def struck(self, probability: float) -> bool:
        return self.chance.random() < probability

    @property
    def slot(self) -> int:
        return len(self.heights) - 1

    async def boundary(self, ms: int | None = None) -> None:
        """A point where a task may be put aside, and where the process may die."""
        self.boundaries += 1
        if self.boundaries == self.crash_at:
            raise Crash
        self.elapse(self.chance.randint(1, 60) if ms is None else ms)
        self.calls += 1
        try:
            await lowlevel.checkpoint()
        finally:
            self.calls -= 1

    def plan_crash(self) -> None:
        """Crash some boundaries from here; never, while ``boundaries_per_crash`` is 0."""
        self.crash_at = None
        if self.boundaries_per_crash:
            self.crash_at = self.boundaries + self.chance.randint(1, 2 * self.boundaries_per_crash)

    async def sleep(self, seconds: float) -> None:
        await self.boundary(0)
        until = self.now_ms + round(seconds * 1000)
        while self.now_ms < until:
            # while anybody is in a call, only the calls take time
            if not self.calls:
                self.elapse(SLOT_MS)
            await lowlevel.checkpoint()
        await self.boundary(0)

    def clock(self) -> int:
        return self.now_ms

    def elapse(self, ms: int) -> None:
        self.now_ms += ms
        while self.start_ms + (self.slot + 1) * SLOT_MS <= self.now_ms:
            self._tick()

    def _tick(self) -> None:
        skipped = self.struck(self.faults.skip)
        self.heights.append(self.heights[-1] + (not skipped))
        if self.struck(self.faults.fork):
            self._fork(self.slot - self.chance.randint(1, FINAL_SLOTS - 2))
        if not skipped:
            due = [payload for slot, payload in self.air if slot <= self.slot]
            self.air = [(slot, payload) for slot, payload in self.air if slot > self.slot]
            self.chance.shuffle(due)
            for payload in due:
                self._land(payload)

    def _fork(self, at: int) -> None:
        """Abandon what landed from slot ``at`` on; some of it comes back in a later block."""
        for signature, landed in list(self.landed.items()):
            if landed.slot >= at:
                del self.landed[signature]
                self.ghosts.append((signature, landed, self.slot))
                if self.struck(0.5):
                    self.air.append((self.slot + self.chance.randint(0, 20), self.sent[signature]))

    def _land(self, payload: bytes) -> None:
        terms = json.loads(payload)
        if terms["signature"] in self.landed or self.heights[-1] > terms["height"]:
            return
        error: int | None = None
        fills: tuple[Fill, ...] = ()
        if self.now_ms > terms["expires_ms"]:
            error = TOO_LATE
        elif self.struck(self.faults.fail):
            error = NO_COLLATERAL
        elif not self.struck(self.faults.unfilled):
            fills = self._fills(round(terms["quantity"] / LOT))
        self.landed[terms["signature"]] = Landed(terms["order"], self.slot, error, fills)

    def _fills(self, lots: int) -> tuple[Fill, ...]:
        sign = 1 if lots > 0 else -1
        left = abs(lots)
        if self.struck(self.faults.partial):
            left = self.chance.randint(0, left)
        fills = []
        while left:
            part = self.chance.randint(1, left)
            paid = part * self.chance.randint(90_000, 110_000) + self.chance.randint(0, 9)
            fills.append(Fill(sign * part * LOT, sign * paid, part * 37))
            left -= part
        return tuple(fills)

    def send(self, payload: bytes) -> None:
        """Into the air: it comes down in some later block, once, twice or never."""
        self.sent[json.loads(payload)["signature"]] = payload
        for _ in range(1 + self.struck(self.faults.double)):
            if not self.struck(self.faults.drop):
                late = self.chance.randint(1, 200) if self.struck(self.faults.delay) else 1
                self.air.append((self.slot + late, payload))

    def of_order(self, order_id: int) -> list[Landed]:
        return [landed for landed in self.landed.values() if landed.order_id == order_id]

    def replay_all(self) -> None:
        """Some node sends again whatever it ever saw, and all of it becomes final."""
        for payload in self.sent.values():
            self.air.append((self.slot + 1, payload))
        calm, self.faults = self.faults, NO_FAULTS
        self.elapse((FINAL_SLOTS + 5) * SLOT_MS)
        self.faults = calm


class ModelEndpoint:
    """An address with several nodes behind it."""

    def __init__(self, world: World, nodes: int = 2) -> None:
        self._world = world
        self._nodes = [Node() for _ in range(nodes)]

    def _view(self) -> int:
        world, node = self._world, self._world.chance.choice(self._nodes)
        if world.struck(world.faults.freeze):
            node.frozen_to = world.slot + world.chance.randint(50, 400)
        if world.slot >= node.frozen_to:
            lag = world.chance.randint(0, 40) if world.struck(world.faults.lag) else 0
            node.view = max(node.view, world.slot - lag)
        return node.view

    async def _call(self) -> None:
        await self._world.boundary()
        if self._world.struck(self._world.faults.unreachable):
            raise Unreachable("no answer")

    async def send(self, payload: bytes) -> None:
        await self._call()
        refused = self._world.struck(self._world.faults.preflight)
        if not refused or self._world.struck(0.5):
            self._world.send(payload)
        await self._world.boundary()
        if self._world.struck(self._world.faults.lost_answer):
            # long enough for it to land before the sender is told that the line broke
            self._world.elapse(self._world.chance.choice((0, 1_000, 15_000)))
            raise Unreachable("the line broke")
        if refused:
            raise Preflight(NO_COLLATERAL)

    async def finalized(self) -> Tip:
        await self._call()
        slot = max(self._view() - FINAL_SLOTS, 0)
        await self._world.boundary()
        return Tip(self._world.heights[slot], slot)

    async def look(self, signature: str) -> Look:
        await self._call()
        world, view = self._world, self._view()
        seen = self._seen(signature, view)
        if seen and seen.level is not Level.FINALIZED and world.struck(world.faults.hidden):
            seen = None
        await world.boundary()
        return Look(view, seen)

    def _seen(self, signature: str, view: int) -> Seen | None:
        landed = self._world.landed.get(signature)
        for ghost, was, abandoned in self._world.ghosts:
            if ghost == signature and was.slot <= view < abandoned:
                landed = was
        if landed is None or landed.slot > view:
            return None
        depth = view - landed.slot
        level = Level.PROCESSED if depth < 2 else Level.CONFIRMED
        return Seen(Level.FINALIZED if depth >= FINAL_SLOTS else level, landed.slot, landed.error)

    async def fills(self, signature: str) -> Sequence[Fill] | None:
        await self._call()
        landed, view = self._world.landed.get(signature), self._view()
        await self._world.boundary()
        if landed is None or landed.slot > view - FINAL_SLOTS:
            return None
        return landed.fills

    async def hint(self, signature: str) -> None:
        """Once the transaction is final, or some slots later; or at once, or never."""
        world = self._world
        if world.struck(world.faults.mute):
            raise Unreachable("not heard")
        late = world.chance.randint(0, 100) if world.struck(world.faults.delay) else 0
        while not world.struck(world.faults.lie / 100):
            seen = self._seen(signature, world.slot - late)
            if seen and seen.level is Level.FINALIZED:
                return
            await lowlevel.checkpoint()

    async def height(self) -> int:
        """The newest height, by which a transaction's life is set."""
        await self._call()
        return self._world.heights[self._view()]


@dataclass
class ModelChain:
    """Signs, each time anew, and has two endpoints."""

    world: World
    endpoints: Sequence[ModelEndpoint] = field(default_factory=list)
    signings: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.endpoints = self.endpoints or [ModelEndpoint(self.world) for _ in range(2)]

    async def sign(self, order: Order, number: int) -> Signed:
        height = await self.endpoints[0].height()
        if self.world.struck(self.world.faults.unsignable):
            raise Unsignable(TOO_SMALL)
        self.world.signed += 1
        self.signings.append((order.id, number))
        terms = {
            "signature": f"s{self.world.signed}",
            "order": order.id,
            "quantity": order.quantity,
            "expires_ms": order.expires_ms,
            "height": height + VALID_BLOCKS,
        }
        await self.world.boundary()
        return Signed(terms["signature"], json.dumps(terms).encode(), terms["height"])


class MemoryAttempts:
    """A store that outlives its processes, and holds to the rules of the journal's."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rows: dict[tuple[int, int], Attempt] = {}

    async def write_signed(self, attempt: Attempt) -> None:
        await self._world.boundary()
        key = (attempt.order_id, attempt.number)
        assert key not in self.rows
        assert all(row.signed.signature != attempt.signed.signature for row in self.of(key[0]))
        assert all(row.state is State.EXPIRED for row in self.of(attempt.order_id)), "signed twice"
        self.rows[key] = attempt
        await self._world.boundary()

    async def write_verdict(self, attempt: Attempt) -> None:
        await self._world.boundary()
        key = (attempt.order_id, attempt.number)
        assert self.rows[key].state is State.SIGNED, "settled twice"
        self.rows[key] = attempt
        await self._world.boundary()

    async def load(self, order_ids: Sequence[int]) -> dict[int, Attempt]:
        await self._world.boundary()
        wanted = set(order_ids)
        return {
            key[0]: row
            for key, row in sorted(self.rows.items())
            if key[0] in wanted or row.state is State.SIGNED
        }

    def of(self, order_id: int) -> list[Attempt]:
        numbers = range(1, 1 + len(self.rows))
        found = []
        for number in numbers:
            row = self.rows.get((order_id, number))
            if row is None:
                break
            found.append(row)
        return found
