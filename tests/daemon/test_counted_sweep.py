"""A sweep counts itself: every combination a trial of the ledger, its returns read by the gate."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_calls import call, desk, refuse, succeed
from shard_world import kill, start, until
from worlds import one_book, walk

from backtest.sweep.counting import LedgerTrials
from backtest.sweep.rows import Row
from backtest.sweep.sweep import GROUP, Subject
from backtest.validation.ledger import Fate, History, LedgerBroken
from backtest.validation.returns import read_returns
from daemon.journal import open_journal
from daemon.journal.trials import trial_ledger
from markets.export import write
from markets.synthetic import sample
from strategies.trend import TREND

__all__ = ["desk"]

JOURNAL = "sqlite:///journal.sqlite"
SWEEP = ("sweep", "--strategy", "trend", "--data", "SOL-PERP.feather", "--journal", JOURNAL)
RANGES = ("--set", "fast=5:15:5", "--set", "slow=20,40")


@pytest.fixture
def market(desk: Path) -> Path:
    """Ten days of minutes."""
    write(sample(bars=14_400)["SOL-PERP"], desk / "SOL-PERP.feather")
    return desk


def history() -> History:
    engine = open_journal(JOURNAL)
    try:
        return trial_ledger(engine).history()
    finally:
        engine.dispose()


def test_what_a_sweep_leaves_is_what_validate_reads(market: Path) -> None:
    told = succeed(*SWEEP, *RANGES, "--returns", "r.npz", "--json").json
    verdict = call("validate", "r.npz", "--journal", JOURNAL, "--json")
    assert verdict.code == 1, verdict.err  # noise does not pass
    assert verdict.json["trials"] == told["combinations"] == 6
    found = read_returns(Path("r.npz"))
    assert found.study == f"sweep-{told['sweep']}"
    assert found.returns.shape == (verdict.json["days"], 6)
    counted = history()
    assert counted.running == ()
    endings = counted.results(found.study)
    assert set(endings) == set(found.trials)
    best = told["best"][0]
    candidate = endings[verdict.json["candidate"]]
    assert candidate.decisions_hash in {row["decisions_hash"] for row in told["best"]}
    assert best["decisions_hash"] in {ending.decisions_hash for ending in endings.values()}


def test_a_sweep_done_again_is_not_counted_twice(market: Path) -> None:
    for again in ((), ("--resume",), ("--returns", "r.npz", "--resume")):
        succeed(*SWEEP, *RANGES, *again, "--json")
        assert history().count == 6
    assert call("validate", "r.npz", "--journal", JOURNAL, "--json").json["trials"] == 6
    succeed(*SWEEP, "--set", "fast=5:15:5", "--json")
    assert history().count == 9


def test_rows_another_journal_counted_are_told_to_this_one(market: Path) -> None:
    succeed(*SWEEP, *RANGES, "--json")
    other = (*SWEEP[:-1], "sqlite:///other.sqlite")
    assert succeed(*other, *RANGES, "--resume", "--returns", "r.npz", "--json").json["resumed"] == 6
    verdict = call("validate", "r.npz", "--journal", "sqlite:///other.sqlite", "--json")
    assert verdict.json["trials"] == 6


def test_without_its_journal_a_sweep_does_not_begin(market: Path) -> None:
    nowhere = (*SWEEP[:-1], "postgresql://nobody@/nothing?host=/nowhere")
    refuse(7, *nowhere, *RANGES)
    assert not (market / "runs").exists()


def midway(search: Any) -> bool:
    """Whether trials of a second group have begun and not ended; the search is stopped if so."""
    search.send_signal(signal.SIGSTOP)
    with closing(sqlite3.connect("journal.sqlite")) as database, database:
        query = "SELECT sum(not ended), sum(ended) FROM trial_ledger"
        try:
            begun, ended = database.execute(query).fetchone()
        except sqlite3.OperationalError:
            begun = ended = 0
    database.close()
    found = (begun or 0) > GROUP and begun > (ended or 0)
    if not found:
        search.send_signal(signal.SIGCONT)
    return found


def test_a_sweep_killed_at_work_leaves_a_ledger_that_its_resumption_ends(market: Path) -> None:
    words = (*SWEEP, "--set", "fast=5:64:1", "--set", "slow=80:130:1", "--json")
    search = start(market, *words)
    until(lambda: midway(search), "a second group has begun, so the first is kept")
    kill(search)
    assert len(history().running) > 0
    told = succeed(*words, "--resume", "--returns", "r.npz").json
    assert 0 < told["resumed"] < told["combinations"] == 60 * 51
    assert (history().count, history().running) == (60 * 51, ())
    assert call("validate", "r.npz", "--journal", JOURNAL, "--json").json["trials"] == 60 * 51


def subject() -> Subject:
    return Subject(setup=one_book(TREND), books=frozenset(["book"]), histories={"X": walk(300)})


def row(fast: float, **more: Any) -> Row:
    daily = np.array([10_000_000_000, 10_001_000_000])
    return Row(place=0, params={"fast": fast}, decisions_hash="d", daily_micros=daily, **more)


def test_a_trial_ends_as_it_did_and_a_crash_is_a_trial_of_its_own(desk: Path) -> None:
    engine, clock = open_journal(JOURNAL), [0]
    ledger = trial_ledger(engine)

    def told() -> LedgerTrials:
        return LedgerTrials(ledger, subject(), "s", now_ms=lambda: clock[0])

    first = told()
    first.on_trials_begin([{"fast": 5.0}, {"fast": 6.0}])
    first.on_trials_end([row(5.0)])
    # killed here: one that took up the open trial ends it
    told().on_trials_begin([{"fast": 6.0}])
    assert ledger.history().count == 2
    clock[0] = 4_000_000
    assert len(ledger.sweep_up(now_ms=clock[0])) == 1
    late = told()
    late.on_trials_begin([{"fast": 5.0}, {"fast": 6.0}])
    late.on_trials_end([row(5.0), row(6.0)])
    # and the first, which was only slow, comes back with the same
    first.on_trials_end([row(6.0)])
    found = ledger.history()
    assert (found.count, found.running) == (3, ())
    fates = [ending.fate for ending in found.endings.values()]
    assert sorted(fates) == [Fate.CRASHED, Fate.RESULT, Fate.RESULT]
    with pytest.raises(LedgerBroken, match="equal causes must give equal results"):
        told().on_trials_end([row(5.0, metrics={}, error="failed now")])
    engine.dispose()


def test_a_combination_that_fails_ends_as_failed(desk: Path) -> None:
    engine = open_journal(JOURNAL)
    ledger = trial_ledger(engine)
    trials = LedgerTrials(ledger, subject(), "s", now_ms=lambda: 0)
    trials.on_trials_begin([{"fast": 5.0}])
    trials.on_trials_end([Row(place=0, params={"fast": 5.0}, error="target must lie in [-1, 1]")])
    (ending,) = ledger.history().endings.values()
    assert (ending.fate, ending.note) == (Fate.FAILED, "target must lie in [-1, 1]")
    engine.dispose()
