"""Exact accounts: every amount is rounded to a micro once, at its fill, and is an integer after.

Two roads to equity must meet to the unit: cash plus the value of what is held, and
start + realised + unrealised - fees - funding. Property tests walk both.
"""

import math
from typing import Any

from core.compiled import compiled, inlined
from core.model import MICROS_PER_UNIT


@inlined
def micros(amount: float) -> int:
    """Quote to micros, half up."""
    return math.floor(amount * MICROS_PER_UNIT + 0.5)


@inlined
def to_lots(quantity: float, lot: float) -> float:
    """The multiple of ``lot`` nearest to ``quantity``: one float for one size, so that two
    quantities are equal exactly when they are the same number of lots."""
    return math.floor(quantity / lot + 0.5) * lot


@inlined
def equity_micros(account: Any) -> int:
    """start + realised + unrealised - fees - funding."""
    return int(
        account.start_micros
        + account.realised_micros
        + account.unrealised_micros
        - account.fees_micros
        - account.funding_micros
    )


@compiled
def book_fill(account: Any, position: Any, quantity: float, price: float, lot: float) -> int:
    """Book a fill that does not cross zero; answers what it realised, in micros.

    Cost is kept as the quote paid for what is held. A partial close releases its share of it,
    rounded; the rest stays, so that nothing is ever lost to rounding.
    """
    paid = micros(quantity * price)
    account.cash_micros -= paid
    held = position.quantity
    after = to_lots(held + quantity, lot)
    realised = 0
    if held * quantity >= 0.0:
        position.cost_micros += paid
    else:
        share = 1.0 if after == 0.0 else -quantity / held
        released = int(position.cost_micros)
        if after != 0.0:
            released = math.floor(position.cost_micros * share + 0.5)
        realised = -paid - released
        position.cost_micros -= released
        position.realised_micros += realised
        account.realised_micros += realised
    position.quantity = after
    if after == 0.0:
        position.entry = 0.0
        position.per_entry = 0.0
    else:
        position.entry = position.cost_micros / MICROS_PER_UNIT / after
        # kept, because valuing a book at every bar should not divide
        position.per_entry = math.copysign(1.0, after) / position.entry if position.entry else 0.0
    return realised


@compiled
def book_fee(account: Any, position: Any, fee_micros: int) -> None:
    """Pay a fee."""
    account.cash_micros -= fee_micros
    account.fees_micros += fee_micros
    position.fees_micros += fee_micros


@compiled
def book_funding(account: Any, position: Any, paid_micros: int) -> None:
    """Pay funding (negative: receive it)."""
    account.cash_micros -= paid_micros
    account.funding_micros += paid_micros
    position.funding_micros += paid_micros


@inlined
def gain(price: float, entry: float, per_entry: float) -> float:
    """The open return at ``price``, as a fraction of the entry."""
    return (price - entry) * per_entry


@inlined
def mark(account: Any, position: Any, price: float) -> None:
    """Value a book at ``price``."""
    value = micros(position.quantity * price)
    unrealised = value - position.cost_micros
    account.unrealised_micros += unrealised - position.unrealised_micros
    position.unrealised_micros = unrealised
    notional = abs(value)
    account.notional_micros += notional - position.notional_micros
    position.notional_micros = notional
    position.gain = gain(price, position.entry, position.per_entry)
