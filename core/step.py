"""The step: fold a block of events into the state, and say what follows. It is pure.

No clock, no I/O, no chance: equal state and events give equal outcomes, byte for byte, however the
events are cut into blocks. It has two halves: ``observe`` folds an event into the market and its
features, ``respond`` into an account. A sweep lets many accounts respond to one observation. At a
bar the order of a response is: orders of earlier events fill, venues liquidate and protect, books
are marked, the halt latch looks, strategies decide. So an order can never fill on the bar it was
born on, and fills are settled before a strategy sees the bar.
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
from core.correlation import learn_pairs
from core.desk import close_book, on_mode, pursue, unwind, unwinds
from core.fills import (
    cancel_order,
    cancel_orders,
    fill_order,
    match_orders,
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
from core.outcomes import emit, emit_mode
from core.state import (
    POSITION_SIZE,
    account_of,
    book_of,
    execution_of,
    instrument_of,
    market_of,
    node_of,
    order_of,
    position_of,
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
def learn(instrument: Any, market: Any, event: Any) -> None:
    """Fold an event into what is known of its instrument's market."""
    if event.kind == Kind.BAR:
        market[0] = event.open
        market[1] = event.high
        market[2] = event.low
        market[3] = event.close
        market[4] = event.volume
        if instrument.expires_ts > 0:
            market[HOURS_LEFT] = (instrument.expires_ts - event.ts_known) / HOUR_MS
    elif event.kind == Kind.QUOTE:
        _keep(market, QUOTED, event.mark)
        _keep(market, QUOTED + 1, event.oracle)
        _keep(market, QUOTED + 2, event.bid)
        _keep(market, QUOTED + 3, event.ask)
        _keep(market, QUOTED + 4, event.bid_depth)
        _keep(market, QUOTED + 5, event.ask_depth)
        _keep(market, QUOTED + 6, event.open_interest)
        _keep(market, QUOTED + 7, event.funding_rate)
    elif event.kind == Kind.FORECAST:
        market[PROBABILITY] = event.probability


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
        close_book(state, int(event.book), ExitReason.COMMAND)
        return
    if word in (Command.HALT, Command.FLATTEN):
        account.mode = Mode.HALTED
    elif word == Command.REDUCE_ONLY:
        account.mode = Mode.REDUCING
    elif word == Command.RESUME:
        account.mode = Mode.ACTIVE
        account.peak_micros = equity_micros(account)
        account.alarm_micros = ALWAYS
    if word == Command.FLATTEN:
        account.flatten = 1
    elif account.mode != Mode.HALTED:
        account.flatten = 0
    account.mode_rule = 0
    emit_mode(state)
    on_mode(state)


@compiled
def _on_fill(state: Any, event: Any) -> None:
    """A fill told by an outside venue; ``final`` ends the order, and tells what is left of it."""
    execution = execution_of(state)
    for k in range(account_of(state).orders_end):
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
    if b >= 0 and not unwinds(state, b):
        position = position_of(state, b)
        target, confidence = position.asked_target, position.asked_confidence
        pursue(state, b, target, confidence, ExitReason.SIGNAL)


@inlined
def within(high: float, low: float, guard_low: float, guard_high: float) -> bool:
    """Whether a bar stays where the venue need not be asked."""
    return low > guard_low and high < guard_high


@inlined
def hold(position: Any, high: float, low: float) -> None:
    """A book that is not flat holds on through a bar."""
    if position.quantity > 0.0:
        position.best = max(position.best, high)
    else:
        position.best = min(position.best, low)
    position.bars_held += 1.0


@inlined
def _mark_books(state: Any, i: int) -> None:
    """Protect, then value, every book of instrument ``i`` at the bar's end."""
    instrument = instrument_of(state, i)
    market = floats(market_of(state, instrument))
    for b in range(instrument.books_at, instrument.books_end):
        position = position_of(state, b)
        safe = within(market[1], market[2], position.guard_low, position.guard_high)
        if position.quantity != 0.0 and not safe and not instrument.external:
            protect(state, b)
        if position.quantity != 0.0:
            hold(position, market[1], market[2])
            mark(account_of(state), position, instrument.price)


@inlined
def watch_equity(state: Any) -> None:
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
    market = market_of(state, instrument)
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
def show(values_at: int, inputs_at: int, count: int, shown_at: int) -> bool:
    """Lay out what a strategy reads; False while any of it is missing."""
    values, inputs, shown = floats(values_at), ints(inputs_at), floats(shown_at)
    ready = True
    for k in range(count):
        value = values[inputs[k]]
        shown[k] = value
        if math.isnan(value):
            ready = False
    return ready


@inlined
def word_of(target: float, confidence: float, reason: int) -> Any:
    """One word for one decision."""
    word = bits(confidence)
    return bits(target) ^ (word << 21) ^ (word >> 43) ^ (bits(float(reason)) >> 7)


