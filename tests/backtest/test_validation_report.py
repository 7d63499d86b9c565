"""The page of a verdict: both ways of judging on it, every chart valid, nothing loaded."""

import re
from pathlib import Path
from typing import Any

import pytest

from backtest.report.validation import fan, logits, scatter, write_validation
from backtest.stress import futures
from backtest.validation.examples import with_an_edge, without_an_edge
from backtest.validation.overfitting import overfitting
from backtest.validation.verdict import Verdict, judge

SEED = 20_261_121


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return [judge(with_an_edge(SEED)), judge(without_an_edge(SEED))]


def test_the_examples_pass_every_check_and_fail_every_check(verdicts: list[Verdict]) -> None:
    good, bad = verdicts
    assert [check.name for check in good.judged if not check.passed] == []
    assert [check.name for check in bad.judged if check.passed] == []
    assert (good.passed, bad.passed) == (True, False)
    assert len(bad.judged) == 10


def test_the_page_holds_both_and_loads_nothing(tmp_path: Path, verdicts: list[Verdict]) -> None:
    shown = [with_an_edge(SEED), without_an_edge(SEED)]
    path = tmp_path / "deep" / "validation.html"
    write_validation(path, list(zip(shown, verdicts, strict=True)), seed=SEED)
    page = path.read_text("utf-8")
    assert "with an edge passes" in page
    assert "without an edge fails 10 of 10 checks" in page
    for place in (0, 1):
        for name in ("logits", "scatter", "fan"):
            assert f'data-chart="{name}-{place}"' in page
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', page)


def test_every_chart_is_valid() -> None:
    from plotly.graph_objects import Figure

    returns = without_an_edge(SEED).returns
    split = overfitting(returns, 8)
    growth = futures(returns[:, 0], seed=1, paths=range(50), block=3.0)
    for spec in (logits(split), scatter(split, SEED), fan(growth)):
        Figure(spec)


def test_the_histogram_is_red_for_what_counts_as_overfit() -> None:
    split = overfitting(without_an_edge(SEED).returns, 8)
    bars: dict[str, Any] = logits(split)["data"][0]
    red = bars["marker"]["color"][0]
    share = sum(
        y for y, colour in zip(bars["y"], bars["marker"]["color"], strict=True) if colour == red
    )
    assert share == pytest.approx(split.probability)
    assert sum(bars["y"]) == pytest.approx(1.0)
