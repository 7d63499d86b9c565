"""The stopwatch: each second of a tick goes to its stage, and waiting is no part of one."""

from collections.abc import AsyncIterator

import anyio
import pytest
from observed_world import watched

from core.model import OUTCOME, Records
from daemon.observe.meters import Stage
from daemon.observe.stopwatch import Stopwatch, Tick


class World:
    """A clock that moves when the loop, its feed or its journal does something."""

    now_s = 0.0

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.begun: list[int] = []
        self.waited: list[bool] = []
        block = watched().block[:6]
        self.watch = Stopwatch(
            self._feed([block[:2], block[2:6]]),
            self,
            lambda events: self.begun.append(len(events)),
            self.ticks.append,
            lambda: self.now_s,
        )

    async def _feed(self, blocks: list[Records]) -> AsyncIterator[Records]:
        for block in blocks:
            self.waited.append(self.watch.waiting)
            self.now_s += 1_000.0
            yield block

    async def append(self, _events: Records, _outcomes: Records, _track: Records) -> None:
        self.now_s += 10.0

    async def loop(self, steps: int) -> None:
        """As ``core.loop`` does, with that many steps a block."""
        async for block in self.watch:
            assert not self.watch.waiting
            rows = len(block) // steps
            for at in range(0, len(block), rows):
                self.now_s += 1.0
                part = block[at : at + rows]
                outcomes = watched().outcomes[:3]
                await self.watch.append(part, outcomes, watched().ticks[0].track[:rows])
                self.now_s += 100.0


def test_each_stage_has_its_time() -> None:
    world = World()
    anyio.run(world.loop, 1)
    wanted = {Stage.ADVANCE: 1.0, Stage.JOURNAL: 10.0, Stage.SUBMIT: 100.0}
    assert [tick.seconds for tick in world.ticks] == [wanted, wanted]
    assert world.begun == [len(tick.events) for tick in world.ticks] == [2, 4]
    assert world.waited == [True, True]


def test_a_block_of_several_steps_is_one_tick() -> None:
    """From the second step on the step itself counts with the sending before it."""
    world = World()
    anyio.run(world.loop, 2)
    wanted = {Stage.ADVANCE: 1.0, Stage.JOURNAL: 20.0, Stage.SUBMIT: 201.0}
    assert [tick.seconds for tick in world.ticks] == [wanted, wanted]
    assert [len(tick.track) for tick in world.ticks] == [2, 4]


def test_a_tick_keeps_outcomes_that_the_engine_overwrites() -> None:
    world = World()
    outcomes = watched().outcomes[:3].copy()

    async def loop() -> None:
        async for block in world.watch:
            await world.watch.append(block, outcomes, watched().ticks[0].track[: len(block)])
            outcomes[:] = 0

    anyio.run(loop)
    assert world.ticks[0].outcomes.tobytes() == watched().outcomes[:3].tobytes()
    assert world.ticks[0].outcomes.dtype == OUTCOME


def test_a_journal_that_fails_ends_the_loop_and_no_tick() -> None:
    world = World()

    async def refuse(*_: Records) -> None:
        raise OSError("disk full")

    world.append = refuse  # type: ignore[method-assign]
    with pytest.raises(OSError, match="disk full"):
        anyio.run(world.loop, 1)
    assert world.ticks == []
