"""A sweep is replay done many times: every row equal, whatever the threads, groups or order."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest
from shelf import SHELF, shelf_setup, shelf_world
from worlds import SCRIPT, ScriptReason, one_book, scripted, walk

from backtest.replay import replay
from backtest.statistics import summary
from backtest.sweep.field import Field
from backtest.sweep.rows import Row, rank_key
from backtest.sweep.space import Axis, axes_of, grid, parse_axis, sobol
from backtest.sweep.sweep import Subject, Sweep
from core.errors import ConfigError, MissingInput, UnknownName
from core.strategy import Param, Strategy
from strategies.e3 import E3
from strategies.features import sma
from strategies.trend import TREND

BARS = 1_200
POINTS = sobol(axes_of(TREND, {"fast": "3:30", "slow": "20:120"}, ()), 48, seed=4)


def subject_of(name: str) -> Subject:
    setup = shelf_setup(name)
    books = frozenset(entry.book.name for entry in setup.books)
    return Subject(setup=setup, books=books, histories=shelf_world(name, BARS))


def trend_subject(bars: int = BARS) -> Subject:
    setup = one_book(TREND, fee_rate=5e-4, slippage_bps=2.0)
    return Subject(setup=setup, books=frozenset(["book"]), histories={"X": walk(bars)})


def swept(subject: Subject, points: Sequence[Any], **more: Any) -> list[Row]:
    return list(Sweep(subject, **{"threads": 2, **more}).run(points))


def assert_replayed(subject: Subject, row: Row) -> None:
    """The row is what replay gives, to the last bit of every figure both have."""
    run = replay(subject.at(row.params), subject.histories)
    assert run.decisions_hash == row.decisions_hash, row.params
    told = summary(run)
    told["refused"], told["halted"] = sum(told["refused"].values()), int(told["halted"])
    shared = set(told) & set(row.metrics)
    assert len(shared) > 10
    assert {name: row.metrics[name] for name in shared} == {name: told[name] for name in shared}


def test_a_hundred_random_rows_are_what_replay_gives() -> None:
    subject = trend_subject()
    rows = swept(subject, sobol(axes_of(TREND, {}, ()), 100, seed=7))
    assert sum(int(row.metrics["trades"] or 0) for row in rows) > 500
    for row in rows:
        assert_replayed(subject, row)


@pytest.mark.parametrize("name", SHELF)
def test_every_strategy_of_the_shelf_sweeps_as_it_replays(name: str) -> None:
    # rules state their own size, which the command line follows; here it stays as it is
    subject = subject_of(name)
    chosen = dict(SHELF[name][1])
    first = next(iter(chosen))
    points = [{**chosen, first: chosen[first] * scale} for scale in (1.0, 2.0, 3.0)]
    for row in swept(subject, points):
        assert_replayed(subject, row)


def test_neither_threads_nor_groups_nor_order_change_a_row() -> None:
    subject = trend_subject()
    told = {str(row.params): row.plain() | {"place": 0} for row in swept(subject, POINTS)}
    for more in ({"threads": 1}, {"threads": 3}, {"threads": 2, "group": 7}):
        rows = swept(subject, POINTS[::-1], **more)
        assert {str(row.params): row.plain() | {"place": 0} for row in rows} == told


def test_any_length_of_tile_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = trend_subject()
    hashes = [row.decisions_hash for row in swept(subject, POINTS)]
    for events in (1, 17, 700):
        monkeypatch.setattr("backtest.sweep.field.EVENTS_PER_TILE_MAX", events)
        assert [row.decisions_hash for row in swept(subject, POINTS)] == hashes


def test_indicators_with_equal_parameters_are_one_column() -> None:
    subject = trend_subject()
    points = grid([parse_axis(TREND, "fast", "5:14:1"), parse_axis(TREND, "slow", "20:29:1")])
    field = Field([subject.at(p) for p in points], {"X": frozenset(["close"])}, threads=1)
    # ten fast and ten slow averages, the close they read, and the regime
    assert field.columns == 22


PEAK = """
import sys
sys.path[:0] = ["tests", "tests/backtest", "."]
from sweep_child import trend_subject, points
from backtest.sweep.sweep import Sweep
count = 0
for row in Sweep(trend_subject(), threads=2, group=256).run(points(int(sys.argv[1]))):
    count += 1
assert count == int(sys.argv[1])
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