@inlined
def stir(digest: Any, word: Any) -> Any:
    """Fold one decision into a digest (xorshift: the order of decisions matters)."""
    digest ^= word
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
def valid(target: float, confidence: float) -> bool:
    """Whether a strategy's answer lies in its bounds; NaN does not."""
    return abs(target) <= 1.0 and 0.0 <= confidence <= 1.0


@compiled
def _conclude(state: Any, b: int, target: float, confidence: float, reason: int) -> None:
    """Tell a decision that is new, and act on one that is not yet carried out."""
    position = position_of(state, b)
    if target != position.decided or reason != position.reason or state.tell_all:
        _tell(state, b, target, confidence, reason)
    if target * position.spent <= 0.0:
        position.spent = 0.0
    if book_of(state, b).consent:
        attend(state, b, target)
    settled = target == position.target and position.wanted == position.quantity
    if unwinds(state, b):
        unwind(state, b)
    elif settled:
        position.refused = 0
    else:
        _act(state, b, target, confidence)


@inlined
def answer(state: Any, b: int, target: float, confidence: float, reason: int) -> None:
    """Record what the strategy of book ``b`` says, and act on it."""
    position, account = position_of(state, b), account_of(state)
    if not valid(target, confidence):
        account.failed = b + 1
        return
    account.decisions += 1
    position.digest = stir(position.digest, word_of(target, confidence, reason))
    _conclude(state, b, target, confidence, reason)


@inlined
def _decide(state: Any, b: int, book: Any) -> None:
    """Ask the strategy of book ``b``."""
    if book.plain:
        call_plain(book.decide)
        said = floats(state.decision)
        target, confidence, reason = said[0], said[1], int(said[2])
    else:
        target, confidence, reason = call_decide(
            book.decide,
            state.features + 8 * book.features_at,
            state.positions + b * POSITION_SIZE,
            state.params + 8 * book.params_at,
        )
    answer(state, b, target, confidence, reason)


@inlined
def _on_bar(state: Any, event: Any) -> None:
    i = event.instrument
    instrument = instrument_of(state, i)
    instrument.bar_ts = event.ts_known
    if account_of(state).working > 0 and not instrument.external:
        match_orders(state, i, event.ts_event)
    instrument.price = event.close
    if state.correlation_bars > 0:
        learn_pairs(state, i, event.ts_event, event.close)
    _mark_books(state, i)
    watch_equity(state)
    instrument.regime = floats(state.values)[node_of(state, instrument.nodes_at).answer]
    if instrument.open:
        for b in range(instrument.books_at, instrument.books_end):
            book = book_of(state, b)
            if book.consult_ms > 0:
                consult(state, b)
            inputs, count = state.inputs + 8 * book.inputs_at, book.inputs_end - book.inputs_at
            if show(state.values, inputs, count, state.features + 8 * book.features_at):
                _decide(state, b, book)
            elif unwinds(state, b):
                unwind(state, b)


@inlined
def _on_other(state: Any, event: Any) -> None:
    """Every kind of event but a bar; a forecast only the market learns of."""
    if event.kind == Kind.QUOTE:
        instrument_of(state, event.instrument).quote_ts = event.ts_known
    elif event.kind == Kind.FUNDING:
        _on_funding(state, event)
        watch_equity(state)
    elif event.kind == Kind.RESOLUTION:
        settle(state, event.instrument, event.value)
        watch_equity(state)
    elif event.kind == Kind.LINK:
        instrument_of(state, event.instrument).linked = 1 if event.up != 0.0 else 0
    elif event.kind == Kind.COMMAND:
        _on_command(state, event)
    elif event.kind == Kind.FILL:
        _on_fill(state, event)
    elif event.kind == Kind.OPINION:
        _on_opinion(state, event)


@inlined
def observe(state: Any, event: Any) -> None:
    """The market's half of the step: what is known, and the features of it. No book is looked at,
    so many accounts may share it."""
    instrument = instrument_of(state, event.instrument)
    learn(instrument, floats(market_of(state, instrument)), event)
    if event.kind == Kind.BAR:
        _fold_features(state, instrument)


@inlined
def respond(state: Any, event: Any) -> None:
    """The account's half of the step: fills, valuation, the latch, decisions, orders."""
    account = account_of(state)
    account.seq += 1
    account.now = event.ts_known
    if account.now > account.day_end_ts:
        # the bar that closes at midnight belongs to the day it ends
        account.day_end_ts = ((account.now - 1) // DAY_MS + 1) * DAY_MS
        account.day_start_micros = equity_micros(account)
        account.alarm_micros = ALWAYS
    if event.kind == Kind.BAR:
        _on_bar(state, event)
    else:
        _on_other(state, event)
