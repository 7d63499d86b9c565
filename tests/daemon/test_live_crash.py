"""kill -9 at every boundary of the journal: nothing lost or twice, the state as if unbroken."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from live_child import BARS, RUN, STRATEGY, tape
from shelf import shelf_run

from core.model import Kind, Result
from daemon.journal import open_journal, read_events, read_outcomes, read_run_row, sqlite_url

CHILD = Path(__file__).with_name("live_child.py")
KILLS = int(os.environ.get("LOCKSTEP_KILLS", "60"))
"""60 in the test command; LOCKSTEP_KILLS=1000 is the long form."""


def child(journal: Path, *words: object) -> int:
    done = subprocess.run(
        [sys.executable, str(CHILD), str(journal), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def unbroken(journal: Path) -> None:
    """The journal holds exactly what a replay of the whole tape says."""
    database = open_journal(sqlite_url(journal))
    events, outcomes = read_events(database, RUN), read_outcomes(database, RUN)
    whole = shelf_run(STRATEGY, BARS)
    assert events.tobytes() == tape().tobytes()
    assert outcomes.tobytes() == whole.outcomes.tobytes()
    approved = outcomes[outcomes["kind"] == Result.APPROVED]["order"]
    assert len(np.unique(approved)) == len(approved) > 0
    bars = events[events["kind"] == Kind.BAR]
    assert len(np.unique(bars[["instrument", "ts_known"]])) == len(bars)
    assert read_run_row(database, RUN).recorded == len(events)
    database.dispose()


def test_a_run_without_a_crash_is_the_replay_of_its_tape(tmp_path: Path) -> None:
    assert child(tmp_path / "j.sqlite") == 0
    unbroken(tmp_path / "j.sqlite")


def test_a_run_that_ended_goes_on_from_where_it_stood(tmp_path: Path) -> None:
    assert child(tmp_path / "j.sqlite") == 0
    assert child(tmp_path / "j.sqlite") == 0
    unbroken(tmp_path / "j.sqlite")


@pytest.mark.parametrize("boundary", ["before", "inside", "after"])
def test_killed_again_and_again_it_ends_as_if_unbroken(boundary: str, tmp_path: Path) -> None:
    chance = random.Random(boundary)
    kills = -(-KILLS // 3)
    steps = -(-BARS // kills)
    for _ in range(kills):
        assert child(tmp_path / "j.sqlite", boundary, chance.randint(1, steps)) == -9
    assert child(tmp_path / "j.sqlite") == 0
    unbroken(tmp_path / "j.sqlite")
