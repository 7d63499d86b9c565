"""A sweep that is killed goes on where it was; a search asks the same questions again."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend
from sweep_child import points, trend_subject

from backtest.sweep.rows import Row
from backtest.sweep.search import Questions, file_storage
from backtest.sweep.space import axes_of
from backtest.sweep.store import Store
from backtest.sweep.sweep import Sweep
from core.errors import DataError, UnknownName
from strategies.trend import TREND

COUNT = 2_048


class Begun:
    """Counts the trials that ran."""

    def __init__(self) -> None:
        self.count = self.found = 0

    def on_trials_begin(self, points: Sequence[Any]) -> None:
        self.count += len(points)

    def on_trials_end(self, rows: Sequence[Row]) -> None:
        pass

    def on_rows_found(self, rows: Sequence[Row]) -> None:
        self.found += len(rows)


def killed_after(path: Path, rows: int) -> None:
    """Run a sweep in a process of its own and kill -9 it once so many rows are told."""
    child = Path(__file__).with_name("sweep_child.py")
    tests = str(child.parent.parent)
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([tests, str(child.parents[2])]))
    with subprocess.Popen(
        [sys.executable, str(child), str(path), str(COUNT)],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for _ in range(rows):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)


def test_a_killed_sweep_goes_on_and_gives_every_row_once(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.sqlite"
    killed_after(path, 40)
    begun = Begun()
    sweep = Sweep(
        trend_subject(), threads=2, group=64, store=Store(path), resume=True, trials=begun
    )
    assert 40 <= sweep.resumed < COUNT
    assert sweep.resumed % 16 == 0  # whole groups only
    rows = [row.plain() for row in sweep.run(points(COUNT))]
    assert (begun.count, begun.found) == (COUNT - sweep.resumed, sweep.resumed)
    fresh = [row.plain() for row in Sweep(trend_subject(), threads=1).run(points(COUNT))]
    assert rows == fresh
    with closing(sqlite3.connect(path)) as database, database:
        kept = database.execute("select count(*), count(distinct place) from row").fetchone()
    assert kept == (COUNT, COUNT)


def test_without_resume_a_sweep_begins_anew_and_another_one_is_another(tmp_path: Path) -> None:
    store, begun = Store(tmp_path / "s.sqlite"), Begun()
    for resume, ran in ((False, 8), (True, 8), (False, 16)):
        sweep = Sweep(trend_subject(), threads=1, store=store, resume=resume, trials=begun)
        assert len(list(sweep.run(points(8)))) == 8
        assert begun.count == ran
    other = Sweep(trend_subject(301), threads=1, store=store, resume=True)
    assert other.resumed == 0
    assert other.key != sweep.key


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_text("these are not the rows you are looking for " * 40)
    with pytest.raises(DataError, match="no store of sweeps"):
        Store(path)


BATCH = 24
AXES = axes_of(TREND, {"fast": "3:30", "slow": "20:120", "stop_loss": "0:0.1"}, ())


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtest.sweep.search.BATCH", BATCH)


def asked(tmp_path: Path, count: int, seed: int = 3, **more: Any) -> list[dict[str, Any]]:
    sweep = Sweep(trend_subject(900), **{"threads": 2, **more})
    return [row.plain() for row in questions(tmp_path, count, seed).rows(sweep.run)]


def questions(tmp_path: Path, count: int, seed: int = 3, metric: str = "return") -> Questions:
    storing = partial(file_storage, tmp_path / f"{seed}.journal")
    terms: dict[str, Any] = {"axes": AXES, "metric": metric, "seed": seed, "storing": storing}
    return Questions(name="study", count=count, **terms)


def trials_in(tmp_path: Path, seed: int = 3) -> list[Any]:
    import optuna

    with file_storage(tmp_path / f"{seed}.journal") as storage:
        study = optuna.load_study(study_name="study", storage=storage)
        trials: list[Any] = study.get_trials()
    return trials


def test_optuna_asks_the_same_of_any_number_of_threads(tmp_path: Path) -> None:
    first = asked(tmp_path / "a", 72)
    assert first == asked(tmp_path / "b", 72, threads=1)
    assert first != asked(tmp_path / "a", 72, seed=4)
    # it learns: what it asks for late is better than what it asked for blindly
    gained = [row["metrics"]["return"] for row in first]
    assert sum(gained[-24:]) > sum(gained[:24])


class Killed(BaseException):
    """What no code of ours catches, as nobody catches kill -9."""


def killed_at(monkeypatch: pytest.MonkeyPatch, write: int) -> None:
    """Die instead of the write of this number into the file of the study."""
    written, append = iter(range(write)), JournalFileBackend.append_logs

    def append_or_die(self: Any, logs: Any) -> None:
        if next(written, None) is None:
            raise Killed
        append(self, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", append_or_die)


def test_a_search_killed_at_any_write_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    store, whole = Store(tmp_path / "s.sqlite"), asked(tmp_path, 56)
    broken, kills, rows = tmp_path / "broken", 0, []
    while not rows:
        kills += 1
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            killed_at(patch, 6 + kills % 4)
            rows = asked(broken, 56, store=store, resume=True)
    assert rows == whole
    assert kills > 20
    mine, theirs = trials_in(broken), trials_in(tmp_path)
    assert [trial.params for trial in mine] == [trial.params for trial in theirs]
    assert {trial.state.name for trial in mine} == {"COMPLETE"}


def test_half_a_line_that_a_power_cut_left_is_dropped(tmp_path: Path) -> None:
    whole = asked(tmp_path, 24)
    with (tmp_path / "3.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert asked(tmp_path, 48)[:24] == whole


def test_two_that_ask_one_study_at_once_ask_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, append = asked(tmp_path / "whole", 48), JournalFileBackend.append_logs

    def append_both(self: Any, logs: list[dict[str, Any]]) -> None:
        append(self, [log for log in logs for _ in range(2 if "params" in log else 1)])

    monkeypatch.setattr(JournalFileBackend, "append_logs", append_both)
    assert asked(tmp_path, 48) == whole
    trials = trials_in(tmp_path)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 96


def test_an_unknown_metric_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'sharpe'"):
        questions(tmp_path, 8, metric="sharp")
