"""The step: fold a block of events into the state, and say what follows. It is pure.

No clock, no I/O, no chance: equal state and events give equal outcomes, byte for byte, however the
events are cut into blocks. At a bar the order is: orders of earlier events fill, venues liquidate
and protect, books are marked, the halt latch looks, features fold, strategies decide. So an order
can never fill on the bar it was born on, and fills are settled before a strategy sees the bar.
"""

import math
from typing import Any

from core.advice import attend, consult, weigh_opinion
from core.compiled import (
    bits,
    call_decide,
    call_feature,
    call_plain,
    call_watch,
    compiled,
    floats,
    inlined,
    ints,
)
from core.desk import close_book, pursue
from core.fills import (
    cancel_order,
    cancel_orders,
    fill_order,
    match_orders,
    on_mode,
    protect,
    settle,
)
from core.ledger import book_funding, equity_micros, mark, micros
from core.model import (
    HOURS_LEFT,
    PROBABILITY,
    QUOTED,
    Command,
    ExitReason,
    Kind,
    Mode,
    OrderStatus,
    Result,
)
from core.outcomes import ROWS_PER_EVENT_MAX, emit, emit_mode
from core.state import (
    POSITION_SIZE,
    account_of,
    book_of,
    event_of,
    execution_of,
    instrument_of,
    node_of,
    order_of,
    position_of,
    state_from,
    track_of,
)

DAY_MS = 86_400_000
HOUR_MS = 3_600_000.0

FAILED_UNKNOWN_ORDER = -1
ALWAYS = 2**62  # an alarm that any equity is below


@inlined
def _keep(values: Any, at: int, value: float) -> None:
    """Keep a newly told value; NaN means that it was not told."""
    if not math.isnan(value):
        values[at] = value


@inlined
def _on_quote(state: Any, event: Any) -> None:
    instrument = instrument_of(state, event.instrument)
    instrument.quote_ts = event.ts_known
    values = floats(state.values + 8 * instrument.values_at)
    _keep(values, QUOTED, event.mark)
    _keep(values, QUOTED + 1, event.oracle)
    _keep(values, QUOTED + 2, event.bid)
    _keep(values, QUOTED + 3, event.ask)
    _keep(values, QUOTED + 4, event.bid_depth)
    _keep(values, QUOTED + 5, event.ask_depth)
    _keep(values, QUOTED + 6, event.open_interest)
    _keep(values, QUOTED + 7, event.funding_rate)


@compiled
def _on_funding(state: Any, event: Any) -> None:
    """Longs pay ``rate`` of the notional held at the stamp, shorts receive it."""
    instrument = instrument_of(state, event.instrument)
    price = event.settle_price
    if math.isnan(price):
        price = instrument.price
    for b in range(instrument.books_at, instrument.books_end):
        position = position_of(state, b)
        if position.quantity != 0.0:
            paid = micros(position.quantity * price * event.rate)
            book_funding(account_of(state), position, paid)
            row = emit(state, Result.FUNDING, b)
            row.amount_micros = paid
            row.price = price
            row.quantity = position.quantity


@compiled
def _on_command(state: Any, event: Any) -> None:
    """An operator's word; only RESUME lifts a halt, and it lets the drawdown begin anew."""
    account = account_of(state)
    word = int(event.command)
    if word == Command.CLOSE:
        close_book(state, int(event.book))
        return
    if word == Command.HALT:
        account.mode = Mode.HALTED
    elif word == Command.REDUCE_ONLY:
        account.mode = Mode.REDUCING
    elif word == Command.RESUME:
        account.mode = Mode.ACTIVE
        account.peak_micros = equity_micros(account)
        account.alarm_micros = ALWAYS
    account.mode_rule = 0
    emit_mode(state)
    on_mode(state)


@compiled
def _on_fill(state: Any, event: Any) -> None:
    """A fill told by an outside venue; ``final`` ends the order, and tells what is left of it."""
    execution = execution_of(state)
    for k in range(state.orders_n):
        order = order_of(state, k)
        if order.status != OrderStatus.SENT or order.id != int(event.order):
            continue
        execution.quantity = event.fill_quantity
        execution.price = event.fill_price
        execution.exit = order.exit
        execution.fee_micros = micros(event.fill_fee)
        execution.spread_micros = 0
        execution.slippage_micros = 0
        if event.fill_quantity != 0.0:
            fill_order(state, k)
        if order.status == OrderStatus.SENT and event.final != 0.0:
            cancel_order(state, k, 0 if math.isnan(event.code) else int(event.code))
        return
    account_of(state).failed = FAILED_UNKNOWN_ORDER


