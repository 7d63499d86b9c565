"""The sieve: which rows of a file are still good, and why the others are not."""

from dataclasses import dataclass, field

import numpy as np

from core.errors import DataError
from markets.history import Flags


@dataclass
class Sieve:
    """Rows of a source; each is counted under the first reason that rejects it."""

    source: str
    rows: int
    malformed: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    good: Flags = field(init=False)

    def __post_init__(self) -> None:
        self.good = np.ones(self.rows, np.bool_)
        self.count("malformed line", self.malformed)

    @property
    def rows_read(self) -> int:
        """All rows met, malformed lines too."""
        return self.rows + self.malformed

    def count(self, reason: str, rows: int) -> None:
        """Add skipped rows under a reason."""
        if rows:
            self.skipped[reason] = self.skipped.get(reason, 0) + rows

    def reject(self, bad: Flags, reason: str) -> None:
        """Take the rows in ``bad`` out; those already out keep their reason."""
        self.count(reason, int((bad & self.good).sum()))
        self.good &= ~bad

    def nothing_left(self, expected: str) -> DataError:
        """The error for a source of which no row is left."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        return DataError(
            f"{self.source}: no usable row: {reasons or 'it has none'}; expected {expected}"
        )
