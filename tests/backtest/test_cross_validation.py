"""Cross-validation: no fit sees what its test bears on, and every path is a whole history."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from math import comb
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MINUTE, SCRIPT, START, bar_history, scripted, subject, walk

from backtest.cross_validation import (
    CrossValidation,
    Plan,
    Terms,
    cross_validate,
    fits_of,
    plan_of,
    pooled,
    swept_here,
)
from backtest.replay import Source, replay_block
from backtest.report.cross_validation import fan, histogram, scatter, write_cross_validation
from backtest.statistics import daily_returns, sharpe
from backtest.stretches import Stretch, staged, within
from backtest.sweep.rows import Row, rank_key
from backtest.sweep.space import Point
from backtest.sweep.sweep import Subject, Sweep
from core.errors import ConfigError, UnknownName
from core.model import Kind, Result
from markets.history import History, crop, merge

HOUR = 60 * MINUTE
DAY = 24 * HOUR
POINTS: list[Point] = [{"fast": f, "slow": s} for f in (5.0, 10.0, 20.0) for s in (40.0, 80.0)]
TERMS = Terms(groups=4, tests=2, purge_ms=HOUR, embargo_ms=2 * HOUR)
BARS = 60 * 24 * 8


def rows_of(seen: Subject, points: Sequence[Point], threads: int = 1) -> Iterable[Row]:
    return Sweep(seen, threads=threads).run(points)


def validated(whole: Subject, terms: Terms = TERMS, threads: int = 1) -> CrossValidation:
    plan = plan_of(whole, terms)
    swept = swept_here(whole, terms, partial(rows_of, threads=threads))
    fits = fits_of(whole, terms, plan, POINTS, swept)
    return cross_validate(whole, terms, plan, fits)


@cache
def usual() -> CrossValidation:
    return validated(subject(walk(BARS)))


def plan_over(
    days: int, groups: int, tests: int, purge_h: int, embargo_h: int, *others: History
) -> tuple[Plan, Terms, Subject]:
    terms = Terms(groups=groups, tests=tests, purge_ms=purge_h * HOUR, embargo_ms=embargo_h * HOUR)
    whole = subject(walk(60 * 24 * days), *others)
    return plan_of(whole, terms), terms, whole


@pytest.mark.parametrize(("groups", "tests"), [(6, 2), (10, 2), (5, 1), (5, 4)])
def test_counts_are_those_of_the_book(groups: int, tests: int) -> None:
    plan, *_ = plan_over(12, groups, tests, 0, 0)
    assert len(plan.cuts) == comb(groups, tests)
    assert plan.paths.shape == (comb(groups, tests) * tests // groups, groups)
    for group in range(groups):
        splits = plan.paths[:, group].tolist()
        assert len(set(splits)) == len(splits)
        assert all(group in plan.cuts[split].tests for split in splits)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 3), st.integers(0, 4), st.booleans())
def test_no_bar_of_a_piece_bears_on_a_test_or_is_borne_on_by_it(
    groups: int, tests: int, purge_h: int, embargo_h: int, late: bool
) -> None:
    young = walk(60 * 24 * 3, 2)
    other = bar_history(young.bars["open"], young.bars["close"], start=START + 3 * DAY)
    tests = min(tests, groups - 1)
    others = [other] if late else []
    plan, terms, whole = plan_over(6, groups, tests, purge_h, embargo_h, *others)
    bars = np.concatenate([history.bars for history in whole.histories.values()])
    for cut in plan.cuts:
        for begin, end in cut.pieces:
            seen = within(whole, begin, end, whole.histories)
            for history in seen.histories.values():
                opens, known = history.bars["ts_event"], history.bars["ts_known"]
                for group in cut.tests:
                    tested = plan.groups[group]
                    before = known + terms.purge_ms < tested.begin_ms
                    after = opens > tested.end_ms + terms.purge_ms + terms.embargo_ms
                    assert (before | after).all()
    edges = [(group.begin_ms, group.end_ms) for group in plan.groups]
    assert [end for _, end in edges[:-1]] == [begin for begin, _ in edges[1:]]
    assert (edges[0][0], edges[-1][1]) == (bars["ts_event"].min(), bars["ts_known"].max())


def test_what_may_be_fitted_on_is_fitted_on() -> None:
    """The pieces end as late and begin as early as purge and embargo allow, to the bar."""
    plan, terms, _ = plan_over(6, 3, 1, 1, 2)
    middle = next(cut for cut in plan.cuts if cut.tests == (1,))
    tested = plan.groups[1]
    before, after = middle.pieces
    assert before == (START, tested.begin_ms - terms.purge_ms - MINUTE)
    begins = tested.end_ms + terms.purge_ms + terms.embargo_ms + MINUTE
    assert after == (begins, START + 6 * DAY)


def test_with_two_groups_and_one_test_it_is_two_replays_by_hand() -> None:
    whole = subject(walk(BARS))
    terms = Terms(groups=2, tests=1)
    done = validated(whole, terms)
    half = START + BARS // 2 * MINUTE
    end = START + BARS * MINUTE
    equity = 10_000.0
    (path,) = done.paths
    for run, train, traded in (
        (path.runs[0], (half + MINUTE, end), Stretch(warm_ms=START, begin_ms=START, end_ms=half)),
        (path.runs[1], (START, half - MINUTE), Stretch(warm_ms=START, begin_ms=half, end_ms=end)),
    ):
        seen = replace(whole, histories={"X": crop(whole.histories["X"], *train)})
        best = min(Sweep(seen, threads=1).run(POINTS), key=rank_key("sharpe"))
        history = crop(whole.histories["X"], traded.warm_ms, traded.end_ms)
        block = staged(merge([history]), traded, [(0, 0)])
        setup = replace(whole.at(best.params), equity=equity)
        source = Source(digests={"X": history.digest})
        alone = replay_block(setup, block, {"X": history.fields}, source)
        later = alone.block["ts_known"] > traded.begin_ms
        np.testing.assert_array_equal(alone.equity[later], run.equity)
        equity = float(run.equity[-1])
    assert float(path.whole.equity[-1]) == equity


def test_groups_are_traded_with_costs_inside_them_only_and_end_flat() -> None:
    done = usual()
    assert len(done.paths) == 3
    for path in done.paths:
        equity = 10_000.0
        for group, run in zip(done.plan.groups, path.runs, strict=True):
            fills = run.of(Result.FILL)
            assert len(fills) > 2
            assert fills["ts"].min() > group.begin_ms
            assert fills["ts"].max() <= group.end_ms
            assert (fills["fee_micros"] > 0).all()
            assert run.track["notional_micros"][-1] == 0
            assert run.equity_start == equity
            equity = float(run.equity[-1])
        bars = path.whole.block[path.whole.block["kind"] == Kind.BAR]
        assert bars["ts_known"].tolist() == [START + (k + 1) * MINUTE for k in range(BARS)]
        assert len(daily_returns(path.whole)) == 8


def test_a_fit_is_the_best_over_all_its_pieces_and_each_split_pools_alike() -> None:
    done, whole = usual(), subject(walk(BARS))
    for cut, fit, outside in zip(done.plan.cuts, done.fits, done.outside, strict=True):
        assert fit is not None
        days: list[list[Any]] = [[] for _ in POINTS]
        for piece in cut.pieces:
            for k, row in enumerate(rows_of(within(whole, *piece, ["X"]), POINTS)):
                equity = row.daily_micros / 1e6
                days[k] += (equity / np.append(10_000.0, equity[:-1]) - 1).tolist()
        ratios = [sharpe(np.array(each)) or -np.inf for each in days]
        assert fit.params == POINTS[int(np.argmax(ratios))]
        assert fit.metrics["sharpe"] == pytest.approx(max(ratios), rel=1e-12)
        judged = [
            daily_returns(done.paths[p].runs[g])
            for g in cut.tests
            for p in range(3)
            if done.plan.cuts[done.plan.paths[p, g]] is cut
        ]
        assert len(judged) == 2
        assert outside == pooled(judged)


def test_threads_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert validated(subject(walk(BARS)), threads=2).plain() == usual().plain()
    monkeypatch.setattr("backtest.cross_validation.GROUP", 4)
    assert validated(subject(walk(BARS))).plain() == usual().plain()


def changed(history: History, begin_ms: int, end_ms: int, times: float) -> History:
    """The same with other prices on what opens in [begin_ms, end_ms)."""
    events = history.events.copy()
    bars = (events["ts_event"] >= begin_ms) & (events["ts_event"] < end_ms)
    for price in ("open", "high", "low", "close"):
        events[price][bars] *= times
    return replace(history, events=events)


def test_a_fit_knows_nothing_of_its_test_groups_nor_of_what_surrounds_them() -> None:
    done, whole = usual(), walk(BARS)
    tested = done.plan.groups[1]
    around = tested.begin_ms - TERMS.purge_ms, tested.end_ms + TERMS.purge_ms + TERMS.embargo_ms
    other = validated(subject(changed(whole, *around, 1.5)))
    for cut, mine, others in zip(done.plan.cuts, done.fits, other.fits, strict=True):
        assert (mine == others) == (1 in cut.tests)


def test_a_group_is_traded_without_knowing_what_comes_after_it() -> None:
    done, whole = usual(), walk(BARS)
    end = done.plan.groups[2].end_ms
    later = subject(changed(whole, end, START + BARS * MINUTE, 1.5))
    again = cross_validate(later, TERMS, done.plan, done.fits)
    for mine, others in zip(done.paths, again.paths, strict=True):
        same = [a.decisions_hash == b.decisions_hash for a, b in zip(mine.runs, others.runs)]  # noqa: B905
        assert same == [True, True, True, False]


def test_what_is_held_out_is_never_fitted_on_and_alone_is_traded() -> None:
    whole, terms = subject(walk(BARS, 1), walk(BARS, 2)), replace(TERMS, held_out=("Y",))
    done = validated(whole, terms)
    assert {run.instruments for path in done.paths for run in path.runs} == {("Y",)}
    alike = validated(subject(walk(BARS, 1), walk(BARS, 7)), terms)
    assert alike.fits == done.fits
    with pytest.raises(UnknownName, match="instrument to hold out"):
        plan_of(whole, replace(TERMS, held_out=("W",)))


def test_a_path_ends_when_its_equity_is_gone_and_the_others_do_not() -> None:
    prices = [1e6] * 15 + [1.0] * 25
    terms = {"leverage": 100.0, "maintenance": 0.0, "fee_rate": 0.0, "slippage_bps": 0.0}
    whole = subject(scripted([1.0] * 40, prices, prices), strategy=SCRIPT, **terms)
    cut = Terms(groups=4, tests=2)
    plan = plan_of(whole, cut)
    fit = Row(place=0, params={}, metrics={"sharpe": 1.0})
    idle = plan.paths[0, 1]
    fits = [None if k == idle else fit for k in range(len(plan.cuts))]
    done = cross_validate(whole, cut, plan, fits)
    assert [len(path.runs) for path in done.paths] == [4, 2, 2]
    assert done.plain()["ruined"] == 2
    assert done.outside[idle]["return"] is not None
    assert {} in done.outside
    assert len(done.row.daily_micros) == 1


def test_without_a_defined_figure_nothing_is_traded() -> None:
    prices = [100.0] * 40
    whole = subject(scripted([0.0] * 40, prices, prices), strategy=SCRIPT)
    terms = Terms(groups=4, tests=1)
    plan = plan_of(whole, terms)
    fits = fits_of(whole, terms, plan, [{}], swept_here(whole, terms, rows_of))
    assert fits == [None] * 4
    done = cross_validate(whole, terms, plan, fits)
    assert (done.spread("sharpe"), done.spread("return")) == (None, (0.0, 0.0, 0.0))
    assert done.pairs == []


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        (Terms(metric="win_rate"), "metric over several pieces of history"),
        (Terms(groups=4, tests=4), "choose at least one, and not all"),
        (Terms(groups=7_000, tests=1), "at most 1,000"),
        (Terms(groups=900, tests=1), "less than two bars"),
        (Terms(groups=3, tests=2, embargo_ms=30 * DAY, purge_ms=30 * DAY), "nothing to fit on"),
    ],
)
def test_what_cannot_be_cut_is_refused(terms: Terms, told: str) -> None:
    whole = subject(walk(1_500))
    with pytest.raises((ConfigError, UnknownName), match=told):
        plan_of(whole, terms)


def test_a_pool_loses_all_only_once() -> None:
    gone = pooled([np.array([0.1, -1.2, np.nan]), np.array([-1.5, 0.2])])
    assert (gone["return"], gone["sharpe"]) == (-1.0, None)
    assert pooled([np.array([0.1]), np.array([0.1])])["return"] == pytest.approx(0.21)


def test_the_account_of_the_gate_is_divided_equally_over_the_paths() -> None:
    done = usual()
    ends = [float(path.whole.equity[-1]) for path in done.paths]
    assert done.row.daily_micros[-1] == pytest.approx(np.mean(ends) * 1e6, abs=1)
    assert len(done.row.daily_micros) == 8


def test_the_page_shows_the_paths_and_loads_nothing(tmp_path: FilePath) -> None:
    from plotly.graph_objects import Figure

    path = write_cross_validation(tmp_path / "deep" / "cv.html", usual())
    page = path.read_text("utf-8")
    for name in ("paths", "sharpes", "scatter"):
        assert f'data-chart="{name}-drawn"' in page
    assert page.count("fast=") == len(usual().plan.cuts)
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', page)
    for spec in (fan(usual()), histogram(usual()), scatter(usual())):
        Figure(spec)
