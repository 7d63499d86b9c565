"""Returns of every trial of a search, in one small file: what the gate is shown of a sweep.

A NumPy archive that runs no code: ``returns`` float32 (days, trials), ``days`` int64 (UTC days
since 1970), ``trials`` and ``study`` as text, and ``head_count`` and ``head_hash``, where the trial
ledger ended when the file was written. Each column's digest stands in the ledger's row of its
trial, so that no column can be bettered, and none left out, afterwards.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.validation.ledger import Head
from core.errors import DataError


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialReturns:
    """Net return of every UTC day, shape (days, trials), and what it is of."""

    study: str
    trials: tuple[str, ...]
    days: NDArray[np.int64]
    returns: NDArray[np.float32]
    head: Head

    def __post_init__(self) -> None:
        shape = (len(self.days), len(self.trials))
        if self.returns.shape != shape:
            raise DataError(f"returns of {shape} (days, trials) have shape {self.returns.shape}")
        if len(set(self.trials)) != len(self.trials):
            raise DataError("a trial stands in the returns twice")
        if not (np.diff(self.days) == 1).all():
            raise DataError("the days of the returns must follow each other without a gap")
        broken = np.flatnonzero(~np.isfinite(self.returns).all(axis=0))
        if len(broken):
            raise DataError(f"trial {self.trials[broken[0]]} has a return that is no number")


def returns_hash(column: Any) -> str:
    """Digest of one trial's daily returns as the file keeps them (float32)."""
    data = np.ascontiguousarray(column, "<f4").tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def write_returns(path: Path, found: TrialReturns) -> None:
    """Write the file whole: a reader never sees a part of it."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(
            file,
            returns=found.returns.astype("<f4"),
            days=found.days.astype("<i8"),
            trials=np.array(found.trials, dtype=np.str_),
            study=np.array(found.study),
            head_count=np.array(found.head.count),
            head_hash=np.array(found.head.hash),
        )
    part.replace(path)


def read_returns(path: Path) -> TrialReturns:
    """Read the file; DataError when it is not one."""
    try:
        # a file that is no archive must be closed too, and numpy leaves its own open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return TrialReturns(
                study=str(arrays["study"]),
                trials=tuple(arrays["trials"].tolist()),
                days=arrays["days"],
                returns=arrays["returns"],
                head=Head(int(arrays["head_count"]), str(arrays["head_hash"])),
            )
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file of returns") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a file of trial returns: {error}") from error
