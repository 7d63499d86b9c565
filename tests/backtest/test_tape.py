"""The tape: what has been played of it is found again, wherever it stands."""

import anyio
import numpy as np
from worlds import MINUTE, START, walk

from backtest.replay import Tape
from core.events import make_events
from core.model import Kind, Records
from markets.history import assemble, merge, select

STEP = 7


def world() -> Records:
    """Three instruments whose bars stand among quotes; the last has but one."""
    quotes = make_events(Kind.QUOTE, START + 5_000 + MINUTE * np.arange(40), mark=np.ones(40))
    histories = [walk(40), walk(25, seed=2), walk(1, seed=3)]
    noisy = [assemble([one.events, quotes], MINUTE, one.quality) for one in histories]
    return merge(noisy)


def newest(past: Records, instrument: int, most: int) -> bytes:
    mine = (past["kind"] == Kind.BAR) & (past["instrument"] == instrument)
    return select(past, np.flatnonzero(mine)[-most:]).tobytes()


def test_the_newest_bars_are_those_played_and_no_others() -> None:
    block = world()
    tape = Tape(block, range(STEP, len(block), STEP))

    def look(at: int) -> None:
        for instrument in range(4):
            for most in (1, 5, 1_000):
                told = tape.bars(instrument, most)
                assert told.tobytes() == newest(block[:at], instrument, most)

    async def play() -> None:
        at = 0
        look(at)
        async for played in tape:
            at += len(played)
            look(at)
        assert at == len(block)

    anyio.run(play)
    tape.rewind(3 * STEP)
    look(len(block) - 3 * STEP)
