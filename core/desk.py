"""From a decision to an order: plan, size, review. It runs only when a book wants something, or a
halt closes it."""

import math
from typing import Any

from core.advice import consents
from core.compiled import call_code, call_value, compiled, floats, inlined
from core.exposure import lay_exposures, note_busy, worst_case
from core.fills import cancel_orders
from core.ledger import equity_micros, to_lots
from core.model import (
    MICROS_PER_UNIT,
    ORACLE,
    PROBABILITY,
    VOLUME,
    ExitReason,
    Mode,
    OrderStatus,
    OrderStyle,
    Result,
)
from core.outcomes import emit, emit_order
from core.state import (
    BOOK_SIZE,
    INSTRUMENT_SIZE,
    POSITION_SIZE,
    account_of,
    book_of,
    desk_of,
    instrument_of,
    intent_of,
    legs_of,
    market_of,
    order_of,
    position_of,
)

MINUTE_MS = 60_000


@compiled
def _lay_past(state: Any, b: int, quantity: float) -> None:
    """What the gate asks about time: cooldown, repeats, order rate, ages of the data."""
    account, desk, position = account_of(state), desk_of(state), position_of(state, b)
    instrument = instrument_of(state, book_of(state, b).instrument)
    now = account.now
    repeated = position.order_ts != 0 and position.order_quantity == quantity
    desk.losses_in_row = position.losses_in_row
    desk.orders_minute = account.orders_minute if account.minute == now // MINUTE_MS else 0
    desk.since_exit_ms = math.nan if position.exit_ts == 0 else float(now - position.exit_ts)
    desk.since_repeat_ms = float(now - position.order_ts) if repeated else math.nan
    desk.data_age_ms = now - instrument.bar_ts
    desk.quote_age_ms = math.nan if instrument.quote_ts == 0 else float(now - instrument.quote_ts)


@compiled
def _lay_money(state: Any, b: int) -> None:
    """What sizing and the gate ask about money and the market."""
    account, desk, position = account_of(state), desk_of(state), position_of(state, b)
    instrument = instrument_of(state, book_of(state, b).instrument)
    market = floats(market_of(state, instrument))
    equity = equity_micros(account)
    desk.mode = account.mode
    desk.instrument_open = instrument.open
    desk.linked = instrument.linked
    desk.trades = position.trades
    desk.equity = equity / MICROS_PER_UNIT
    desk.day_return = equity / account.day_start_micros - 1.0
    desk.drawdown = 1.0 - equity / account.peak_micros
    desk.bar_volume = market[VOLUME]
    desk.oracle = market[ORACLE]
    desk.position = position.quantity
    desk.return_mean = position.return_mean
    desk.return_variance = position.return_m2 / position.trades if position.trades > 0 else 0.0


@compiled
def _lay_desk(state: Any, b: int, quantity: float) -> None:
    """Lay out everything the gate may ask about growing book ``b`` by ``quantity``."""
    desk, book = desk_of(state), book_of(state, b)
    instrument = instrument_of(state, book.instrument)
    desk.order_notional = abs(quantity) * instrument.price
    desk.order_risk = worst_case(instrument, book.stop_loss, quantity)
    _lay_past(state, b, quantity)
    lay_exposures(state, b, quantity)


@compiled
def _free_row(state: Any) -> int:
    """A row for a new order; there is one, for a book asks only while none of its orders works."""
    account, k = account_of(state), 0
    while k < account.orders_end and order_of(state, k).status != OrderStatus.FREE:
        k += 1
    account.orders_end = max(account.orders_end, k + 1)
    return k


@compiled
def _refuse(state: Any, b: int, rule: int) -> None:
    """Record a refusal, once for as long as the same intent meets the same rule at every bar."""
    intent, position = intent_of(state), position_of(state, b)
    if position.refused == rule and position.refused_target == intent.target:
        return
    position.refused = rule
    position.refused_target = intent.target
    row = emit(state, Result.REFUSED, b)
    row.rule = rule
    row.quantity = intent.quantity
    row.price = intent.price
    row.limit = intent.limit
    row.target = intent.target
    row.confidence = intent.confidence


@compiled
def _approve(state: Any, b: int, exit_code: int) -> None:
    """Make the order of an approved intent; it meets the next event of its instrument."""
    account, book, position = account_of(state), book_of(state, b), position_of(state, b)
    instrument, intent = instrument_of(state, book.instrument), intent_of(state)
    order = order_of(state, _free_row(state))
    minute = account.now // MINUTE_MS
    if account.minute != minute:
        account.minute = minute
        account.orders_minute = 0
    account.orders_minute += 1
    account.orders += 1
    account.working += 1
    order.id = account.orders
    order.status = OrderStatus.SENT if instrument.external else OrderStatus.WORKING
    order.book = b
    order.instrument = book.instrument
    order.style = OrderStyle.IOC if intent.reduce_only else book.style
    order.reduce_only = intent.reduce_only
    order.born_ts = account.now
    order.bars_left = book.ttl_bars
    order.decision = position.decision
    order.exit = exit_code
    order.quantity = intent.quantity
    order.limit = intent.limit
    order.reference = intent.price
    position.refused = 0
    position.working += 1
    position.pending = to_lots(position.pending + intent.quantity, instrument.lot)
    position.order_ts = account.now
    position.order_quantity = intent.quantity
    note_busy(state, b)
    row = emit_order(state, Result.APPROVED, order)
    row.target = intent.target
    row.confidence = intent.confidence