def peak_kb(count: int) -> int:

    command = [sys.executable, "-c", PEAK, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_does_not_grow_with_the_number_of_combinations() -> None:
    few, many = peak_kb(256), peak_kb(4_096)
    assert many - few < 20_000  # the parameters alone are 2 MB


def scaled(f: Any, _position: Any, p: Any) -> tuple[float, float, int]:
    return p.scale if f.close > f.mean else -p.scale, 1.0, 0


SCALED = Strategy(
    name="scaled",
    decide=scaled,
    reasons=ScriptReason,
    features={"close": "close", "mean": sma(window=20)},
    params={"scale": Param(1.0, 0.0, 2.0)},
)


def test_a_combination_that_fails_is_a_row_that_says_so() -> None:
    subject = Subject(setup=one_book(SCALED), books=frozenset(["book"]), histories={"X": walk(200)})
    good, bad, other = swept(subject, [{"scale": 1.0}, {"scale": 1.5}, {"scale": 0.5}])
    assert bad.error == (
        "book at 2025-05-04T00:20:00.000: target must lie in [-1, 1] and confidence in [0, 1]"
    )
    assert (bad.metrics, bad.decisions_hash) == ({}, None)
    assert_replayed(subject, good)
    assert_replayed(subject, other)


def test_figures_that_do_not_exist_are_none_and_rank_last() -> None:
    flat = scripted([0.0] * 30, [100.0] * 30, [100.0] * 30)
    subject = Subject(setup=one_book(SCRIPT), books=frozenset(["book"]), histories={"X": flat})
    (row,) = swept(subject, [{"stop_loss": 0.5}])
    for name in ("win_rate", "profit_factor", "sharpe", "sortino"):
        assert row.metrics[name] is None
    better = changed(row, metrics={"sharpe": -9.0})
    assert sorted([row, better], key=rank_key("sharpe")) == [better, row]


class Counting:
    """Keeps the order in which trials were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def on_trials_begin(self, points: Sequence[Mapping[str, float]]) -> None:
        self.told += [("begin", point["fast"]) for point in points]

    def on_trials_end(self, rows: Sequence[Row]) -> None:
        self.told += [("end", row.params["fast"]) for row in rows]

    def on_rows_found(self, rows: Sequence[Row]) -> None:
        raise AssertionError("nothing was kept before")


def test_every_trial_is_told_before_its_result_is_known() -> None:
    trials = Counting()
    points = [{"fast": float(n)} for n in (5, 6, 7)]
    sweep = Sweep(trend_subject(100), threads=1, group=2, trials=trials)
    list(sweep.run(points))
    begin, end = ("begin", "end")
    assert trials.told == [
        *((begin, 5.0), (begin, 6.0), (end, 5.0), (end, 6.0)),
        *((begin, 7.0), (end, 7.0)),
    ]


def test_what_cannot_be_swept_is_refused() -> None:
    subject = trend_subject(50)
    plain = Subject(
        setup=one_book(changed(TREND, compiled=False)),
        books=frozenset(["book"]),
        histories=subject.histories,
    )
    with pytest.raises(ConfigError, match="a sweep needs a compiled one"):
        swept(plain, [{"fast": 5.0}])
    with pytest.raises(MissingInput, match="e3 needs"):
        swept(
            Subject(setup=one_book(E3), books=frozenset(["book"]), histories=subject.histories),
            [{}],
        )
    setups = [subject.setup, changed(subject.setup, equity=5.0)]
    with pytest.raises(ConfigError, match="may differ in parameters and sizing only"):
        Field(setups, {"X": frozenset(["close"])}, threads=1)


def test_ranges_say_what_is_wrong_with_them() -> None:
    with pytest.raises(UnknownName, match="did you mean 'fast'"):
        parse_axis(TREND, "fats", "5:50:5")
    with pytest.raises(ConfigError, match="write fast=LOW:HIGH:STEP"):
        parse_axis(TREND, "fast", "50:5:5")
    with pytest.raises(ConfigError, match="step must be above zero"):
        parse_axis(TREND, "fast", "5:50:0")
    with pytest.raises(ConfigError, match="a grid needs a step"):
        grid([Axis("fast", 5.0, 50.0)])
    with pytest.raises(ConfigError, match="the grid is empty"):
        grid([])
    axes = [parse_axis(TREND, name, "1:10000:1") for name in ("fast", "slow")]
    with pytest.raises(ConfigError, match="100,000,000 combinations are too many"):
        grid(axes)
    with pytest.raises(ConfigError, match="the sweep is empty"):
        Field([], {}, threads=1)


def test_a_step_gives_the_numbers_a_person_would_type() -> None:
    assert parse_axis(TREND, "stop_loss", "0.1:0.3:0.1").values == (0.1, 0.2, 0.3)
    assert parse_axis(TREND, "fast", "5,10,5").values == (5.0, 10.0)


def test_sobol_fills_whole_ranges_with_whole_numbers_and_repeats_itself() -> None:
    axes = axes_of(TREND, {}, ["stop_loss"])
    points = sobol(axes, 64, seed=1)
    assert points == sobol(axes, 64, seed=1) != sobol(axes, 64, seed=2)
    assert [axis.name for axis in axes] == ["fast", "slow", "take_profit", "trailing_stop"]
    fast = np.array([point["fast"] for point in points])
    assert (fast == fast.astype(int)).all()
    assert fast.min() < 15
    assert fast.max() > 90
