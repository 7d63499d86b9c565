"""``lockstep portfolio``: tables, files, and a written profile that trades by its weights."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from allocation_world import DATA, make_run
from cli_calls import desk, refuse, succeed

from backtest.portfolio.weights import Method
from backtest.run import load
from core.model import Result
from daemon.commands.choices import Choices, read_settings
from daemon.commands.portfolio import METHODS
from daemon.commands.setups import live_setup
from daemon.commands.shelf import open_shelf

__all__ = ["desk"]


def test_equal_weights_as_a_profile_are_the_run_again(desk: Path) -> None:
    run = make_run(desk, "--set", "instrument.fee_rate=0.0007", "--set", "account.equity=5000")
    told = succeed("portfolio", "--method", "equal", "--write", "even.toml", "--json").json
    assert [book["factor"] for book in told["books"]] == [1.0, 1.0]
    assert told["profile"] == "even.toml"
    again = succeed("replay", "--config", "even.toml", *DATA, "--json").json
    assert again["decisions_hash"] == load(desk / "runs", run).decisions_hash


def test_a_profile_by_weight_scales_every_first_order(desk: Path) -> None:
    run = make_run(desk)
    told = succeed("portfolio", run, "--write", "weights.toml", "--json").json
    factors = {book["name"].split("@")[1]: book["factor"] for book in told["books"]}
    assert factors["BTC-PERP"] > 1 > factors["SOL-PERP"] > 0
    stanzas = tomllib.loads(Path("weights.toml").read_text("utf-8"))["strategies"]
    sized = {stanza["instruments"][0]: stanza["sizing"] for stanza in stanzas.values()}
    for name, factor in factors.items():
        assert sized[name]["value"] == pytest.approx(0.3 * factor)
    resolved = read_settings(Choices(config=Path("weights.toml")))
    live = live_setup(resolved, open_shelf(resolved)).books
    assert {entry.book.instrument: entry.sizing.value for entry in live} == {
        name: sizing["value"] for name, sizing in sized.items()
    }
    weighted = succeed("replay", "--config", "weights.toml", *DATA, "--json").json["run_id"]
    before, after = (load(desk / "runs", name) for name in (run, weighted))
    for place, book in enumerate(before.books):
        fills = [each.of(Result.FILL) for each in (before, after)]
        first = [mine[mine["book"] == place][0] for mine in fills]
        assert first[0]["ts"] == first[1]["ts"]
        ratio = first[1]["quantity"] / first[0]["quantity"]
        # equity had moved a little by the second book's first order
        assert ratio == pytest.approx(factors[book.instrument], rel=0.02)


def test_the_methods_offered_are_those_there_are() -> None:
    assert set(METHODS) == set(Method)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fits_eighty_columns_and_stands_beside_equal(desk: Path, method: str) -> None:
    make_run(desk)
    out = succeed("portfolio", "latest", "--method", method, "--correlation-max", 0.2).out
    assert max(map(len, out.splitlines())) <= 80
    for part in ("equal weight", "size x", "cash:", "costs of moving it", "is a trial"):
        assert part in " ".join(out.split())
    told = succeed("portfolio", "--method", method, "--json").json
    total = sum(book["weight"] for book in told["books"])
    assert total + told["cash"] == pytest.approx(1.0)
    assert told["equal"]["costs"] == 0.0
    assert told["known"] <= "2025-05-01T00:00:00Z"
    assert told["allocated"]["days"] == 60


def test_books_of_several_runs_share_one_account(desk: Path) -> None:
    one = make_run(desk, "--instrument", "SOL-PERP", "--set", "trend.stop_loss=0.05")
    two = make_run(desk, "--instrument", "BTC-PERP")
    told = succeed("portfolio", one, two, "--method", "equal", "--write", "w.toml", "--json").json
    assert [book["factor"] for book in told["books"]] == [0.5, 0.5]
    run = succeed("replay", "--config", "w.toml", *DATA, "--json").json
    assert run["trades"] > 0
    other = make_run(desk, "--instrument", "SOL-PERP", "--set", "account.equity=777")
    error = refuse(2, "portfolio", other, two, "--write", "w.toml")
    assert "account.equity differs between the runs" in error


def test_a_page_of_weights(desk: Path) -> None:
    make_run(desk)
    succeed("portfolio", "--report", "deep/page.html", "--json")
    page = Path("deep/page.html").read_text("utf-8")
    assert 'data-chart="equity-chart"' in page
    assert 'data-chart="weights-chart"' in page


def test_what_cannot_be_allocated_is_one_line(desk: Path) -> None:
    make_run(desk)
    assert "more than that: the runs have 120" in refuse(3, "portfolio", "--lookback", 120)
    assert "did you mean 'kelly'" in refuse(2, "portfolio", "--method", "kely")
    assert "Kelly share" in refuse(2, "portfolio", "--kelly-share", 2)
    assert "unknown run" in refuse(2, "portfolio", "zzz")
    rules = ("--rules", "default", "--data", "SOL-PERP.feather", "--json")
    succeed("replay", *rules, "--set", "limits.data_age_ms_max=0")
    told = refuse(2, "portfolio", "--method", "equal", "--write", "w.toml")
    assert "follows a file of rules" in told


def test_the_weights_report_is_drawn_by_plotly(desk: Path) -> None:
    from plotly.graph_objects import Figure

    from backtest.portfolio.books import books_of
    from backtest.portfolio.walk import equal_walk, walk
    from backtest.portfolio.weights import Method, Terms
    from backtest.report.portfolio import growth_lines, weight_areas

    run = load(desk / "runs", make_run(desk))
    books, terms = books_of([run]), Terms(method=Method.INVERSE_VOLATILITY)
    found = walk(books.returns, terms)
    for spec in (
        growth_lines(books, terms, found, equal_walk(books.returns, terms)),
        weight_areas(books, found),
    ):
        Figure(spec)
        assert np.isfinite(spec["data"][0]["y"]).all()
