"""The planner: a wanted quantity becomes the order that shrinks the book and the one that grows it.

They are two, because a close is reduce-only and always allowed while an opening is not, and because
one order through zero could leave a book on the wrong side when it fills in part.
"""

import math
from typing import Any

from core.compiled import compiled
from core.ledger import to_lots
from core.model import InstrumentKind, OrderStyle


@compiled
def limit_price(instrument: Any, quantity: float, offset: float, crossing: bool) -> float:
    """A price ``offset`` away (a fraction of the price, or the price units of a binary), in whole
    ticks, rounded against the trader.

    A crossing order may pay up to it; a resting one asks for at least that much better.
    """
    buys = quantity > 0.0
    scale = 1.0 if instrument.kind == InstrumentKind.BINARY else instrument.price
    away = offset * scale if buys == crossing else -offset * scale
    steps = (instrument.price + away) / instrument.tick
    whole = math.floor(steps + 1e-9) if buys else math.ceil(steps - 1e-9)
    return whole * instrument.tick


@compiled
def plan(position: Any, book: Any, instrument: Any, legs: Any) -> float:
    """Fill ``legs`` for ``legs.wanted``; answers the whole change in quantity."""
    held = position.quantity
    change = to_lots(legs.wanted - held, instrument.lot)
    if held * legs.wanted < 0.0:
        legs.reduce, legs.increase = -held, legs.wanted
    elif held * change < 0.0:
        legs.reduce = change
    else:
        legs.increase = change
    resting = book.style == OrderStyle.LIMIT
    legs.reduce_limit = limit_price(instrument, legs.reduce, book.offset, True)
    legs.increase_limit = limit_price(instrument, legs.increase, book.offset, not resting)
    return change
