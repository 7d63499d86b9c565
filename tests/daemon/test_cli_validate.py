"""``lockstep validate`` as a person types it: a sweep's best, one replay, and what it refuses."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_calls import Answer, call, desk, refuse, succeed

from backtest.validation.ledger import Ending, Fate, Trial
from backtest.validation.returns import TrialReturns, returns_hash, write_returns
from daemon.journal import open_journal
from daemon.journal.trials import trial_ledger
from markets.export import write
from markets.synthetic import sample

__all__ = ["desk"]

pytestmark = pytest.mark.usefixtures("desk")

JOURNAL = "sqlite:///journal.sqlite"
DAYS, TRIALS = 1_095, 24


def searched(*, sharpe: float = 0.0, decisions: str = "") -> None:
    """A search of noise as a sweep leaves it in ``sweep.npz``; the first trial has an edge and
    these decisions."""
    rng = np.random.default_rng(7)
    returns = (0.01 * rng.standard_normal((DAYS, TRIALS))).astype(np.float32)
    returns[:, 0] += sharpe / 365**0.5 * 0.01
    engine = open_journal(JOURNAL)
    ledger = trial_ledger(engine)
    names = tuple(f"sweep-{k}" for k in range(TRIALS))
    ledger.begin([trial(name) for name in names], now_ms=0, lease_ms=1)
    ledger.end(
        [
            Ending(
                trial=name,
                fate=Fate.RESULT,
                returns_hash=returns_hash(column),
                decisions_hash=decisions if name == "sweep-0" else name,
            )
            for name, column in zip(names, returns.T, strict=True)
        ],
        now_ms=1,
    )
    days = np.arange(20_000, 20_000 + DAYS)
    found = TrialReturns(
        study="sweep", trials=names, days=days, returns=returns, head=ledger.head()
    )
    write_returns(Path("sweep.npz"), found)
    engine.dispose()


def trial(name: str) -> Trial:
    return Trial(
        id=name, study="sweep", params_hash=name, strategy_hash="s", data_hash="d", code="c"
    )


def validate(*words: object) -> Answer:
    return call("validate", *words, "--journal", JOURNAL)


def checks(answer: Answer) -> dict[str, Any]:
    return {check["name"]: check for check in answer.json["checks"]}


@pytest.fixture
def recorded(desk: Path) -> dict[str, Any]:
    """A recorded replay of six days."""
    write(sample(bars=9_000)["SOL-PERP"], desk / "SOL-PERP.feather")
    words = ("--strategy", "trend", "--data", "SOL-PERP.feather", "--set", "fast=5")
    result: dict[str, Any] = succeed(
        "replay", *words, "--to-journal", "--journal", JOURNAL, "--json"
    ).json
    return result


def test_noise_does_not_pass_and_the_table_fits() -> None:
    searched()
    answer = validate("sweep.npz")
    assert answer.code == 1
    assert "does not pass: 24 trials, 1,095 days" in answer.out
    assert "deflated Sharpe" in answer.out
    assert "FAIL" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80
    told = validate("sweep.npz", "--json")
    assert told.code == 1
    assert told.json["passed"] is False
    assert checks(told)["costs x2"]["passed"] is False


def test_an_edge_passes_what_does_not_need_its_replay(recorded: dict[str, Any]) -> None:
    searched(sharpe=5.0, decisions=recorded["decisions_hash"])
    alone = validate("sweep.npz", "--json")
    failed = {name for name, check in checks(alone).items() if check["passed"] is False}
    assert failed == {"costs x2", "one bar late", "fills missed"}
    shown = validate("sweep.npz", "--run", recorded["run_id"], "--json")
    told = checks(shown)
    assert shown.json["candidate"] == "sweep-0"
    ratios = [told[name]["value"] for name in ("costs x2", "costs x3", "one bar late")]
    assert None not in ratios
    assert len(set(ratios)) == 3
    assert told["costs x3"]["passed"] is None


def test_a_replay_that_no_ledger_counted_does_not_pass(recorded: dict[str, Any]) -> None:
    answer = validate("--run", recorded["run_id"], "--json")
    assert answer.code == 1
    told = checks(answer)
    assert told["in the ledger"]["passed"] is False
    assert "how many were tried" in told["in the ledger"]["why"]
    assert answer.json["trials"] == 1


def test_a_replay_that_was_counted_is_judged_by_all_that_were(recorded: dict[str, Any]) -> None:
    searched(decisions=recorded["decisions_hash"])
    answer = validate("--run", recorded["run_id"], "--json")
    assert checks(answer)["in the ledger"]["passed"] is True
    assert answer.json["trials"] == TRIALS
    assert checks(answer)["overfitting (PBO)"]["passed"] is False, "the other trials are not shown"


def test_a_page_is_written_that_loads_nothing(recorded: dict[str, Any], tmp_path: Path) -> None:
    searched(sharpe=5.0, decisions=recorded["decisions_hash"])
    validate("sweep.npz", "--report", "page/validation.html")
    page = Path("page/validation.html").read_text("utf-8")
    for anchor in ("logits-0", "scatter-0", "fan-0", "verdict-0"):
        assert f'id="{anchor}"' in page
    assert 'src="http' not in page


def test_a_ledger_cut_behind_the_file_is_refused() -> None:
    searched()
    with closing(sqlite3.connect("journal.sqlite")) as database, database:
        database.execute("DELETE FROM trial_ledger WHERE seq > 40")
        database.execute(
            "UPDATE trial_ledger_head SET count = 40,"
            " hash = (SELECT hash FROM trial_ledger WHERE seq = 40)"
        )
    database.close()
    said = refuse(6, "validate", "sweep.npz", "--journal", JOURNAL)
    assert "rows 41 to 48 were cut from its end" in said


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (2, (), "give the returns of a sweep, or --run RUN"),
        (2, ("--run", "x", "--trial", "sweep-1"), "give the sweep's returns too"),
        (2, ("sweep.npz", "--trial", "sweep-99"), "did you mean 'sweep-9'"),
        (2, ("--run", "nowhere"), "unknown run"),
        (3, ("absent.npz",), "no such file of returns"),
    ],
)
def test_what_makes_no_sense_is_refused(code: int, words: tuple[str, ...], expected: str) -> None:
    searched()
    assert expected in refuse(code, "validate", *words, "--journal", JOURNAL)


def test_a_run_that_is_no_trial_of_the_sweep_is_refused(recorded: dict[str, Any]) -> None:
    searched()
    words = ("sweep.npz", "--run", recorded["run_id"], "--journal", JOURNAL)
    assert "decides as no trial of sweep did" in refuse(2, "validate", *words)


def test_the_examples_show_the_gate_open_and_shut() -> None:
    answer = succeed("validate", "--example", "--json")
    assert {name: each["passed"] for name, each in answer.json.items()} == {
        "with an edge": True,
        "without an edge": False,
    }
