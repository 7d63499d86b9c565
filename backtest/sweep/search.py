"""Optuna's search, made reproducible: asked in batches of a fixed size, told in a fixed order.

Its sampler learns from results in the order they come, so asking while results drift in from
threads could never be repeated. The study's journal is written anew by every run; results that are
known already come from the store of rows, so a resumed search asks the very same questions and no
trial is left running for ever.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from backtest.sweep.rows import HIGHER_IS_BETTER, Row, rank_key
from backtest.sweep.space import Axis, Point
from backtest.sweep.sweep import Sweep
from core.errors import ConfigError

BATCH = 64
"""Combinations asked at once. Part of what a search is: another number gives other trials."""


def search(
    sweep: Sweep, axes: Sequence[Axis], count: int, *, metric: str, seed: int, journal: Path | None
) -> Iterator[Row]:
    """Ask for ``count`` combinations in all and run them; yields their rows in order.

    A combination whose ``metric`` is undefined is told as failed, which Optuna counts and does not
    learn from.
    """
    rank_key(metric)
    if not axes:
        raise ConfigError("nothing to search: no parameter has a range")
    study = _study(metric, seed, journal)
    for start in range(0, count, BATCH):
        trials = [study.ask() for _ in range(min(BATCH, count - start))]
        rows = list(sweep.run([_point(trial, axes) for trial in trials]))
        for trial, row in zip(trials, rows, strict=True):
            _tell(study, trial, row.metrics.get(metric))
        yield from rows


def _study(metric: str, seed: int, journal: Path | None) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.unlink(missing_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        direction="maximize" if HIGHER_IS_BETTER[metric] else "minimize",
    )


def _point(trial: Any, axes: Sequence[Axis]) -> Point:
    return {axis.name: _suggest(trial, axis) for axis in axes}


def _suggest(trial: Any, axis: Axis) -> float:
    if axis.values:
        return float(trial.suggest_categorical(axis.name, list(axis.values)))
    if axis.whole:
        return float(trial.suggest_int(axis.name, int(axis.low), int(axis.high)))
    return float(trial.suggest_float(axis.name, axis.low, axis.high))


def _tell(study: Any, trial: Any, value: float | None) -> None:
    from optuna.trial import TrialState

    if value is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)
