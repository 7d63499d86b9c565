"""What a tick was and how long each stage took, seen from the two ports the loop already has.

The loop and the step know no clock, so the time is taken outside of them: a tick begins when the
loop is given a block and ends when it asks for the next one. In between, what passes before the
journal is called is the step, then the journal, then what was handed to a venue. Where a block took
several steps, those after the first count with the handing over before them.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from core.model import EVENT, OUTCOME, TRACK, Records, joined
from core.ports import Feed, Journal
from daemon.observe.meters import Stage

Seconds = Callable[[], float]


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """A block of events, all that came of it, and the seconds each stage took."""

    events: Records
    outcomes: Records
    track: Records
    seconds: Mapping[Stage, float]


class Stopwatch:
    """Stands between the loop and its feed and journal, as both of them.

    ``begun`` is called with each block before the loop gets it, ``ended`` with the finished tick;
    both in the loop's own task, and neither may raise.
    """

    def __init__(
        self,
        feed: Feed,
        journal: Journal,
        begun: Callable[[Records], None],
        ended: Callable[[Tick], None],
        clock_s: Seconds = time.perf_counter,
    ) -> None:
        self._feed, self._journal = feed, journal
        self._begun, self._ended = begun, ended
        self._clock_s = clock_s
        self._stages = dict.fromkeys(Stage, 0.0)
        self._outcomes: list[Records] = []
        self._track: list[Records] = []
        self._lap_s = 0.0
        self._rewound = 0
        self.waiting = False
        """Whether the loop is waiting for events: then nothing of it can hang."""

    async def __aiter__(self) -> AsyncIterator[Records]:
        self.waiting = True
        async for block in self._feed:
            self.waiting = False
            self._begin(block)
            yield block
            self._end(block)
            self.waiting = True

    def rewind(self, events: int) -> None:
        """Give back the last events of the block; they are not of this tick."""
        self._rewound = events
        self._feed.rewind(events)

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        """Let the journal keep them, and take the time it needs."""
        self._lap(Stage.SUBMIT if self._track else Stage.ADVANCE)
        await self._journal.append(events, outcomes, track)
        self._outcomes.append(joined([outcomes], OUTCOME))
        self._track.append(track)
        self._lap(Stage.JOURNAL)

    def _begin(self, block: Records) -> None:
        self._begun(block)
        self._stages = dict.fromkeys(Stage, 0.0)
        self._outcomes, self._track = [], []
        self._rewound = 0
        self._lap_s = self._clock_s()

    def _lap(self, stage: Stage) -> None:
        now_s = self._clock_s()
        self._stages[stage] += now_s - self._lap_s
        self._lap_s = now_s

    def _end(self, block: Records) -> None:
        self._lap(Stage.SUBMIT)
        outcomes, track = joined(self._outcomes, OUTCOME), joined(self._track, TRACK)
        events = joined([block[: len(block) - self._rewound]], EVENT)
        self._ended(Tick(events, outcomes, track, self._stages))
