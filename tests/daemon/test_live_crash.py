"""kill -9 at every boundary of the journal and of sending: nothing lost or twice, the state as if
unbroken."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from crash_nursery import Nursery, opened
from live_child import BARS, RUN, STRATEGY, tape
from shelf import shelf_run
from standin_venue import StandinVenue
from venue_child import BARS as BARS_OUTSIDE
from venue_child import STRATEGY as STRATEGY_OUTSIDE
from venue_child import setup as outside_setup

from core.model import Kind, Records, Result
from daemon.journal import open_journal, read_events, read_outcomes, read_run_row, sqlite_url

FOLDER = Path(__file__).parent
KILLS = int(os.environ.get("LOCKSTEP_KILLS", "60"))
"""60 in the test command; LOCKSTEP_KILLS=1000 is the long form."""

JOURNAL = ("before", "inside", "after")
SENDING = ("unsent", "unanswered", "unjournaled")
KILLS_A_LIFE = 10
"""Of a run with a venue: more of them would find no more orders."""
KILLS_EACH = -(-KILLS // len((*JOURNAL, *SENDING)))


def child(*words: object) -> int:
    """A daemon started from nothing."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / "live_child.py"), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def recorded(journal: Path) -> tuple[Records, Records]:
    """Events and outcomes; each bar is there once, and each order approved once."""
    database = open_journal(sqlite_url(journal))
    events, outcomes = read_events(database, RUN), read_outcomes(database, RUN)
    assert read_run_row(database, RUN).recorded == len(events)
    database.dispose()
    approved = outcomes[outcomes["kind"] == Result.APPROVED]["order"]
    assert len(np.unique(approved)) == len(approved) > 0
    bars = events[events["kind"] == Kind.BAR]
    assert len(np.unique(bars[["instrument", "ts_known"]])) == len(bars)
    return events, outcomes


def unbroken(journal: Path) -> None:
    """The journal holds exactly what a replay of the whole tape says."""
    events, outcomes = recorded(journal)
    assert events.tobytes() == tape().tobytes()
    assert outcomes.tobytes() == shelf_run(STRATEGY, BARS).outcomes.tobytes()


def settled(journal: Path, venue: StandinVenue) -> None:
    """The journal and the venue's own book tell of the same orders and fills, each once."""
    events, outcomes = recorded(journal)
    approved = outcomes[outcomes["kind"] == Result.APPROVED]
    sent = [(order["order"], order["quantity"]) for order in venue.orders.values()]
    assert sorted(sent) == list(zip(approved["order"], approved["quantity"], strict=True))
    fills = events[events["kind"] == Kind.FILL]
    names = ("order", "fill_quantity", "fill_price")
    told = [(fill["order"], fill["quantity"], fill["price"]) for fill in venue.fills]
    assert sorted(told) == sorted(zip(*(fills[name] for name in names), strict=True))
    of_tape = events[events["kind"] != Kind.FILL]
    assert of_tape.tobytes() == tape(STRATEGY_OUTSIDE, BARS_OUTSIDE).tobytes()
    lots = [instrument.lot for instrument in outside_setup().instruments]
    for book, lot in enumerate(lots):
        last = outcomes[(outcomes["kind"] == Result.FILL) & (outcomes["book"] == book)][-1]
        after = last["position"]
        held = sum(fill["quantity"] for fill in venue.fills if fill["instrument"] == book)
        assert abs(held - after) < lot / 2


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where the daemons that are killed come from."""
    with opened(tmp_path_factory.mktemp("nursery") / "errors", "live", "venue") as made:
        yield made


@pytest.fixture(scope="module")
def never_killed(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Records, Records]:
    """What a run with a venue outside records when nothing happens to it."""
    journal = tmp_path_factory.mktemp("unbroken") / "j.sqlite"
    with StandinVenue().open() as venue:
        assert nursery.run("venue", journal, venue.port) == 0
        settled(journal, venue)
    return recorded(journal)


def test_a_run_without_a_crash_is_the_replay_of_its_tape(tmp_path: Path) -> None:
    assert child(tmp_path / "j.sqlite") == 0
    unbroken(tmp_path / "j.sqlite")


def test_a_run_that_ended_goes_on_from_where_it_stood(tmp_path: Path) -> None:
    assert child(tmp_path / "j.sqlite") == 0
    assert child(tmp_path / "j.sqlite") == 0
    unbroken(tmp_path / "j.sqlite")


@pytest.mark.slow
@pytest.mark.parametrize("boundary", JOURNAL)
def test_killed_again_and_again_it_ends_as_if_unbroken(
    boundary: str, tmp_path: Path, nursery: Nursery
) -> None:
    chance = random.Random(boundary)
    steps = -(-BARS // KILLS_EACH)
    for _ in range(KILLS_EACH):
        count = chance.randint(1, steps)
        assert nursery.run("live", tmp_path / "j.sqlite", boundary, count) == -9
    assert nursery.run("live", tmp_path / "j.sqlite") == 0
    unbroken(tmp_path / "j.sqlite")


@pytest.mark.slow
@pytest.mark.parametrize("boundary", SENDING)
def test_killed_while_sending_no_order_is_doubled_or_lost(
    boundary: str, tmp_path: Path, nursery: Nursery, never_killed: tuple[Records, Records]
) -> None:
    chance = random.Random(boundary)
    orders = int((never_killed[1]["kind"] == Result.APPROVED).sum())
    for life in range(-(-KILLS_EACH // KILLS_A_LIFE)):
        journal = tmp_path / f"{life}.sqlite"
        with StandinVenue().open() as venue:
            for _ in range(KILLS_A_LIFE):
                count = chance.randint(1, orders // KILLS_A_LIFE)
                assert nursery.run("venue", journal, venue.port, boundary, count) == -9
            assert nursery.run("venue", journal, venue.port) == 0
            settled(journal, venue)
        for ours, theirs in zip(recorded(journal), never_killed, strict=True):
            assert ours.tobytes() == theirs.tobytes()
