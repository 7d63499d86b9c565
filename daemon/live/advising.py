"""The advisor of a live run: a question is put aside at once, its answer comes back as an event.

Each question has a task of its own, so a slow model holds up neither the loop nor another question.
A call is let end even when its answer will be late: what was asked and paid for is on record. A
question that a stop leaves open ends as late, by the clock of the events.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import numpy as np
import structlog
from anyio import to_thread

from backtest.advice import CLOSES_TOLD, Answerer, Desk, Open
from core.model import EVENT, Kind, Records, joined
from core.ports import Journal
from daemon.journal import read_events
from daemon.journal.calls import write_calls
from daemon.live.service import Service
from forecasting.questions import Question, Reply

log = structlog.get_logger(__name__)

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
    """Answers are heard one after the other, each known a millisecond after the one before: then a
    replay, which has only the times, hears them in the same order."""

    def __init__(self) -> None:
        self._known_ms = 0
        self._taken = self._heard = 0
        self._moved = anyio.Condition()

    def take(self, question_ms: int, latency_ms: int) -> tuple[int, int]:
        """A turn for an answer that has just come; answers the turn and the latency to record."""
        self._known_ms = max(question_ms + latency_ms, self._known_ms + 1)
        self._taken += 1
        return self._taken, self._known_ms - question_ms

    @asynccontextmanager
    async def hear(self, turn: int) -> AsyncIterator[None]:
        """Wait until every turn before this one is over."""
        async with self._moved:
            while self._heard < turn - 1:
                await self._moved.wait()
        yield
        async with self._moved:
            self._heard = turn
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
        self._put, self._take = anyio.create_memory_object_stream[tuple[Any, Question]](
            QUESTIONS_MAX
        )

    def wrap(self, journal: Journal) -> Journal:
        """The journal to append to; the recorded past is remembered at once."""
        own = self._service.journal
        after = max(0, own.seq - EVENTS_REMEMBERED)
        recent = Recent(journal, read_events(own.engine, own.run_id, after=after))
        self._desk = Desk(self._service.engine, recent.bars, self._advisor, Open())
        return recent

    async def ask(self, questions: Records) -> None:
        """Put the case of each as the state stands now, and leave it to ``run``."""
        for row in questions.copy():
            self._put.send_nowait((row, self._desk.question(row)))

    async def run(self) -> None:
        """Have questions answered, all at once as far as the services allow."""
        self._turns = Turns()
        async with anyio.create_task_group() as group, self._take.clone() as questions:
            async for row, question in questions:
                group.start_soon(self._answer, row, question)

    async def close(self) -> None:
        """The loop has ended: let go of the models."""
        self._put.close()
        self._take.close()
        await self._advisor.close()

    async def _answer(self, row: Any, question: Question) -> None:
        turns, taken = self._turns, 0

        def place(latency_ms: int) -> int:
            nonlocal taken
            taken, latency_ms = turns.take(question.ts, latency_ms)
            return latency_ms

        reply = await self._advisor.ask(question, place)
        if not taken:  # the cassette knew
            place(reply.latency_ms)
        async with turns.hear(taken):
            await self._tell(row, reply)

    async def _tell(self, row: Any, reply: Reply) -> None:
        """Journal the call, then let the loop hear the answer."""
        journal, call = self._service.journal, [(int(row["order"]), reply)]
        await to_thread.run_sync(write_calls, journal.engine, journal.run_id, call)
        log.info(
            "answered",
            book=reply.question.book,
            instrument=reply.question.instrument,
            question=int(row["order"]),
            model=reply.model,
            prompt=reply.prompt,
            outcome=reply.outcome.value,
            latency_ms=reply.latency_ms,
            cost_micros=reply.cost_micros,
        )
        self.ended(reply)
        await self._service.inbox.put(self._desk.opinion(row, reply))