@compiled
def _propose(state: Any, b: int, quantity: float, limit: float, reduce: bool, code: int) -> bool:
    """Show one intent to the gate; True when it was approved (or there was nothing to ask).

    An exit meets only the gate's first rules, so the exposures are laid out for the others alone.
    """
    if quantity == 0.0 and reduce:
        return True
    intent = intent_of(state)
    intent.quantity = quantity
    intent.limit = limit
    intent.reduce_only = 1 if reduce else 0
    if not reduce:
        _lay_desk(state, b, quantity)
    rule = call_code(
        state.review,
        state.intent,
        state.desk,
        state.limits + b * state.limits_size,
        state.instruments + book_of(state, b).instrument * INSTRUMENT_SIZE,
    )
    if rule != 0:
        _refuse(state, b, rule)
        return False
    _approve(state, b, code)
    return True


@compiled
def _lay_intent(state: Any, b: int, target: float, confidence: float) -> None:
    book, intent = book_of(state, b), intent_of(state)
    instrument = instrument_of(state, book.instrument)
    values = floats(state.values)
    agreed = abs(position_of(state, b).agreed)
    intent.target = target * agreed if agreed > 0.0 else target
    intent.confidence = confidence
    intent.price = instrument.price
    intent.volatility = values[book.volatility_at] if book.volatility_at >= 0 else math.nan
    intent.atr = values[book.atr_at] if book.atr_at >= 0 else math.nan
    intent.probability = floats(market_of(state, instrument))[PROBABILITY]


@compiled
def _size(state: Any, b: int) -> float:
    """Full size times target, as signed quantity in whole lots."""
    return call_value(
        state.size,
        state.intent,
        state.instruments + book_of(state, b).instrument * INSTRUMENT_SIZE,
        state.desk,
        state.sizing + b * state.sizing_size,
    )


@compiled
def pursue(state: Any, b: int, target: float, confidence: float, exit_code: int) -> None:
    """Turn a target into at most two intents, what shrinks the book first, what grows it after.

    The size is fixed when the target changes; while it stays, only what is missing is asked for.
    A refused intent leaves the old target in place, so it is proposed again while it is wanted.
    """
    position, legs = position_of(state, b), legs_of(state)
    _lay_intent(state, b, target, confidence)
    _lay_money(state, b)
    wanted = position.wanted
    if target != position.target:
        wanted = _size(state, b) if target != 0.0 else 0.0
    legs.wanted = wanted
    legs.reduce = 0.0
    legs.increase = 0.0
    call_value(
        state.plan,
        state.positions + b * POSITION_SIZE,
        state.books + b * BOOK_SIZE,
        state.instruments + book_of(state, b).instrument * INSTRUMENT_SIZE,
        state.legs,
    )
    reduced = _propose(state, b, legs.reduce, legs.reduce_limit, True, exit_code)
    increased = reduced
    if reduced and (legs.increase != 0.0 or (target != 0.0 and wanted == 0.0)):
        # a size of nothing is shown to the gate too: it refuses it, and the refusal is on record
        increased = consents(state, b, target, confidence) and _propose(
            state, b, legs.increase, legs.increase_limit, False, exit_code
        )
    if reduced and increased:
        position.target = target
        position.wanted = wanted
    elif reduced and legs.reduce != 0.0:
        position.target = 0.0
        position.wanted = 0.0


@compiled
def close_book(state: Any, b: int, exit_code: int) -> None:
    """Close a book for its strategy: it stays flat until that changes its mind.

    An order that still works is cancelled first, or it would fill after the close.
    """
    position = position_of(state, b)
    wish = position.target if position.asked == 0 else position.asked_target
    # what a book that is closed a second time wished for is already noted
    if wish != 0.0:
        position.spent = wish
    cancel_orders(state, b)
    if position.quantity != 0.0 and position.working == 0:
        pursue(state, b, 0.0, 1.0, exit_code)
    elif position.quantity == 0.0:
        position.target = 0.0
        position.wanted = 0.0


@inlined
def _flattens(state: Any, b: int) -> bool:
    """Whether the account is halted in a way that closes book ``b``."""
    account = account_of(state)
    return account.mode == Mode.HALTED and bool(account.flatten or book_of(state, b).flatten)


@inlined
def unwinds(state: Any, b: int) -> bool:
    """Whether a halt is closing book ``b``: until it is flat, its strategy is not listened to."""
    return _flattens(state, b) and position_of(state, b).quantity != 0.0


@compiled
def unwind(state: Any, b: int) -> None:
    """At a bar: close what a fill in part, a refusal or a late fill left of such a book."""
    if position_of(state, b).working == 0:
        close_book(state, b, ExitReason.HALT)


@compiled
def on_mode(state: Any) -> None:
    """After the latch moved: a halt cancels whatever still works, and closes what is to be flat."""
    if account_of(state).mode != Mode.HALTED:
        return
    cancel_orders(state, -1)
    for b in range(state.books_n):
        if _flattens(state, b):
            close_book(state, b, ExitReason.HALT)
