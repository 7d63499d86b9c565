"""Runs that were kept: listed, reported, compared."""

import json
from pathlib import Path

import pytest
from cli_calls import call, desk, refuse, shop, succeed

__all__ = ["desk", "shop"]

pytestmark = pytest.mark.usefixtures("desk")


def run_of(shop: Path, *more: str) -> str:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--json")
    return str(succeed(*words, *more).json["run_id"])


def test_runs_are_listed_newest_first(shop: Path) -> None:
    assert succeed("runs", "--json").json == []
    assert "no run yet" in succeed("runs").out
    first, second = run_of(shop), run_of(shop, "--set", "fast=10")
    listed = succeed("runs", "--json").json
    assert [row["run"] for row in listed] == [second, first]
    assert listed[0]["books"] == ["trend@SOL-PERP"]
    assert first in succeed("runs").out


def test_a_run_is_found_by_id_start_latest_or_folder(shop: Path, desk: Path) -> None:
    run = run_of(shop)
    for name in (run, run[:5], "latest", desk / "runs" / run, f"runs/{run}"):
        assert succeed("report", name, "--json").json["run_id"] == run
    assert "unknown run" in refuse(2, "report", "zzz")
    assert "holds no run yet" in refuse(2, "report", run, "--runs", "elsewhere")
    run_of(shop, "--set", "fast=10")
    assert "may be any of" in refuse(2, "report", "")


def test_a_report_is_written_beside_the_run_or_where_it_is_told(shop: Path, desk: Path) -> None:
    run = run_of(shop)
    answer = succeed("report", run)
    assert f"report: runs/{run}/report.html" in answer.out
    assert succeed("report", run, "--out", "mine.html").code == 0
    assert (desk / "mine.html").stat().st_size > 10_000


def test_a_run_that_was_tampered_with_is_not_believed(shop: Path, desk: Path) -> None:
    run = run_of(shop)
    path = desk / "runs" / run / "manifest.json"
    rest = json.loads(path.read_text())
    path.write_text(json.dumps({**rest, "decisions_hash": "0" * 32}))
    assert "do not match the manifest" in refuse(3, "report", run)
    path.write_text("{}")
    assert "cannot be read" in refuse(3, "report", run)


def test_equal_runs_agree_whatever_the_cut_into_blocks(shop: Path) -> None:
    run = run_of(shop)
    again = run_of(shop, "--block", "11", "--runs", "again")
    answer = succeed("diff", run, f"again/{again}")
    assert "agree in every decision and outcome" in answer.out
    found = succeed("diff", run, f"again/{again}", "--json").json
    assert (found["equal"], found["causes"], found["first"]) == (True, [], None)


def test_a_parameter_that_differs_is_the_cause_and_the_first_decision_is_shown(shop: Path) -> None:
    a, b = run_of(shop), run_of(shop, "--set", "fast=21")
    answer = call("diff", a, b, "--json")
    assert answer.code == 1
    found = answer.json
    assert found["causes"] == [["books.trend@SOL-PERP.params.fast", 20.0, 21.0]]
    first = found["first"]
    assert first["what"] == "decision"
    assert first["time"] == min(first["a"]["time"], first["b"]["time"])
    assert first["a"]["params"]["fast"] == 20
    assert first["a"]["reason"] in {"fast above slow", "fast below slow"}
    told = call("diff", a, b)
    assert told.code == 1
    assert "params.fast" in told.out
    assert first["time"] in told.out
    assert max(len(line) for line in told.out.splitlines()) <= 80


def test_other_data_and_other_costs_are_told_as_such(shop: Path) -> None:
    a, b = run_of(shop), run_of(shop, "--timerange", "/2025-01-01T20:00")
    causes = [cause[0] for cause in call("diff", a, b, "--json").json["causes"]]
    assert causes == ["data.SOL-PERP"]
    c = run_of(shop, "--set", "instrument.fee_rate=0.002")
    found = call("diff", a, c, "--json").json
    assert found["causes"] == [["instruments.SOL-PERP.fee_rate", 0.0005, 0.002]]
    # equal decisions, but the fills cost more, so it is the first fill or trade that differs
    assert found["first"]["what"] != ""
    fees = next(row for row in found["results"] if row[0] == "fees")
    assert fees[2] > fees[1]


def test_another_name_is_a_cause_but_no_difference_until_a_decision_differs(shop: Path) -> None:
    a, b = run_of(shop), run_of(shop, "--instrument", "X")
    found = succeed("diff", a, b, "--json").json
    assert (found["equal"], found["first"]) == (True, None)
    assert ["data.X", None] in [cause[:2] for cause in found["causes"]]
    b = run_of(shop, "--instrument", "X", "--set", "fast=21")
    found = call("diff", a, b, "--json").json
    assert found["first"]["last_in_common"] is None
    assert {found["first"][side]["book"] for side in "ab"} == {"trend@SOL-PERP", "trend@X"}
