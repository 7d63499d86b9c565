"""Exactly once on Drift: kill -9 at every boundary, while both nodes have a bad day."""

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from crash_nursery import opened
from drift_child import SLOTS_PER_S
from standin_drift import spawn
from test_drift_end_to_end import Scene, agree, same_money

INTENTS = int(os.environ.get("LOCKSTEP_DRIFT_INTENTS", "300"))
"""300 in the test command; LOCKSTEP_DRIFT_INTENTS=20000 is the long form."""
DAEMONS = 2
"""At a time, each with a chain of its own: one alone mostly waits for its chain."""
INTENTS_A_KILL = 15
METHODS = ("append", "write_signed", "send", "put", "write_verdict")
BOUNDARIES = [f"{side}-{method}" for method in METHODS for side in ("before", "after")]
STANDIN = ("--slots-per-s", str(SLOTS_PER_S), "--slot-ms", "400", "--nodes", "2")


def bad_day(scene: Scene) -> None:
    """What nodes and their sockets do then, on both."""
    lost = {"drop_transaction": 0.2, "delay_transaction": 0.2, "delay_slots": 20}
    told = {"fail_transaction": 0.05, "hide_status": 0.1, "fork_transaction": 0.02}
    line = dict.fromkeys(("http_429", "http_500", "http_refused", "http_lost_answer"), 0.03)
    kinds = ("lose", "delay", "duplicate", "reorder")
    notices = {f"{kind}_notice": 0.1 for kind in kinds} | {"false_notice": 0.01}
    closed = {"close_clean": 0.05, "close_abrupt": 0.05}
    for node in range(len(scene.process.urls)):
        scene.desk.faults(node, **lost, **told, **line, **notices, **closed)
    scene.desk.faults(1, lag_slots=5, http_timeout=0.01)


def killed(folder: Path, number: int) -> Counter[str]:
    """A daemon's orders as they ended; it was killed again and again, and the journal is what the
    chain has."""
    place = folder / str(number)
    place.mkdir()
    bars, chance = INTENTS // DAEMONS * 11 // 20 + 10, random.Random(number)
    kills = max(INTENTS // DAEMONS // INTENTS_A_KILL // len(BOUNDARIES), 1)
    with spawn(*STANDIN, "--seed", str(number)) as process, opened(place / "err", "drift") as kin:
        scene = Scene(place, process)
        bad_day(scene)
        daemon = partial(kin.run, "drift", place, ",".join(process.urls), "script", bars)
        for boundary in BOUNDARIES * kills:
            assert daemon(boundary, chance.randint(1, INTENTS_A_KILL // 2)) == -9
        assert daemon() == 0
        same_money(scene)
        return agree(scene)


@pytest.mark.slow
def test_killed_at_every_boundary_on_a_bad_day_each_order_lands_as_it_is_told(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(DAEMONS) as pool:
        ended = sum(pool.map(partial(killed, tmp_path), range(DAEMONS)), Counter[str]())
    assert ended.total() >= INTENTS
    assert ended["filled"] > INTENTS // 2
