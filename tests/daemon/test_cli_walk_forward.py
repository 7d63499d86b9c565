"""``lockstep walk-forward``: its windows, its trials in the ledger, and its fits done elsewhere."""

import json
from pathlib import Path

import pytest
from cli_calls import call, desk, refuse, succeed
from shard_world import finish, kill, start

from daemon.journal import open_journal
from daemon.journal.trials import trial_ledger
from markets.export import write
from markets.synthetic import sample

__all__ = ["desk"]

JOURNAL = "sqlite:///journal.sqlite"
WALK = ("walk-forward", "--strategy", "trend", "--data", "SOL-PERP.feather")
WALK += ("--train", "4d", "--test", "2d", "--set", "fast=5:25:10", "--set", "slow=50,100")


@pytest.fixture
def market(desk: Path) -> Path:
    """Ten days of minutes: three windows."""
    for name, history in sample(bars=14_400).items():
        write(history, desk / f"{name}.feather")
    return desk


def test_a_walk_leaves_windows_trials_returns_and_a_page(market: Path) -> None:
    words = (*WALK, "--journal", JOURNAL)
    told = succeed(*words, "--returns", "w.npz", "--report", "w.html", "--json").json
    assert (told["combinations"], len(told["windows"])) == (6, 3)
    first = told["windows"][0]
    assert set(first["params"]) == {"fast", "slow"}
    assert first["train_end_ms"] < first["begin_ms"]
    assert "data-chart" in Path("w.html").read_text("utf-8")
    engine = open_journal(JOURNAL)
    history = trial_ledger(engine).history()
    engine.dispose()
    assert (history.count, history.running) == (3 * 6 + 1, ())
    verdict = call("validate", "w.npz", "--journal", JOURNAL, "--json").json
    assert verdict["trials"] == 3 * 6 + 1
    assert verdict["days"] == 6
    out = succeed(*words).out
    assert max(map(len, out.splitlines()[:5])) <= 80
    assert "3 windows, each the best of 6 on what came before" in out


def test_the_chosen_of_a_window_is_what_a_sweep_over_its_training_finds_best(market: Path) -> None:
    window = succeed(*WALK, "--journal", JOURNAL, "--json").json["windows"][0]
    span = f"{window['train_begin_ms']}-{window['train_end_ms']}"
    swept = ("sweep", *WALK[1:5], *WALK[9:], "--timerange", span, "--journal", JOURNAL)
    best = succeed(*swept, "--json").json["best"][0]
    assert (best["params"], best["metrics"]) == (window["params"], window["in_sample"])


def test_fits_done_by_a_worker_are_those_done_here(market: Path) -> None:
    here = succeed(*WALK, "--journal", JOURNAL, "--json").json
    elsewhere = ("--journal", "sqlite:///other.sqlite")
    worker = start(market, "worker", *elsewhere)
    try:
        there = json.loads(finish(start(market, *WALK, *elsewhere, "--shards", "--json")))
    finally:
        kill(worker)
    assert there == here


def test_what_is_wrong_is_one_line(market: Path) -> None:
    words = (*WALK, "--journal", JOURNAL)
    assert "not a duration" in refuse(2, *words, "--embargo", "soon")
    assert "instrument to hold out" in refuse(2, *words, "--hold-out", "SOL")
    assert "did you mean 'sharpe'" in refuse(2, *words, "--metric", "sharp")
    assert "shorter than the first training" in refuse(2, *words, "--train", "600d")
    held = (*words, "--data", "BTC-PERP.feather", "--hold-out", "BTC-PERP", "--json")
    assert succeed(*held).json["terms"]["held_out"] == ["BTC-PERP"]


def test_a_share_of_the_instruments_is_held_out_by_name(market: Path) -> None:
    both = (*WALK, "--data", "BTC-PERP.feather", "--journal", JOURNAL, "--json")
    (chosen,) = succeed(*both, "--hold-out", "40%").json["terms"]["held_out"]
    told = succeed("cross-validate", *both[1:5], *both[9:], "--groups", "3", "--hold-out", "40%")
    assert told.json["terms"]["held_out"] == [chosen]
    assert "between 0 and 1" in refuse(2, *both, "--hold-out", "100%")
    assert "instrument to hold out" in refuse(2, *both, "--hold-out", "x%")
