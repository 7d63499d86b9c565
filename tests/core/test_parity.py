"""One loop: any cut into blocks, any process, compiled or interpreted, gives the same bytes."""

import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import SHELF, shelf_run, shelf_setup, shelf_world

from backtest.replay import replay
from backtest.run import Run
from markets.history import History, crop

BARS = 1_500


@cache
def whole(name: str) -> Run:
    return shelf_run(name, BARS, cuts=())


def equal(a: Run, b: Run) -> bool:
    same_rows = a.outcomes.tobytes() == b.outcomes.tobytes()
    return same_rows and a.track.tobytes() == b.track.tobytes() and a.digests == b.digests


@pytest.mark.parametrize("name", SHELF)
def test_every_strategy_of_the_shelf_decides_and_trades(name: str) -> None:
    assert whole(name).digests[0] != 0
    assert len(whole(name).trades) > 0


@pytest.mark.parametrize("name", SHELF)
def test_blocks_of_one_event_change_nothing(name: str) -> None:
    assert equal(shelf_run(name, BARS, cuts=range(1, len(whole(name).block))), whole(name))


@pytest.mark.parametrize("name", SHELF)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_random_cuts_change_nothing(name: str, data: st.DataObject) -> None:
    length = len(whole(name).block)
    cuts = data.draw(st.lists(st.integers(1, length - 1), unique=True, max_size=40).map(sorted))
    assert equal(shelf_run(name, BARS, cuts=cuts), whole(name))


def before(run: Run, ts: int) -> np.ndarray:
    """What a run did at events known by ``ts``."""
    return run.outcomes[run.outcomes["ts"] <= ts]


@pytest.mark.parametrize("name", SHELF)
@pytest.mark.parametrize("share", [0.31, 0.5, 0.77, 0.98])
def test_truncating_the_future_changes_no_past_decision(name: str, share: float) -> None:
    world = shelf_world(name, BARS)
    first = next(iter(world.values()))
    start, end = first.quality.first_ms, first.quality.last_ms
    cut = start + int((end - start) * share) // 60_000 * 60_000
    past = {symbol: crop(history, None, cut) for symbol, history in world.items()}
    run = replay(shelf_setup(name), past)
    assert run.outcomes.tobytes() == before(whole(name), cut).tobytes()


PLANT = """
from enum import IntEnum
from core.strategy import Strategy
class Reason(IntEnum):
    PEEK = 1
FUTURE = {future!r}
seen = []
def decide(f, position, p):
    seen.append(f.close)
    ahead = len(seen)
    return (1.0 if FUTURE[min(ahead, len(FUTURE) - 1)] > f.close else -1.0), 1.0, Reason.PEEK
PEEKING = Strategy(name="peeking", decide=decide, reasons=Reason, features={{"close": "close"}},
                   compiled=False)
"""


def peeking_run(history: History) -> Run:
    from worlds import one_book, play

    space: dict[str, object] = {}
    exec(PLANT.format(future=[float(x) for x in history.bars["close"]]), space)
    return play(history, one_book(space["PEEKING"]))  # type: ignore[arg-type]


def test_a_strategy_that_reads_ahead_is_caught_by_truncation() -> None:
    from worlds import walk

    history = walk(400)
    cut = history.quality.first_ms + 200 * 60_000
    full, past = peeking_run(history), peeking_run(crop(history, None, cut))
    assert past.outcomes.tobytes() != before(full, cut).tobytes()


def elsewhere(interpreted: bool, bars: int) -> dict[str, str]:
    """Hashes of every strategy of the shelf, from a process of its own."""
    code = (
        "import json,sys; from shelf import SHELF, shelf_run;"
        f"print(json.dumps({{n: shelf_run(n, {bars}).decisions_hash for n in SHELF}}))"
    )
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(["tests", "."]), PYTHONHASHSEED="7")
    if interpreted:
        env["NUMBA_DISABLE_JIT"] = "1"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hashes: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return hashes


def test_another_process_gives_the_same_hashes() -> None:
    assert elsewhere(False, 600) == {name: shelf_run(name, 600).decisions_hash for name in SHELF}


def test_the_interpreter_gives_the_same_hashes_as_the_compiler() -> None:
    assert elsewhere(True, 600) == {name: shelf_run(name, 600).decisions_hash for name in SHELF}


# a rule program has no plain form: its interpreter is compiled
@pytest.mark.parametrize("name", [name for name in SHELF if SHELF[name][0].program is None])
def test_plain_python_gives_the_same_decisions_as_compiled(name: str) -> None:
    plain = shelf_run(name, 600, plain=True)
    assert list(plain.plain) == [name]
    assert equal(plain, shelf_run(name, 600))
