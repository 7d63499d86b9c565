"""``lockstep sweep``: rows that replay confirms, files, and errors of one line."""

from pathlib import Path

import pyarrow.parquet as pq
from cli_calls import desk, refuse, shop, succeed

__all__ = ["desk", "shop"]

TREND = ("sweep", "--strategy", "trend", "--data")


def test_the_best_row_is_what_replay_gives(shop: Path, desk: Path) -> None:
    data = shop / "SOL-PERP.feather"
    ranges = ("--set", "fast=5:15:5", "--set", "slow=20,40")
    told = succeed(*TREND, data, *ranges, "--json", "--out", desk / "rows.parquet").json
    assert (told["combinations"], told["failed"], len(told["best"])) == (6, 0, 6)
    best = told["best"][0]
    sets = [f"--set={name}={value}" for name, value in best["params"].items()]
    run = succeed("replay", "--strategy", "trend", "--data", data, *sets, "--json").json
    assert run["decisions_hash"] == best["decisions_hash"]
    assert run["net_pnl"] == best["metrics"]["net_pnl"]
    rows = pq.read_table(desk / "rows.parquet")
    assert best["decisions_hash"] in rows["decisions_hash"].to_pylist()
    again = succeed(*TREND, data, *ranges, "--json", "--resume").json
    assert (again["resumed"], again["best"]) == (6, told["best"])


def test_a_page_of_the_whole_search(shop: Path, desk: Path) -> None:
    ranges = ("--set", "fast=5:15:5", "--set", "slow=20,40", "--report", "deep/sweep.html")
    out = succeed(*TREND, shop / "SOL-PERP.feather", *ranges).out
    assert "report: deep/sweep.html" in out
    page = Path("deep/sweep.html").read_text("utf-8")
    assert "Sweep of trend" in page
    assert 'data-chart="map-0-best"' in page
    assert 'data-chart="line-slow"' in page


def test_a_table_fits_eighty_columns(shop: Path, desk: Path) -> None:
    out = succeed(*TREND, shop / "SOL-PERP.feather", "--sobol", 8, "--top", 3).out
    assert max(map(len, out.splitlines())) <= 80 + len("sample.")
    assert "combinations in" in out


def test_what_is_wrong_is_one_line(shop: Path, desk: Path) -> None:
    data = shop / "SOL-PERP.feather"
    assert "did you mean 'fast'" in refuse(2, *TREND, data, "--set", "fats=5:50:5")
    assert "a grid needs a step" in refuse(2, *TREND, data, "--grid", "--set", "fast=5:50")
    assert "give one" in refuse(2, *TREND, data, "--sobol", 4, "--optuna", 4)
    assert "did you mean 'sharpe'" in refuse(2, *TREND, data, "--sobol", 4, "--metric", "sharp")
