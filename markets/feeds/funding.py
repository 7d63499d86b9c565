"""Hourly funding, each settlement once: a venue settles on the hour and tells it a little later.

A settlement keeps the venue's own stamp, some milliseconds past the hour, so the bar that closes on
the hour need not wait for it. The bars that follow do wait, but only while the venue answers: one
that cannot be asked about funding must not blind us to prices, and what it tells later comes late.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from markets.feeds.link import Trouble
from markets.history import Times

HOUR_MS = 3_600_000

Stamps = TypeVar("Stamps", int, Times)


class Settlement(NamedTuple):
    """Funding that was paid: ``rate`` is the fraction of notional longs paid for one hour, and
    ``price`` what the notional was reckoned at (NaN where the venue does not tell)."""

    coin: str
    time_ms: int
    rate: float
    price: float = math.nan


def known_from(stamps: Stamps) -> Stamps:
    """When settlements of these stamps (ms) are known. A bar that closes on the very hour did not
    wait for one stamped on it, so that one comes a millisecond later: live, and in a history."""
    known: Stamps = stamps + (stamps % HOUR_MS == 0)
    return known


class FundingCalendar:
    """Settlements of one instrument: answers of the venue in, each settlement out once."""

    def __init__(
        self,
        start_ms: int,
        count: Callable[[Trouble], None],
        *,
        grace_ms: int = 5_000,
        absent_ms: int = 120_000,
    ) -> None:
        self.grace_ms, self.absent_ms = grace_ms, absent_ms
        # the first hour whose settlement is not known: all before it are
        self.hour_ms = -(-start_ms // HOUR_MS) * HOUR_MS
        self._count = count
        self._known: deque[Settlement] = deque()
        self._failing_ms: int | None = None
        self._taken_ms = 0

    def wants(self, venue_ms: int) -> bool:
        """Whether the venue must be asked."""
        return venue_ms >= self.hour_ms + self.grace_ms

    def known_ms(self, venue_ms: int) -> int:
        """Up to when nothing need wait for funding."""
        failing_ms = self._failing_ms
        patient = failing_ms is None or venue_ms < failing_ms + self.absent_ms
        return self.hour_ms if patient else max(venue_ms, self.hour_ms)

    def fail(self, venue_ms: int) -> None:
        """The venue could not be asked."""
        if self._failing_ms is None:
            self._failing_ms = venue_ms

    def settle(self, settlements: Sequence[Settlement], until_ms: int, venue_ms: int) -> None:
        """The venue's answer: all settlements from ``hour_ms`` and before ``until_ms``, known at a
        venue time of at least ``venue_ms``."""
        self._failing_ms = None
        by_hour = {row.time_ms // HOUR_MS * HOUR_MS: row for row in settlements}
        while self.hour_ms < until_ms and venue_ms >= self.hour_ms:
            known = by_hour.get(self.hour_ms)
            if known is not None:
                self._known.append(known)
            elif venue_ms >= self.hour_ms + self.absent_ms:
                self._count(Trouble.SETTLEMENT_ABSENT)
            else:
                return
            self.hour_ms += HOUR_MS

    def take(self, until_ms: int) -> list[tuple[int, Settlement]]:
        """Settlements told by then, oldest first, each with when it came to be known; only once."""
        taken = []
        while self._known and self._known_from_ms(self._known[0]) <= until_ms:
            taken.append((self._known_from_ms(self._known[0]), self._known.popleft()))
        self._taken_ms = max(self._taken_ms, until_ms)
        return taken

    def _known_from_ms(self, settlement: Settlement) -> int:
        return max(known_from(settlement.time_ms), self._taken_ms + 1)
