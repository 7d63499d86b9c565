"""Optuna's search, made reproducible: asked in batches of a fixed size, told in a fixed order.

Its sampler learns from results in the order they come, so asking while results drift in from
threads or machines could never be repeated. Every trial has chance and a place of its own, so what
is asked at a place depends on the seed and on what was told before it, and on nothing else: a
search that was killed anywhere goes on with the trials it had asked as if nothing had been, two
that ask at once ask the same, and one that came to its end leaves no trial running.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from backtest.sweep.rows import HIGHER_IS_BETTER, Row, rank_key
from backtest.sweep.space import Axis, Point
from core.errors import ConfigError

BATCH = 64
"""Combinations asked at once. Part of what a search is: another number gives other trials."""

PLACE = "place"
"""Where a trial stands in its search: two that ask at once write it twice, with two numbers."""

Storing: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Opens the storage of a study; what is asked and told in it is there when it closes."""
Turn: TypeAlias = Callable[[Callable[[], list[Point]]], list[Point]]
"""Makes a turn of the study, and may make it again when nobody knows whether it went through."""


def at_once(turn: Callable[[], list[Point]]) -> list[Point]:
    """A turn of a study that cannot be away."""
    return turn()


@contextmanager
def file_storage(path: Path) -> Iterator[Any]:
    """Optuna's journal in a file of this machine."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _drop_torn_line(path)
    yield JournalStorage(JournalFileBackend(str(path)))


def _drop_torn_line(path: Path) -> None:
    """A power cut may leave half a line at the end, behind which Optuna reads nothing."""
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with path.open("r+b") as file:
            file.truncate(whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """A search of ``count`` combinations, under a name by which its study is found again.

    A combination whose ``metric`` is undefined is told as failed, which Optuna counts and does not
    learn from. ``storing`` opens the study's storage, ``attempt`` makes every turn in it.
    """

    name: str
    axes: Sequence[Axis]
    count: int
    metric: str
    seed: int
    storing: Storing
    attempt: Turn = at_once

    def __post_init__(self) -> None:
        rank_key(self.metric)
        if not self.axes:
            raise ConfigError("nothing to search: no parameter has a range")

    def rows(self, run: Callable[[list[Point], int], Iterator[Row]]) -> Iterator[Row]:
        """The rows in order; ``run`` answers those of a batch, given the place of its first."""
        rows: list[Row] = []
        for start in range(0, self.count, BATCH):
            points = self._turn(rows, start)
            rows = list(run(points, start))
            yield from rows
        self._turn(rows, self.count)

    def _turn(self, rows: Sequence[Row], start: int) -> list[Point]:
        """Tell the batch before ``start``, and ask the one that begins there."""

        def turn() -> list[Point]:
            with self.storing() as storage:
                study = self._study(storage, self.name)
                self._tell(study, rows, start - len(rows))
                known = _by_place(study)
                stop = min(start + BATCH, self.count)
                if len(known) < stop:
                    self._ask(study, known, stop)
                return [self._point(trial) for trial in known[start:stop]]

        return self.attempt(turn)

    def _study(self, storage: Any, name: str | None = None) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if HIGHER_IS_BETTER[self.metric] else "minimize",
            load_if_exists=True,
        )

    def _tell(self, study: Any, rows: Sequence[Row], first: int) -> None:
        """Tell these results; a trial that was told before stays as it is."""
        from optuna.trial import TrialState

        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            place = trial.user_attrs[PLACE] - first
            if 0 <= place < len(rows):
                value = rows[place].metrics.get(self.metric)
                ended = {"state": TrialState.FAIL} if value is None else {"values": value}
                study.tell(trial.number, **ended, skip_if_finished=True)

    def _ask(self, study: Any, known: list[Any], stop: int) -> None:
        """Ask what is missing of ``known`` up to a place. A copy of the study in memory is asked,
        which is fast, and a trial is written once it is whole."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState, create_trial

        copy = self._study(None)
        copy.add_trials(known)
        for place in range(len(known), stop):
            (seed,) = np.random.SeedSequence([self.seed, place]).generate_state(1).tolist()
            copy.sampler = TPESampler(seed=seed, constant_liar=True)
            asked = copy.ask()
            for axis in self.axes:
                _suggest(asked, axis)
            trial = create_trial(
                state=TrialState.RUNNING,
                params=asked.params,
                distributions=asked.distributions,
                user_attrs={PLACE: place},
            )
            study.add_trial(trial)
            known.append(trial)

    def _point(self, trial: Any) -> Point:
        return {axis.name: float(trial.params[axis.name]) for axis in self.axes}


def _suggest(trial: Any, axis: Axis) -> None:
    if axis.values:
        trial.suggest_categorical(axis.name, list(axis.values))
    elif axis.whole:
        trial.suggest_int(axis.name, int(axis.low), int(axis.high))
    else:
        trial.suggest_float(axis.name, axis.low, axis.high)


def _by_place(study: Any) -> list[Any]:
    """The trials of a study in order of their places, one of each."""
    trials = study.get_trials(deepcopy=False)
    found = {trial.user_attrs[PLACE]: trial for trial in reversed(trials)}
    return [found[place] for place in range(len(found))]
