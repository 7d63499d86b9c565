"""What we think we hold against what the venue says we hold, net of all books, to the lot.

Books are virtual: the venue knows one position an instrument. Where the two differ, nobody knows
which orders to trust, so a difference is told and trading stops; nothing is adjusted.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An instrument whose two positions differ, both in units, long positive."""

    instrument: str
    ours: Decimal
    venue: Decimal

    def __str__(self) -> str:
        return (
            f"{self.instrument}: the books hold {self.ours:f}, the venue {self.venue:f} "
            f"(it has {self.venue - self.ours:+f} more)"
        )


def mismatches(
    books: Iterable[tuple[str, float]],
    venue: Mapping[str, Decimal],
    lots: Mapping[str, float],
    *,
    unsettled: Collection[str] = (),
) -> tuple[Mismatch, ...]:
    """The instruments whose positions differ by a lot or more, by name.

    ``books`` is each book's instrument and quantity, ``venue`` the exact position of every
    instrument it has one in, ours or not; ``lots`` is of all of ours. An ``unsettled`` instrument
    has an order whose fate is unknown, and is left for the next time. What is less than a lot
    cannot be traded, and is no difference.
    """
    ours = {instrument: Decimal(0) for instrument in lots}
    for instrument, quantity in books:
        lot = lots[instrument]
        ours[instrument] += round(quantity / lot) * Decimal(str(lot))
    found = []
    for name in sorted({*ours, *venue} - set(unsettled)):
        mine, theirs = ours.get(name, Decimal(0)), venue.get(name, Decimal(0))
        # of an instrument that is not ours, anything at all is a difference
        least = Decimal(str(lots[name])) if name in lots else Decimal(0)
        if mine != theirs and abs(mine - theirs) >= least:
            found.append(Mismatch(name, mine, theirs))
    return tuple(found)