@compiled
def _on_opinion(state: Any, event: Any) -> None:
    """An advisor's answer; a book that was agreed with goes after its target at once."""
    b = weigh_opinion(state, event)
    if b >= 0:
        position = position_of(state, b)
        target, confidence = position.asked_target, position.asked_confidence
        pursue(state, b, target, confidence, ExitReason.SIGNAL)


@inlined
def _mark_books(state: Any, i: int) -> None:
    """Protect, then value, every book of instrument ``i`` at the bar's end."""
    instrument = instrument_of(state, i)
    market = floats(state.values + 8 * instrument.values_at)
    for b in range(instrument.books_at, instrument.books_end):
        position = position_of(state, b)
        within = market[2] > position.guard_low and market[1] < position.guard_high
        if position.quantity != 0.0 and not within and not instrument.external:
            protect(state, b)
        if position.quantity > 0.0:
            position.best = max(position.best, market[1])
        elif position.quantity < 0.0:
            position.best = min(position.best, market[2])
        if position.quantity != 0.0:
            position.bars_held += 1.0
            mark(account_of(state), position, instrument.price)


@inlined
def _watch(state: Any) -> None:
    """Raise the peak, and let the halt latch look where its answer may have changed."""
    account = account_of(state)
    equity = equity_micros(account)
    if account.alarm_micros < equity <= account.peak_micros:
        return
    account.peak_micros = max(account.peak_micros, equity)
    limits = state.limits + state.books_n * state.limits_size
    if call_watch(state.watch, state.account, limits) != 0:
        emit_mode(state)
        on_mode(state)


@inlined
def _fold_features(state: Any, instrument: Any) -> None:
    """Update every accumulator of an instrument, sources before what reads them."""
    values = floats(state.values)
    market = state.values + 8 * instrument.values_at
    for k in range(instrument.nodes_at, instrument.nodes_end):
        node = node_of(state, k)
        values[node.answer] = call_feature(
            node.update,
            market,
            values[node.source],
            state.memory + 8 * node.memory_at,
            state.params + 8 * node.params_at,
        )


@inlined
def _show(state: Any, book: Any) -> bool:
    """Lay out what a book's strategy reads; False while any of it is missing."""
    values, inputs = floats(state.values), ints(state.inputs)
    shown = floats(state.features + 8 * book.features_at)
    ready = True
    for k in range(book.inputs_at, book.inputs_end):
        value = values[inputs[k]]
        shown[k - book.inputs_at] = value
        if math.isnan(value):
            ready = False
    return ready


@inlined
def _stir(digest: Any, target: float, confidence: float, reason: int) -> Any:
    """Fold one decision into a digest (xorshift: the order of decisions matters)."""
    word = bits(confidence)
    digest ^= bits(target) ^ (word << 21) ^ (word >> 43) ^ (bits(float(reason)) >> 7)
    digest ^= digest << 13
    digest ^= digest >> 7
    digest ^= digest << 17
    return digest


@compiled
def _tell(state: Any, b: int, target: float, confidence: float, reason: int) -> None:
    """Record a decision that differs from the last one told."""
    position = position_of(state, b)
    position.decision = account_of(state).decisions
    position.decided = target
    position.reason = reason
    row = emit(state, Result.DECISION, b)
    row.target = target
    row.confidence = confidence
    row.reason = reason
    row.price = instrument_of(state, book_of(state, b).instrument).price


@compiled
def _act(state: Any, b: int, target: float, confidence: float) -> None:
    """Pursue a changed target, or what a partial fill left of the old one."""
    position = position_of(state, b)
    if target != position.target and not target * position.spent > 0.0:
        cancel_orders(state, b)
        if position.working == 0:
            pursue(state, b, target, confidence, ExitReason.SIGNAL)
    elif position.wanted != position.quantity and position.working == 0:
        pursue(state, b, position.target, confidence, ExitReason.SIGNAL)


