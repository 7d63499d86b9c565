"""The advisor of a live run: a question is put aside at once, its answer comes back as an event.

Each question has a task of its own, so a slow model holds up neither the loop nor another question.
A call is let end even when its answer will be late: what was asked and paid for is on record. A
question that a stop leaves open ends as late, by the clock of the events.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from typing import TypeAlias

import anyio
import numpy as np
import structlog
from anyio import to_thread

from backtest.advice import CLOSES_TOLD, Answerer, Desk, Open
from core.model import EVENT, Kind, Records, joined
from core.ports import Asked, Journal
from daemon.journal import read_events
from daemon.journal.calls import write_calls
from daemon.live.service import Service
from forecasting.questions import Outcome, Question, Reply

log = structlog.get_logger(__name__)

Turn: TypeAlias = tuple[int, int]
"""When an answer is due, unix ms, and the number of its question."""

QUESTIONS_MAX = 10_000
EVENTS_REMEMBERED = 20_000


class Recent:
    """A journal that passes everything on, and the newest bars of what went through it."""

    def __init__(self, journal: Journal, past: Records) -> None:
        self._journal = journal
        self._bars: dict[int, Records] = {}
        self._remember(past)

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        """Append, then remember: an advisor is told only of what is durable."""
        await self._journal.append(events, outcomes, track)
        self._remember(events)

    def bars(self, instrument: int, most: int) -> Records:
        """The newest bars of an instrument, at most so many, the oldest first."""
        return self._bars.get(instrument, np.zeros(0, EVENT))[-most:]

    def _remember(self, events: Records) -> None:
        bars = events[events["kind"] == Kind.BAR]
        for i in np.unique(bars["instrument"]).tolist():
            known = joined([self.bars(i, CLOSES_TOLD), bars[bars["instrument"] == i]], EVENT)
            self._bars[i] = known[-CLOSES_TOLD:]


class Turns:
    """The one order of answers, which a replay has as well: when they are due, and of two due at
    once, the number of the question. They are heard one after the other."""

    def __init__(self) -> None:
        self._waiting: list[Turn] = []
        self._heard: Turn = (0, 0)
        self._busy = False
        self._moved = anyio.Condition()

    def earliest_ms(self, number: int) -> int:
        """When the answer to a question may be due, to come after all that were heard."""
        heard_ms, heard_number = self._heard
        return heard_ms if number > heard_number else heard_ms + 1

    def take(self, turn: Turn) -> None:
        """An answer will be due then: none that comes later is heard before it."""
        heappush(self._waiting, turn)

    @asynccontextmanager
    async def hear(self, turn: Turn) -> AsyncIterator[None]:
        """Wait until every turn before this one is over."""
        async with self._moved:
            while self._busy or self._waiting[0] != turn:
                await self._moved.wait()
            self._busy, self._heard = True, heappop(self._waiting)
        yield
        async with self._moved:
            self._busy = False
            self._moved.notify_all()


class LiveAdvisor:
    """Answers questions while ``run`` runs; the call is journaled before its answer is heard.

    ``wrap`` must be put around the run's journal: it is what the newest bars are known from.
    ``ended`` looks on at every call.
    """

    def __init__(
        self,
        service: Service,
        advisor: Answerer,
        ended: Callable[[Reply], None] = lambda _reply: None,
    ) -> None:
        self._service, self._advisor = service, advisor
        self.ended = ended
        self._put, self._take = anyio.create_memory_object_stream[tuple[Asked, Question]](
            QUESTIONS_MAX
        )

    def wrap(self, journal: Journal) -> Journal:
        """The journal to append to; the recorded past is remembered at once."""
        own = self._service.journal
        after = max(0, own.seq - EVENTS_REMEMBERED)
        recent = Recent(journal, read_events(own.engine, own.run_id, after=after))
        self._desk = Desk(self._service.engine, recent.bars, self._advisor, Open())
        return recent

    async def ask(self, questions: Sequence[Asked]) -> None:
        """Put the case of each as the state stands now, and leave it to ``run``."""
        for asked in questions:
            self._put.send_nowait((asked, self._desk.question(asked)))

    async def run(self) -> None:
        """Have questions answered, all at once as far as the services allow."""
        self._turns = Turns()
        async with anyio.create_task_group() as group, self._take.clone() as questions:
            async for asked, question in questions:
                group.start_soon(self._answer, asked, question)

    async def close(self) -> None:
        """The loop has ended: let go of the models."""
        self._put.close()
        self._take.close()
        await self._advisor.close()

    async def _answer(self, asked: Asked, question: Question) -> None:
        turns, turn, began_s = self._turns, None, anyio.current_time()

        def place(latency_ms: int, _outcome: Outcome) -> int:
            nonlocal turn
            earliest_ms = max(turns.earliest_ms(asked.number), self._service.inbox.last_ms)
            turn = max(asked.ts + latency_ms, earliest_ms), asked.number
            turns.take(turn)
            return turn[0] - asked.ts

        reply = await self._advisor.ask(question, place)
        if turn is None:  # the cassette knew: it takes as long as it took
            turn = asked.ts + reply.latency_ms, asked.number
            turns.take(turn)
            await anyio.sleep_until(began_s + reply.latency_ms / 1_000)
        async with turns.hear(turn):
            await self._tell(asked, reply)

    async def _tell(self, asked: Asked, reply: Reply) -> None:
        """Journal the call, then let the loop hear the answer."""
        journal, call = self._service.journal, [(asked.number, reply)]
        await to_thread.run_sync(write_calls, journal.engine, journal.run_id, call)
        log.info(
            "answered",
            book=reply.question.book,
            instrument=reply.question.instrument,
            question=asked.number,
            model=reply.model,
            prompt=reply.prompt,
            outcome=reply.outcome.value,
            latency_ms=reply.latency_ms,
            cost_micros=reply.cost_micros,
        )
        self.ended(reply)
        await self._service.inbox.put(self._desk.opinion(asked, reply))
