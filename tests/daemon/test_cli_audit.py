"""``lockstep audit`` and ``what-if`` over a recorded run, as a person types them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cli_calls import call, desk, refuse, shop, succeed

__all__ = ["desk", "shop"]

pytestmark = pytest.mark.usefixtures("desk")


@pytest.fixture
def recorded(shop: Path) -> tuple[str, str]:
    """The id of a recorded replay, and the words that name its journal."""
    words = ("--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--set", "fast=5")
    result = succeed("replay", *words, "--to-journal", "--json").json
    assert result["trades"] > 0
    return result["run_id"], "sqlite:///journal.sqlite"


def test_an_audit_of_an_honest_record_finds_every_outcome_again(recorded: tuple[str, str]) -> None:
    run, journal = recorded
    told = succeed("audit", run, "--journal", journal, "--json").json
    assert told["equal"]
    assert told["first"] is None
    assert told["outcomes"] > 0


def test_an_audit_finds_a_record_that_was_tampered_with(recorded: tuple[str, str]) -> None:
    run, journal = recorded
    with closing(sqlite3.connect(journal.removeprefix("sqlite:///"))) as database, database:
        seq, raw = database.execute(
            "SELECT seq, records FROM steps WHERE outcomes > 0 ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        forged = bytearray(raw)
        forged[48] ^= 1
        database.execute("UPDATE steps SET records = ? WHERE seq = ?", (bytes(forged), seq))
    answer = call("audit", run, "--journal", journal)
    assert answer.code == 1
    assert "parts from its record at outcome" in answer.out


def test_an_audit_goes_on_from_a_checkpoint_of_the_same_run_alone(
    recorded: tuple[str, str], shop: Path
) -> None:
    run, journal = recorded
    words = ("--journal", journal, "--checkpoint", shop / "state", "--json")
    whole = succeed("audit", run, *words).json
    assert whole["events"] > 0
    assert succeed("audit", run, *words).json["events"] == 0
    kept = (shop / "state").read_bytes()
    (shop / "state").write_bytes(bytes(32) + kept[32:])
    assert succeed("audit", run, *words).json["events"] == whole["events"]


def test_a_record_that_parts_leaves_the_checkpoint_where_it_was(
    recorded: tuple[str, str], shop: Path
) -> None:
    run, journal = recorded
    with closing(sqlite3.connect(journal.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE steps SET records = substr(records, 1, length(records) - 160)")
    words = ("--journal", journal, "--checkpoint", shop / "parted", "--json")
    for _ in range(2):
        answer = call("audit", run, *words)
        assert answer.code == 1
        assert '"mismatches": 1' in answer.out
    assert not (shop / "parted").exists()


def test_a_what_if_shows_the_first_decision_that_differs(recorded: tuple[str, str]) -> None:
    run, journal = recorded
    same = succeed("what-if", run, "--journal", journal, "--set", "trend.fast=5", "--json").json
    assert same["equal"]
    other = succeed("what-if", run, "--journal", journal, "--set", "trend.fast=9", "--json").json
    assert not other["equal"]
    assert other["first"]["time"]
    spoken = succeed("what-if", run, "--journal", journal, "--set", "limits.cooldown_ms=1e9").out
    assert "cooldown" in spoken


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "give --set KEY=VALUE"),
        (("--set", "trend.fats=3"), "did you mean 'fast'"),
        (("--set", "limit.cooldown_ms=3"), "did you mean 'limits'"),
        (("--set", "trend.fast=many"), "expected a number"),
    ],
)
def test_a_what_if_that_makes_no_sense_is_refused(
    words: tuple[str, ...], expected: str, recorded: tuple[str, str]
) -> None:
    run, journal = recorded
    assert expected in refuse(2, "what-if", run, "--journal", journal, *words)


def test_an_unknown_run_is_refused(recorded: tuple[str, str]) -> None:
    assert "unknown run" in refuse(2, "audit", "nobody", "--journal", recorded[1])
