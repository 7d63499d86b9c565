"""Every combination of a sweep as a trial of the ledger: N is honest because nobody has to ask.

A trial is known by its sweep and its parameters, and a sweep by its causes. So whoever runs the
same one again (after a kill, on another machine, or twice at once) tells the same trial, which the
ledger counts once; a second result that differs from the first is refused.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from backtest.run import program_hash
from backtest.statistics import returns_of
from backtest.sweep.rows import Row
from backtest.sweep.store import params_key
from backtest.sweep.sweep import Subject
from backtest.validation.ledger import Ending, Fate, Ledger, LedgerBroken, Trial
from backtest.validation.returns import returns_hash
from core.model import MICROS_PER_UNIT

Done = TypeVar("Done")
Attempt = Callable[[Callable[[], Done]], Done]

LEASE_MS = 3_600_000
"""A group of combinations takes seconds to minutes; one that is open for an hour has crashed."""


class LedgerTrials:
    """Tells a ledger of the trials of one study; a ``backtest.sweep.sweep.Trials``.

    ``now_ms`` is the clock. ``attempt`` makes each call of the ledger, and may make it again when
    the database was away: every call may be repeated.
    """

    def __init__(
        self,
        ledger: Ledger,
        subject: Subject,
        study: str,
        *,
        now_ms: Callable[[], int],
        attempt: Attempt[None] = lambda call: call(),
    ) -> None:
        self.study = study
        self._ledger, self._now_ms, self._attempt = ledger, now_ms, attempt
        causes, strategy = subject.causes(), subject.strategy
        self._code, self._equity = causes["code"], subject.setup.equity
        self._data = _digest(params_key(causes["data"]))
        self._strategy = program_hash(strategy) or _digest(strategy.name)
        self._attempts: dict[str, int] = {}

    def trial_of(self, params: Mapping[str, float]) -> str:
        """The id under which the newest attempt at these parameters stands."""
        key = params_key(params)
        attempt = self._attempts.get(key, 1)
        return f"{self.study}-{_digest(key)}" + (f".{attempt}" if attempt > 1 else "")

    def returns_of(self, row: Row) -> NDArray[np.float32]:
        """Daily returns as the file of returns holds them; once equity is gone they are zero."""
        returns = returns_of(row.daily_micros / MICROS_PER_UNIT, self._equity)
        return np.nan_to_num(returns).astype(np.float32)

    def on_trials_begin(self, points: Sequence[Mapping[str, float]]) -> None:
        """Write that these are about to run; one that crashed begins as a trial of its own."""
        self._attempt(lambda: self._begin(points))

    def on_trials_end(self, rows: Sequence[Row]) -> None:
        """Write how they ended. LedgerBroken when one ended otherwise before."""
        self._attempt(lambda: self._end(rows))

    def on_rows_found(self, rows: Sequence[Row]) -> None:
        """Rows kept by an earlier run stand in the ledger already, unless it is another one."""
        self.on_trials_begin([row.params for row in rows])
        self.on_trials_end(rows)

    def _begin(self, points: Sequence[Mapping[str, float]]) -> None:
        self._pass_crashed(points)
        trials = [
            Trial(
                id=self.trial_of(point),
                study=self.study,
                params_hash=_digest(params_key(point)),
                strategy_hash=self._strategy,
                data_hash=self._data,
                code=self._code,
            )
            for point in points
        ]
        self._ledger.begin(trials, now_ms=self._now_ms(), lease_ms=LEASE_MS, again=True)

    def _pass_crashed(self, points: Sequence[Mapping[str, float]]) -> None:
        while points:
            known = self._ledger.endings([self.trial_of(point) for point in points])
            lost = {name for name, ending in known.items() if ending.fate is Fate.CRASHED}
            points = [point for point in points if self.trial_of(point) in lost]
            for point in points:
                key = params_key(point)
                self._attempts[key] = self._attempts.get(key, 1) + 1

    def _end(self, rows: Sequence[Row]) -> None:
        endings = [self._ending(row) for row in rows]
        self._ledger.end(endings, now_ms=self._now_ms(), again=True)
        told = self._ledger.endings([ending.trial for ending in endings])
        late = []
        for row, ending in zip(rows, endings, strict=True):
            if told[ending.trial].fate is Fate.CRASHED:
                late.append(row)
            elif told[ending.trial] != ending:
                raise LedgerBroken(
                    f"trial ledger: trial {ending.trial} ended otherwise before: equal causes must "
                    "give equal results"
                )
        if late:  # taken for crashed while it ran: the row that began it stands all the same
            self._begin([row.params for row in late])
            self._end(late)

    def _ending(self, row: Row) -> Ending:
        trial = self.trial_of(row.params)
        if row.error is not None:
            return Ending(trial=trial, fate=Fate.FAILED, note=row.error)
        return Ending(
            trial=trial,
            fate=Fate.RESULT,
            returns_hash=returns_hash(self.returns_of(row)),
            decisions_hash=row.decisions_hash or "",
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