@inlined
def _decide(state: Any, b: int, book: Any) -> None:
    """Ask the strategy of book ``b``, record what it says, and act on it."""
    position, account = position_of(state, b), account_of(state)
    if book.plain:
        call_plain(book.decide)
        answer = floats(state.decision)
        target, confidence, reason = answer[0], answer[1], int(answer[2])
    else:
        target, confidence, reason = call_decide(
            book.decide,
            state.features + 8 * book.features_at,
            state.positions + b * POSITION_SIZE,
            state.params + 8 * book.params_at,
        )
    if not (abs(target) <= 1.0 and 0.0 <= confidence <= 1.0):
        account.failed = b + 1
        return
    account.decisions += 1
    position.digest = _stir(position.digest, target, confidence, reason)
    if target != position.decided or reason != position.reason or state.tell_all:
        _tell(state, b, target, confidence, reason)
    if target * position.spent <= 0.0:
        position.spent = 0.0
    if book.consent:
        attend(state, b, target)
    settled = target == position.target and position.wanted == position.quantity
    if settled:
        position.refused = 0
    else:
        _act(state, b, target, confidence)


@inlined
def _on_bar(state: Any, event: Any) -> None:
    i = event.instrument
    instrument = instrument_of(state, i)
    market = floats(state.values + 8 * instrument.values_at)
    market[0] = event.open
    market[1] = event.high
    market[2] = event.low
    market[3] = event.close
    market[4] = event.volume
    if instrument.expires_ts > 0:
        market[HOURS_LEFT] = (instrument.expires_ts - event.ts_known) / HOUR_MS
    instrument.bar_ts = event.ts_known
    if account_of(state).working > 0 and not instrument.external:
        match_orders(state, i, event.ts_event)
    instrument.price = event.close
    _mark_books(state, i)
    _watch(state)
    _fold_features(state, instrument)
    instrument.regime = floats(state.values)[node_of(state, instrument.nodes_at).answer]
    if instrument.open:
        for b in range(instrument.books_at, instrument.books_end):
            book = book_of(state, b)
            if book.consult_ms > 0:
                consult(state, b)
            if _show(state, book):
                _decide(state, b, book)


@inlined
def _on_other(state: Any, event: Any) -> None:
    """Every kind of event but a bar."""
    if event.kind == Kind.QUOTE:
        _on_quote(state, event)
    elif event.kind == Kind.FUNDING:
        _on_funding(state, event)
        _watch(state)
    elif event.kind == Kind.FORECAST:
        instrument = instrument_of(state, event.instrument)
        floats(state.values)[instrument.values_at + PROBABILITY] = event.probability
    elif event.kind == Kind.RESOLUTION:
        settle(state, event.instrument, event.value)
        _watch(state)
    elif event.kind == Kind.LINK:
        instrument_of(state, event.instrument).linked = 1 if event.up != 0.0 else 0
    elif event.kind == Kind.COMMAND:
        _on_command(state, event)
    elif event.kind == Kind.FILL:
        _on_fill(state, event)
    elif event.kind == Kind.OPINION:
        _on_opinion(state, event)


@compiled
def advance(state_at: int, block: int, length: int, at: int, track: int, room: int) -> int:
    """Fold events ``at`` to ``length`` of the block at an address; answers where it stopped.

    Outcomes stand in ``state.outcomes``, ``state.written`` of them. It stops early when fewer than
    a full event's rows of ``room`` are left, when a strategy failed, and after an event that raised
    a question, whose answer may come before the next. Orders for an outside venue do not stop it:
    they go out together, once the journal holds the block. Every event has its row at ``track``.
    """
    state = state_from(state_at)
    state.written = 0
    account = account_of(state)
    room -= ROWS_PER_EVENT_MAX * (state.books_n + 1)
    while at < length and state.written <= room:
        event = event_of(block, at)
        account.seq += 1
        account.now = event.ts_known
        if account.now > account.day_end_ts:
            # the bar that closes at midnight belongs to the day it ends
            account.day_end_ts = ((account.now - 1) // DAY_MS + 1) * DAY_MS
            account.day_start_micros = equity_micros(account)
            account.alarm_micros = ALWAYS
        questions = account.questions
        if event.kind == Kind.BAR:
            _on_bar(state, event)
        else:
            _on_other(state, event)
        instrument = instrument_of(state, event.instrument)
        row = track_of(track, at)
        row.equity_micros = equity_micros(account)
        row.notional_micros = account.notional_micros
        row.regime = int(instrument.regime)
        at += 1
        if account.failed != 0 or account.questions != questions:
            break
    return at
