"""Cuts of history: nothing judged is fitted on, in any order of rows; counts as published."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.splits import Spans, combinatorial, held_out, walk_forward
from core.errors import ConfigError

DAY = 86_400_000


def spans_of(count: int, horizon: int, *, instruments: int = 1, seed: int = 0) -> Spans:
    """``count`` days of labels that look ``horizon`` days ahead, for each instrument, shuffled."""
    days = np.tile(np.arange(count), instruments) * DAY
    days = np.random.default_rng(seed).permutation(days)
    return Spans(days, days + horizon * DAY)


worlds = st.builds(spans_of, st.integers(30, 90), st.integers(0, 8), instruments=st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(worlds, st.booleans(), st.integers(0, 5), st.integers(3, 12), st.integers(10, 20))
def test_a_walk_forward_knows_only_the_past_and_judges_every_day_once(
    spans: Spans, anchored: bool, embargo: int, test: int, train: int
) -> None:
    windows = list(
        walk_forward(
            spans,
            train_ms=train * DAY,
            test_ms=test * DAY,
            anchored=anchored,
            embargo_ms=embargo * DAY,
        )
    )
    judged = np.concatenate([window.split.test for window in windows])
    assert sorted(judged.tolist()) == np.flatnonzero(spans.begins >= train * DAY).tolist()
    for window in windows:
        fitted = window.split.train
        assert (spans.ends[fitted] < window.begin_ms - embargo * DAY).all()
        assert (spans.begins[fitted] >= window.train_begin_ms).all()
        assert window.train_begin_ms == (0 if anchored else window.begin_ms - train * DAY)
        inside = (spans.begins[window.split.test] >= window.begin_ms).all()
        assert inside
        assert (spans.begins[window.split.test] < window.end_ms).all()


def test_rolling_forgets_and_anchored_does_not() -> None:
    spans = spans_of(100, 0)
    rolling, anchored = (
        list(walk_forward(spans, train_ms=20 * DAY, test_ms=20 * DAY, anchored=each))
        for each in (False, True)
    )
    assert [len(window.split.train) for window in rolling] == [20, 20, 20, 20]
    assert [len(window.split.train) for window in anchored] == [20, 40, 60, 80]


def test_a_label_that_looks_into_the_test_is_purged() -> None:
    window = next(walk_forward(spans_of(40, 5), train_ms=20 * DAY, test_ms=10 * DAY))
    spans = spans_of(40, 5)
    assert (spans.begins[window.split.train] // DAY).max() == 14
    assert len(window.split.train) == 15


@pytest.mark.parametrize(
    ("groups", "tests", "splits", "paths"), [(6, 2, 15, 5), (10, 2, 45, 9), (10, 8, 45, 36)]
)
def test_counts_of_combinatorial_cross_validation(
    groups: int, tests: int, splits: int, paths: int
) -> None:
    found = combinatorial(spans_of(60, 0), groups=groups, tests=tests)
    assert len(found.tested) == splits
    assert found.paths.shape == (paths, groups)


@settings(max_examples=40, deadline=None)
@given(worlds, st.integers(0, 4), st.integers(4, 7), st.integers(1, 3))
def test_nothing_judged_is_fitted_on(spans: Spans, embargo: int, groups: int, tests: int) -> None:
    found = combinatorial(spans, groups=groups, tests=tests, embargo_ms=embargo * DAY)
    for place, chosen in enumerate(found.tested):
        split = found.split(place)
        assert set(found.groups[split.test].tolist()) == set(chosen)
        for group in chosen:
            mine = found.groups == group
            first, last = spans.begins[mine].min(), spans.ends[mine].max()
            fitted_begins, fitted_ends = spans.begins[split.train], spans.ends[split.train]
            after = fitted_begins > last + embargo * DAY
            assert ((fitted_ends < first) | after).all()


@settings(max_examples=20, deadline=None)
@given(worlds, st.integers(4, 7), st.integers(1, 3))
def test_every_path_is_a_whole_history_and_no_two_share_a_judgement(
    spans: Spans, groups: int, tests: int
) -> None:
    found = combinatorial(spans, groups=groups, tests=tests)
    for path in found.paths:
        for group, split in enumerate(path.tolist()):
            assert group in found.tested[split]
    for group in range(groups):
        assert len(set(found.paths[:, group].tolist())) == len(found.paths)


def test_rows_of_one_moment_stay_on_one_side() -> None:
    spans = spans_of(31, 0, instruments=4)
    found = combinatorial(spans, groups=4, tests=1)
    for moment in np.unique(spans.begins):
        assert len(set(found.groups[spans.begins == moment].tolist())) == 1


def test_instruments_held_out_do_not_depend_on_the_others() -> None:
    names = [f"X{k}" for k in range(200)]
    chosen = held_out(names, 0.25, "study")
    assert 30 < len(chosen) < 70
    assert held_out([*names, "NEW"], 0.25, "study")[: len(chosen)] == chosen
    assert held_out(names, 0.25, "other") != chosen
    assert len(held_out(["A", "B"], 0.001, "k")) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Spans(np.array([5]), np.array([4])),
        lambda: list(walk_forward(spans_of(10, 0), train_ms=20 * DAY, test_ms=DAY)),
        lambda: list(walk_forward(spans_of(10, 0), train_ms=0, test_ms=DAY)),
        lambda: combinatorial(spans_of(10, 0), groups=4, tests=4),
        lambda: combinatorial(spans_of(3, 0), groups=4, tests=2),
        lambda: combinatorial(spans_of(60, 0), groups=20, tests=10),
        lambda: held_out(["A"], 0.5, "k"),
        lambda: held_out(["A", "B"], 1.0, "k"),
    ],
)
def test_cuts_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()
