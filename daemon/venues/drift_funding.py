"""Funding of the books against funding of the account: told by a feed, and settled by the chain.

The chain's count grows by an hour at a time, and that of the books a little sooner or later, so
both are counted from the same hour of each instrument to the same hour. Counting begins anew at
each start, for the account itself does not tell which run its past belongs to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from anyio import to_thread
from sqlalchemy import and_, func, or_, select

from core.model import MICROS_PER_UNIT
from daemon.journal import SqlJournal
from daemon.journal.database import transaction
from daemon.journal.schema import events, funding
from daemon.live.service import Clock
from markets.drift.account import Holdings

HOUR_MS = 3_600_000
LATE_MS = 900_000
"""How long after the chain settled an hour the books may still not have heard of it."""

log = structlog.get_logger(__name__)

Hours = Mapping[int, int]
"""The last hour the chain has settled (counted from 1970), by instrument."""


class Paid(NamedTuple):
    """What books paid (received: negative), and in how many payments."""

    micros: int
    payments: int


@dataclass(frozen=True, slots=True)
class Received:
    """Funding received since the start by the account and by the books, and how far apart rounding
    alone may bring them, in micros."""

    venue_micros: int
    books_micros: int
    tolerance_micros: float

    @property
    def apart_micros(self) -> int:
        """What the books received beyond the account."""
        return self.books_micros - self.venue_micros

    @property
    def agree(self) -> bool:
        """Whether rounding explains the difference."""
        return abs(self.apart_micros) <= self.tolerance_micros


class FundingWatch:
    """Compares from time to time; ``markets`` is the name of each instrument's market."""

    def __init__(self, journal: SqlJournal, markets: Mapping[int, str], clock: Clock) -> None:
        self._journal, self._markets, self._clock = journal, markets, clock
        self._base_micros = 0
        self._base_hours: Hours = {}
        self._told: tuple[Hours, int] = ({}, 0)

    def begin(self, holdings: Holdings) -> None:
        """Count from here on."""
        self._base_micros, self._base_hours = _total(holdings), self._hours(holdings)

    async def look(self, holdings: Holdings) -> Received | None:
        """Compare, and tell what is new; None while they differ by what may still come."""
        hours = self._hours(holdings)
        paid = await to_thread.run_sync(self._paid, hours)
        received = Received(
            venue_micros=_total(holdings) - self._base_micros,
            books_micros=-paid.micros,
            tolerance_micros=tolerance_micros(paid.payments, len(hours)),
        )
        newest_ms = max(holdings.funding_ms.values(), default=0)
        if not received.agree and self._clock() < newest_ms + LATE_MS:
            return None
        self._tell(received, hours)
        return received

    def _hours(self, holdings: Holdings) -> Hours:
        return {i: holdings.funding_ms[name] // HOUR_MS for i, name in self._markets.items()}

    def _paid(self, hours: Hours) -> Paid:
        """What the journal has of the hours past the first."""
        spans = [
            and_(
                events.c.instrument == i,
                events.c.ts_event >= (self._base_hours[i] + 1) * HOUR_MS,
                events.c.ts_event < (hour + 1) * HOUR_MS,
            )
            for i, hour in hours.items()
        ]
        micros = func.coalesce(func.sum(funding.c.paid_micros), 0)
        same = and_(events.c.run_id == funding.c.run_id, events.c.seq == funding.c.seq)
        query = (
            select(micros, func.count())
            .select_from(funding.join(events, same))
            .where(funding.c.run_id == self._journal.run_id, or_(*spans))
        )
        with transaction(self._journal.engine) as connection:
            return Paid(*map(int, connection.execute(query).one()))

    def _tell(self, received: Received, hours: Hours) -> None:
        news = (hours, received.apart_micros)
        if news == self._told:
            return
        self._told = news
        said = {
            "venue": received.venue_micros / MICROS_PER_UNIT,
            "books": received.books_micros / MICROS_PER_UNIT,
        }
        if received.agree:
            log.info("funding reconciled", **said)
        else:
            apart = received.apart_micros / MICROS_PER_UNIT
            log.warning("funding of books and venue differs", **said, apart=apart)


def tolerance_micros(payments: int, markets: int) -> float:
    """What rounding may amount to: each payment of a book is rounded to the nearest micro, and what
    the chain settles of an hour, or owes at either end, towards zero."""
    return 1.5 * payments + 2 * markets


def _total(holdings: Holdings) -> int:
    return holdings.funding_settled + holdings.funding_owed
