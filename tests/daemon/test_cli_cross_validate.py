"""``lockstep cross-validate``: its paths, its trials in the ledger, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_calls import call, desk, refuse, succeed
from shard_world import finish, kill, start

from backtest.validation.returns import read_returns
from daemon.journal import open_journal
from daemon.journal.trials import trial_ledger
from markets.export import write
from markets.synthetic import sample

__all__ = ["desk"]

JOURNAL = "sqlite:///journal.sqlite"
CROSS = ("cross-validate", "--strategy", "trend", "--data", "SOL-PERP.feather")
CROSS += ("--groups", "4", "--set", "fast=5:25:10", "--set", "slow=50,100", "--journal", JOURNAL)
CROSS += ("--purge", "1h", "--embargo", "2h")
COMBINATIONS, PIECES = 6, 7
"""Of four groups with two tested, the pieces are the four by themselves and the three pairs of
neighbours."""


@pytest.fixture
def market(desk: Path) -> Path:
    """Eight days of minutes."""
    for name, history in sample(bars=11_520).items():
        write(history, desk / f"{name}.feather")
    return desk


def counted() -> tuple[int, tuple[str, ...]]:
    engine = open_journal(JOURNAL)
    history = trial_ledger(engine).history()
    engine.dispose()
    return history.count, history.running


def pieces_of(told: Any) -> set[tuple[int, int]]:
    return {(begin, end) for split in told["splits"] for begin, end in split["pieces"]}


def test_it_leaves_paths_trials_returns_and_a_page(market: Path) -> None:
    words = (*CROSS, "--returns", "c.npz", "--report", "c.html", "--json")
    told = succeed(*words).json
    assert (told["combinations"], len(told["splits"]), len(told["paths"])) == (6, 6, 3)
    assert [len(path["splits"]) for path in told["paths"]] == [4, 4, 4]
    low, middle, high = told["spread"]["sharpe"].values()
    assert low <= middle <= high
    assert "data-chart" in Path("c.html").read_text("utf-8")
    trials = PIECES * COMBINATIONS + 1
    assert len(pieces_of(told)) == PIECES
    assert counted() == (trials, ())
    found = read_returns(Path("c.npz"))
    assert found.returns.shape == (8, 1)
    paths = np.mean([1 + path["return"] for path in told["paths"]])
    assert np.prod(1 + found.returns.astype(float)) == pytest.approx(paths, abs=1e-6)
    verdict = call("validate", "c.npz", "--journal", JOURNAL, "--json").json
    assert (verdict["trials"], verdict["days"]) == (trials, 8)


def test_told_twice_it_is_counted_once_and_fits_on_a_screen(market: Path) -> None:
    first = succeed(*CROSS, "--json", "--threads", "1").json
    count = counted()
    assert succeed(*CROSS, "--json", "--threads", "2").json == first
    out = succeed(*CROSS).out
    assert counted() == count
    assert max(map(len, out.splitlines())) <= 80
    assert "6 splits, each the best of 6 on 2 of 4 groups" in out
    assert "Sharpe of the paths: median" in out


def test_the_chosen_of_a_split_of_one_piece_is_what_a_sweep_finds_best(market: Path) -> None:
    told = succeed(*CROSS, "--json").json
    split = next(each for each in told["splits"] if each["tests"] == [2, 3])
    ((begin, end),) = split["pieces"]
    swept = ("sweep", *CROSS[1:5], *CROSS[7:13], "--timerange", f"{begin}-{end}", "--json")
    best = succeed(*swept).json["best"][0]
    assert best["params"] == split["params"]
    assert best["metrics"]["sharpe"] == pytest.approx(split["in_sample"]["sharpe"], rel=1e-9)


def test_fits_done_by_a_worker_are_those_done_here(market: Path) -> None:
    here = succeed(*CROSS, "--json").json
    at = CROSS.index(JOURNAL)
    elsewhere = (*CROSS[:at], "sqlite:///other.sqlite", *CROSS[at + 1 :])
    worker = start(market, "worker", "--journal", "sqlite:///other.sqlite")
    try:
        there = json.loads(finish(start(market, *elsewhere, "--shards", "--json")))
    finally:
        kill(worker)
    assert there == here
    engine = open_journal("sqlite:///other.sqlite")
    assert trial_ledger(engine).history().count == counted()[0]
    engine.dispose()


def test_what_is_wrong_is_one_line(market: Path) -> None:
    assert "not a duration" in refuse(2, *CROSS, "--embargo", "soon")
    assert "instrument to hold out" in refuse(2, *CROSS, "--hold-out", "SOL")
    assert "did you mean 'sharpe'" in refuse(2, *CROSS, "--metric", "sharp")
    assert "choose at least one, and not all" in refuse(2, *CROSS, "--test-groups", "4")
    assert "nothing to fit on" in refuse(2, *CROSS, "--embargo", "30d", "--test-groups", "3")
    assert "184,756 splits" in refuse(2, *CROSS, "--groups", "20", "--test-groups", "10")
