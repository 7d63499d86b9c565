"""The trial ledger of the journal, open for a search, and the file of returns that it seals."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backtest.breakdown import day_of
from backtest.sweep.counting import LedgerTrials
from backtest.sweep.rows import Row
from backtest.sweep.sweep import Subject
from backtest.validation.ledger import Ledger
from backtest.validation.returns import TrialReturns, write_returns
from core.errors import DataError
from daemon.clock import now_ms
from daemon.journal.patience import patiently


@contextmanager
def open_ledger(url: str) -> Iterator[Ledger]:
    """The ledger of the journal at ``url``, trials that a kill left open marked as crashed."""
    from daemon.journal import open_journal
    from daemon.journal.trials import trial_ledger

    database = open_journal(url)
    try:
        ledger = trial_ledger(database)
        ledger.sweep_up(now_ms=now_ms())
        yield ledger
    finally:
        database.dispose()


def trials_of(ledger: Ledger, subject: Subject, study: str) -> LedgerTrials:
    """Tells the ledger of a study's trials; an outage of the database is waited for."""
    return LedgerTrials(ledger, subject, study, now_ms=now_ms, attempt=patiently)


@dataclass(slots=True)
class ReturnsFile:
    """Gathers the returns of a study's trials and writes them as ``lockstep validate`` reads them.

    Every trial that ended with a result stands in it: the gate refuses a file that lacks one.
    """

    path: Path
    trials: LedgerTrials
    columns: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Take a row; one that failed has no returns."""
        if row.error is None:
            self.columns[self.trials.trial_of(row.params)] = self.trials.returns_of(row)

    def write(self, ledger: Ledger, first_ms: int) -> None:
        """Write the file; ``first_ms`` is when the first event was known."""
        if not self.columns:
            raise DataError(f"{self.path}: no trial ended with a result: there are no returns")
        returns = np.stack(list(self.columns.values()), axis=1)
        first = int(day_of(first_ms))
        found = TrialReturns(
            study=self.trials.study,
            trials=tuple(self.columns),
            days=np.arange(first, first + len(returns)),
            returns=returns,
            head=ledger.head(),
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_returns(self.path, found)
