"""The page of a sweep: cells by hand, rows taken evenly, and whether the best meant anything."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtest.report import sweep as page_of_sweep
from backtest.report.heatmaps import Metric, alone, folded_scores, heat_map, stability, steps_of
from backtest.report.sweep import Collected, rank_correlation, split_scatter, write_sweep
from backtest.sweep.rows import Row

SHARPE = Metric(name="sharpe", form=".2f", centre=0.0, higher_is_better=True)
NAMES = ("fast", "slow", "stop")


def rows(count: int = 36, days: int = 60) -> list[Row]:
    """A grid of three parameters whose scores are known; one failed, one has no score."""
    rng, found = np.random.default_rng(3), []
    for place in range(count):
        params = {"fast": place % 3 + 1, "slow": place // 3 % 4 * 10, "stop": place // 12 * 0.1}
        if place == 7:
            found.append(Row(place=place, params=params, error="it broke"))
            continue
        daily = 1e10 * np.cumprod(1 + rng.normal(1e-3, 0.01, days))
        score = None if place == 5 else float(place)
        metrics: dict[str, Any] = {"sharpe": score, "max_drawdown": 0.1, "trades": 3}
        found.append(
            Row(
                place=place,
                params=params,
                metrics=metrics,
                decisions_hash="ab",
                daily_micros=daily.astype(np.int64),
            )
        )
    return found


def collected(metric: str = "sharpe", **more: int) -> Collected:
    taken = Collected(metric)
    assert list(taken.watching(given := rows(**more))) == given
    return taken


def test_cells_fold_what_the_other_parameters_do() -> None:
    x, y = steps_of("a", np.array([1, 1, 2, 2, 2])), steps_of("b", np.array([5, 5, 5, 6, 6]))
    scores = np.array([1.0, 3.0, np.nan, 4.0, 8.0])
    best, middle = (folded_scores(x, y, scores, fold) for fold in (np.max, np.median))
    np.testing.assert_array_equal(best, [[3.0, np.nan], [np.nan, 8.0]])
    np.testing.assert_array_equal(middle, [[2.0, np.nan], [np.nan, 6.0]])
    lower = Metric(name="max_drawdown", form=".1%", centre=None, higher_is_better=False)
    assert lower.best(np.array([0.2, 0.1])) == 0.1
    cells = heat_map(x, y, scores, SHARPE, np.max)["data"][0]
    assert cells["z"] == [[3.0, None], [None, 8.0]]
    assert (cells["zmin"], cells["zmax"]) == (-8.0, 8.0), "even about zero"


def test_many_values_are_cut_into_ranges() -> None:
    few = steps_of("a", np.array([3.0, 1.0, 3.0]))
    assert (few.labels, few.at.tolist()) == (("1", "3"), [1, 0, 1])
    many = steps_of("a", np.linspace(0, 1, 100))
    assert len(many.labels) == 12
    assert np.bincount(many.at).min() >= 8
    assert (np.diff(many.at) >= 0).all()
    assert many.ranges
    often = steps_of("a", np.tile(np.arange(40.0), 40))
    assert (len(often.labels), often.ranges) == (40, False)
    assert alone(steps_of("a", np.array([1, 1, 2])), steps_of("b", np.array([1, 2, 1])))
    assert not alone(few, few)


def test_the_line_of_a_parameter_by_hand() -> None:
    steps = steps_of("a", np.array([1, 1, 1, 2]))
    spec = stability(steps, np.array([1.0, 2.0, 9.0, np.nan]), SHARPE)
    by_name = {trace["name"]: trace["y"] for trace in spec["data"]}
    assert by_name["median"] == [2.0, None]
    assert by_name["best"] == [9.0, None]
    assert by_name["lower quarter"] == [1.5, None]


def test_rows_are_kept_evenly_and_the_best_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_of_sweep, "TRIALS_MAX", 10)
    taken = collected()
    assert len(taken.scores) == 36
    assert sorted(taken.trials) == [0, 4, 8, 12, 16, 20, 24, 28, 32]
    assert taken.best is not None
    assert taken.best.place == 35
    assert taken.returns(10_000.0).shape == (60, 10), "the nine, and the best"


def test_a_trial_that_lost_all_is_left_out() -> None:
    taken = collected(count=4)
    taken.trials[1] = np.zeros(60, np.int64)
    assert taken.returns(10_000.0).shape == (60, 3)


def test_rank_correlation_by_hand() -> None:
    up = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(up, up**3) == pytest.approx(1.0)
    assert rank_correlation(up, -up) == pytest.approx(-1.0)
    assert rank_correlation(up, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)
    assert rank_correlation(up, np.ones(4)) is None


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "deep" / "s.html", "trend", NAMES, collected(), 10_000.0)
    page = path.read_text("utf-8")
    charts = re.findall(r'data-chart="([^"]+)"', page)
    assert charts == [
        *(f"map-{place}-{word}" for place in range(3) for word in ("best", "median")),
        *(f"line-{name}" for name in NAMES),
        "split-chart",
        "logits-chart",
    ]
    assert "2 without a score" in page
    assert "Probability of overfitting" in page
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', page)


def test_two_parameters_need_one_map_and_few_days_are_said(tmp_path: Path) -> None:
    short = collected(count=12, days=9)
    page = write_sweep(tmp_path / "s.html", "trend", NAMES, short, 10_000.0).read_text("utf-8")
    assert re.findall(r'data-chart="(map[^"]+)"', page) == ["map-0-best"]
    assert "too few to judge" in page
    assert "logits-chart" not in page


def test_a_sweep_in_which_all_failed_still_has_a_page(tmp_path: Path) -> None:
    taken = Collected("sharpe")
    for place in range(3):
        taken.add(Row(place=place, params={"fast": place}, error="it broke"))
    page = write_sweep(tmp_path / "s.html", "trend", ("fast",), taken, 1.0).read_text("utf-8")
    assert "3 without a score" in page


def test_every_chart_is_valid() -> None:
    from plotly.graph_objects import Figure

    x, y = steps_of("a", np.arange(40) % 5), steps_of("b", np.arange(40) // 5)
    scores = np.linspace(-1, 2, 40)
    plain = Metric(name="win_rate", form=".1%", centre=None, higher_is_better=True)
    for metric in (SHARPE, plain):
        Figure(heat_map(x, y, scores, metric, np.median))
        Figure(stability(x, scores, metric))
    Figure(split_scatter(scores, scores[::-1]))
