"""Orders on their way into the loop, and the way back of the number at which they took effect.

An order goes into the inbox as an event, with who gave it and why, and its caller waits here until
the journal has both. A caller who gives up does not undo the order. The step trusts the place of a
book, for it reads memory there, so no order passes that names a book nobody has.
"""

from collections.abc import Awaitable, Callable, Sequence

import anyio

from core.errors import UnknownName
from core.model import Command, Kind, Records
from daemon.control.desk import Busy, Order
from daemon.journal import Said

WAITING_MAX = 16
CLOSING = "the daemon is shutting down"

Put = Callable[[Command, int, Said], Awaitable[None]]


class _Waiting:
    """An order that the journal does not have yet."""

    def __init__(self, order: Order, place: int) -> None:
        self.order, self.place = order, place
        self.over = anyio.Event()
        self.seq = 0
        self.refusal = ""

    def is_of(self, event: Records) -> bool:
        """Whether this COMMAND event is its own."""
        word = Command(int(event["command"]))
        return word is self.order.word and (
            word is not Command.CLOSE or int(event["book"]) == self.place
        )


class Commands:
    """The door between API and loop: ``ask`` on one side, ``observe`` on the other.

    ``put`` hands the loop a command; ``seq`` tells the number of the journal's last event.
    """

    def __init__(self, books: Sequence[str], put: Put, seq: Callable[[], int]) -> None:
        self._places = {name: place for place, name in enumerate(books)}
        self._put, self._seq = put, seq
        self._waiting: list[_Waiting] = []
        self._closed = ""

    async def ask(self, order: Order) -> int:
        """Number of the event at which the order took effect. Raises UnknownName or Busy."""
        waiting = _Waiting(order, self._place(order))
        if self._closed or len(self._waiting) >= WAITING_MAX:
            raise Busy(self._closed or f"{WAITING_MAX} orders wait for the loop already")
        self._waiting.append(waiting)
        handed_in = False
        try:
            said = Said(who=order.who, reason=order.reason)
            await self._put(order.word, waiting.place, said)
            handed_in = True
        finally:
            if not handed_in:
                self._forget(waiting)
        await waiting.over.wait()
        if waiting.refusal:
            raise Busy(waiting.refusal)
        return waiting.seq

    def observe(self, events: Records, _outcomes: Records, _track: Records) -> None:
        """Settle the orders among events that are durable now. An observer of the journal."""
        if not self._waiting:
            return
        first = self._seq() - len(events) + 1
        for place in (events["kind"] == Kind.COMMAND).nonzero()[0]:
            self._settle(events[place], first + int(place))

    def drain(self) -> None:
        """Take no more; what is in the inbox already is still answered."""
        self._closed = CLOSING

    def close(self) -> None:
        """Take no more, and turn away what the loop has not taken: it has ended."""
        self._closed = CLOSING
        for waiting in self._waiting:
            waiting.refusal = CLOSING
            waiting.over.set()
        self._waiting.clear()

    def _settle(self, event: Records, seq: int) -> None:
        waiting = next((order for order in self._waiting if order.is_of(event)), None)
        if waiting is not None:
            self._forget(waiting)
            waiting.seq = seq
            waiting.over.set()

    def _forget(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _place(self, order: Order) -> int:
        if order.word is not Command.CLOSE:
            return 0
        if order.book not in self._places:
            raise UnknownName("book", order.book or "", self._places)
        return self._places[order.book]
