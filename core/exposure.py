"""Exposure: what all books together would hold and could lose, were every open order filled.

It is summed anew for every intent, so no sum drifts, and in the order of the books, so equal states
give equal bits. Of thousands of books most are flat: whole groups of them are passed over.
"""

import math
from typing import Any

from core.compiled import compiled, inlined, ints
from core.correlation import correlation
from core.model import InstrumentKind
from core.state import book_of, desk_of, instrument_of, position_of

GROUP_BITS = 6
BOOKS_PER_GROUP = 1 << GROUP_BITS
"""``busy`` holds a word for so many books: zero while all of them are flat with no order open."""


@inlined
def note_busy(state: Any, b: int) -> None:
    """Book ``b`` has an order, without which no book ever comes to hold anything."""
    ints(state.busy)[b >> GROUP_BITS] = 1


@compiled
def _margin(instrument: Any, quantity: float) -> float:
    """Collateral that ``quantity`` ties up, in quote: margin of a perpetual, stake of a binary."""
    if instrument.kind == InstrumentKind.BINARY:
        stake = instrument.price if quantity > 0.0 else 1.0 - instrument.price
        return float(abs(quantity) * stake)
    return float(abs(quantity) * instrument.price / instrument.leverage)


@compiled
def worst_case(instrument: Any, stop_loss: float, quantity: float) -> float:
    """Most that ``quantity`` can lose, in quote: its margin, or the stop where that is nearer."""
    margin = _margin(instrument, quantity)
    if instrument.kind == InstrumentKind.BINARY or stop_loss <= 0.0:
        return margin
    return min(margin, abs(quantity) * instrument.price * stop_loss)


@compiled
def _moving_with(state: Any, b: int, k: int, side: float, pending: float) -> float:
    """What book ``k`` adds to an intent of book ``b`` on this side, in quote; a hedge takes away.

    An open order counts where it adds, for one that hedges may never fill. While the correlation is
    unknown, whatever is held adds.
    """
    other, held = instrument_of(state, book_of(state, k).instrument), position_of(state, k).quantity
    mine = book_of(state, b)
    found = correlation(state, mine.instrument, book_of(state, k).instrument)
    if math.isnan(found):
        return float((abs(held) + abs(pending)) * other.price)
    if abs(found) <= mine.correlation:
        return 0.0
    along = math.copysign(side, side * found)
    return float((along * held + max(along * pending, 0.0)) * other.price)


@compiled
def _add_book(state: Any, b: int, k: int, quantity: float) -> bool:
    """Add book ``k`` to the exposures, with ``quantity`` more; False when it is flat and idle."""
    desk, mine = desk_of(state), book_of(state, b)
    book, position = book_of(state, k), position_of(state, k)
    more = quantity if k == b else 0.0
    held = position.quantity + position.pending
    held += more
    if held == 0.0 and position.pending == 0.0:
        return False
    instrument = instrument_of(state, book.instrument)
    notional = abs(held) * instrument.price
    desk.gross_notional += notional
    desk.pending_notional += abs(position.pending) * instrument.price
    desk.margin += _margin(instrument, held)
    if book.instrument == mine.instrument:
        desk.instrument_notional += notional
    if book.strategy == mine.strategy:
        desk.strategy_notional += notional
    if instrument.cluster == instrument_of(state, mine.instrument).cluster:
        desk.cluster_risk += worst_case(instrument, book.stop_loss, held)
    if not math.isnan(mine.correlation):
        side = math.copysign(1.0, quantity)
        desk.correlated_notional += _moving_with(state, b, k, side, position.pending + more)
    return True


@compiled
def lay_exposures(state: Any, b: int, quantity: float) -> None:
    """Sum what every book would hold with its open orders, and this quantity, filled."""
    desk, busy = desk_of(state), ints(state.busy)
    desk.instrument_notional = 0.0
    desk.strategy_notional = 0.0
    desk.gross_notional = 0.0
    desk.pending_notional = 0.0
    desk.cluster_risk = 0.0
    desk.correlated_notional = 0.0
    desk.margin = 0.0
    home = b >> GROUP_BITS
    for first in range(0, state.books_n, BOOKS_PER_GROUP):
        group, found = first >> GROUP_BITS, 0
        if busy[group] == 0 and group != home:
            continue
        for k in range(first, min(first + BOOKS_PER_GROUP, state.books_n)):
            if _add_book(state, b, k, quantity):
                found = 1
        busy[group] = found
