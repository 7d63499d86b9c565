"""The venue of the loop: each instrument's orders in their turn, each one's end told as one event.

In turn, because what an order may do depends on what the one before it did: until that is known no
other risk is taken there. One event, because a crash between two of them would lose the second.
"""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import anyio

from core.errors import LockstepError
from core.events import fill_event
from core.model import Records
from core.sending import Attempt, Attempts, Chain, Ending, Order
from execution.sending.life import Clock, Ended, Life
from execution.sending.wake import Sleep

RESEND_S = 2.0
FLAT = 1e-9  # of the larger: what two sums of the same fills may differ by

Lane: TypeAlias = deque[tuple[Order, Attempt | None]]


class Sender:
    """A ``core.ports.Venue``; ``run`` is a core task, for what it leaves undone only a restart
    takes up.

    ``tell`` takes the FILL events (an inbox); ``books`` names those of an instrument; ``held`` and
    ``halted`` tell what a book holds and whether the latch is HALTED, as folded so far; an order
    lives ``ttl_ms`` from its birth.
    """

    def __init__(
        self,
        chain: Chain,
        attempts: Attempts,
        tell: Callable[[Records], Awaitable[None]],
        *,
        books: Callable[[int], Iterable[int]],
        held: Callable[[int], float],
        halted: Callable[[], bool],
        ttl_ms: int,
        clock: Clock,
        sleep: Sleep = anyio.sleep,
        resend_s: float = RESEND_S,
    ) -> None:
        self._attempts = attempts
        self._tell = tell
        self._books, self._held, self._halted = books, held, halted
        self._ttl_ms = ttl_ms
        self._clock = clock
        self._life = Life(chain, attempts, self._after_halt, clock, sleep, resend_s)
        self._lanes: dict[int, Lane] = defaultdict(deque)
        self._busy: set[int] = set()
        self._came = anyio.Event()
        self._closed = False
        self._last_id = 0
        self._halted_id = 0
        self._holdings: dict[int, dict[int, float]] = {}

    async def submit(self, approved: Any) -> None:
        """Take a new order (a row of ORDER); it is sent when its instrument's turn comes to it."""
        order = self._order(approved)
        assert order.id > self._last_id, (order.id, self._last_id)
        self._last_id = order.id
        self._lanes[order.instrument].append((order, None))
        self._came.set()

    async def recover(self, working: Records) -> None:
        """Settle the orders (rows of ORDER) that were on their way when the last process ended.

        Returns when evidence has settled all of them and their ends are told: minutes, at most, if
        an endpoint answers. LockstepError when an attempt belongs to none of them.
        """
        orders = sorted((self._order(row) for row in working), key=lambda order: order.id)
        known = await self._attempts.load([order.id for order in orders])
        strays = sorted(known.keys() - {order.id for order in orders})
        if strays:
            raise LockstepError(
                f"order {strays[0]} is unsettled with the venue, but the journal does not know it "
                "as working: nothing was sent; restore the journal that knows it"
            )
        self._last_id = max((order.id for order in orders), default=0)
        if self._halted():
            await self.halt()
        for order in orders:
            self._lanes[order.instrument].append((order, known.get(order.id)))
        async with anyio.create_task_group() as group:
            for instrument in self._lanes:
                group.start_soon(self._drain, instrument)

    async def halt(self) -> None:
        """Of the orders so far, send none any more that grows a position; what was sent may still
        land, so each keeps its turn until that is settled."""
        self._halted_id = self._last_id

    async def run(self) -> None:
        """Send what is submitted, until closed; what is under way then, ``recover`` takes up."""
        async with anyio.create_task_group() as group:
            while not self._closed:
                self._came = anyio.Event()
                waiting = {instrument for instrument, lane in self._lanes.items() if lane}
                for instrument in sorted(waiting - self._busy):
                    self._busy.add(instrument)
                    group.start_soon(self._drain, instrument)
                await self._came.wait()
            group.cancel_scope.cancel()

    def close(self) -> None:
        """Let ``run`` end where it stands."""
        self._closed = True
        self._came.set()

    @property
    def unsettled(self) -> int:
        """Orders whose ends are not known yet."""
        return sum(len(lane) for lane in self._lanes.values())

    async def _drain(self, instrument: int) -> None:
        """Take its orders to their ends, one after the other; each stays in its lane until then."""
        lane = self._lanes[instrument]
        while lane:
            await self._finish(*lane[0])
            lane.popleft()
        self._busy.discard(instrument)

    async def _finish(self, order: Order, last: Attempt | None) -> None:
        """Take one order to its end, and tell it."""
        holdings = self._holdings_of(order.instrument)
        if last is None and _crosses(order, holdings[order.book]):
            ended = Ended(code=Ending.CROSSING)
        else:
            ended = await self._life.live(_netted(order, holdings), last)
        holdings[order.book] += ended.quantity
        event = fill_event(
            order.id,
            order.instrument,
            quantity=ended.quantity,
            price=ended.price,
            fee=ended.fee,
            final=True,
            ts=self._clock(),
            code=ended.code,
        )
        await self._tell(event)

    def _holdings_of(self, instrument: int) -> dict[int, float]:
        """What each book of an instrument holds after every order that ended, folded or not: as
        folded before the first of them, and from then on by what was told."""
        if instrument not in self._holdings:
            books = self._books(instrument)
            self._holdings[instrument] = {book: self._held(book) for book in books}
        return self._holdings[instrument]

    def _after_halt(self, order: Order) -> bool:
        return order.id <= self._halted_id

    def _order(self, row: Any) -> Order:
        born_ms = int(row["born_ts"])
        return Order(
            id=int(row["id"]),
            book=int(row["book"]),
            instrument=int(row["instrument"]),
            quantity=float(row["quantity"]),
            limit=float(row["limit"]),
            reduce_only=bool(row["reduce_only"]),
            born_ms=born_ms,
            expires_ms=born_ms + self._ttl_ms,
        )


def _crosses(order: Order, held: float) -> bool:
    """Whether an order meant to grow a book from zero finds it not yet flat: the leg before it was
    not filled whole, and a fill may not cross zero."""
    flat = abs(held) <= FLAT * abs(order.quantity)
    return not (order.reduce_only or flat) and held * order.quantity < 0.0


def _netted(order: Order, holdings: Mapping[int, float]) -> Order:
    """The order, marked where its book holds what it closes and the venue, net of the other books,
    does not. Any other exit stays reduce-only there too, so that none can turn the account."""
    covered = _covers(holdings[order.book], order) and not _covers(sum(holdings.values()), order)
    return replace(order, netted=order.reduce_only and covered)


def _covers(held: float, order: Order) -> bool:
    """Whether so much is held that an order shrinks it, at most to nothing."""
    return held * order.quantity < 0.0 and abs(order.quantity) <= abs(held) * (1 + FLAT)
