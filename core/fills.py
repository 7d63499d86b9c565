"""Fills, and the life of orders and trades around them."""

import math
from typing import Any

from core.compiled import call_value, compiled
from core.ledger import book_fee, book_fill, mark, to_lots
from core.model import MICROS_PER_UNIT, ExitReason, OrderStatus, OrderStyle, Result
from core.outcomes import emit, emit_order
from core.state import (
    INSTRUMENT_SIZE,
    ORDER_SIZE,
    POSITION_SIZE,
    account_of,
    book_of,
    execution_of,
    instrument_of,
    market_of,
    order_of,
    position_of,
)


@compiled
def _open_trade(state: Any, b: int) -> None:
    position, book = position_of(state, b), book_of(state, b)
    position.opened_ts = account_of(state).now
    position.trade_quantity = 0.0
    position.trade_net_micros = (
        position.realised_micros - position.fees_micros - position.funding_micros
    )
    position.trade_fees_micros = position.fees_micros
    position.trade_regime = int(instrument_of(state, book.instrument).regime)
    position.take_profit = book.take_profit
    position.stop_loss = book.stop_loss
    position.trailing_stop = book.trailing_stop


@compiled
def _learn(position: Any, earned_micros: int) -> None:
    """Fold a trade's return on its entry notional into the book's record (Welford)."""
    staked = abs(position.trade_quantity) * position.trade_entry
    result = earned_micros / MICROS_PER_UNIT / staked if staked > 0.0 else 0.0
    position.trades += 1
    surprise = result - position.return_mean
    position.return_mean += surprise / position.trades
    position.return_m2 += surprise * (result - position.return_mean)
    position.losses_in_row = position.losses_in_row + 1 if earned_micros < 0 else 0


@compiled
def _close_trade(state: Any, b: int) -> None:
    position, execution = position_of(state, b), execution_of(state)
    net = position.realised_micros - position.fees_micros - position.funding_micros
    row = emit(state, Result.TRADE, b)
    row.amount_micros = net - position.trade_net_micros
    row.fee_micros = position.fees_micros - position.trade_fees_micros
    row.quantity = position.trade_quantity
    row.entry = position.trade_entry
    row.price = execution.price
    row.exit = execution.exit
    row.opened_ts = position.opened_ts
    row.regime = position.trade_regime
    row.target = position.bars_held
    _learn(position, row.amount_micros)
    position.exit_ts = account_of(state).now
    position.best = 0.0
    position.bars_held = 0.0


@compiled
def fill(state: Any, b: int, order_id: int, decision: int) -> None:
    """Book the venue's EXECUTION on book ``b``; a crossing of zero was split by the planner."""
    account, position, execution = account_of(state), position_of(state, b), execution_of(state)
    if position.quantity == 0.0:
        _open_trade(state, b)
        position.best = execution.price
    entry = position.entry
    lot = instrument_of(state, book_of(state, b).instrument).lot
    realised = book_fill(account, position, execution.quantity, execution.price, lot)
    book_fee(account, position, execution.fee_micros)
    position.guard_low = math.inf
    position.spread_micros += execution.spread_micros
    position.slippage_micros += execution.slippage_micros
    if position.quantity != 0.0:
        position.trade_entry = position.entry
    if abs(position.quantity) > abs(position.trade_quantity):
        position.trade_quantity = position.quantity
    mark(account, position, execution.price)
    row = emit(state, Result.FILL, b)
    row.order = order_id
    row.decision = decision
    row.quantity = execution.quantity
    row.price = execution.price
    row.exit = execution.exit
    row.entry = entry
    row.amount_micros = realised
    row.fee_micros = execution.fee_micros
    row.spread_micros = execution.spread_micros
    row.slippage_micros = execution.slippage_micros
    if position.quantity == 0.0:
        _close_trade(state, b)


@compiled
def free_order(state: Any, k: int) -> None:
    """Forget a finished order."""
    order = order_of(state, k)
    position = position_of(state, order.book)
    lot = instrument_of(state, order.instrument).lot
    position.pending = to_lots(position.pending - order.quantity, lot)
    position.working -= 1
    account = account_of(state)
    account.working -= 1
    order.status = OrderStatus.FREE
    while (
        account.orders_end > 0
        and order_of(state, account.orders_end - 1).status == OrderStatus.FREE
    ):
        account.orders_end -= 1


@compiled
def cancel_order(state: Any, k: int, code: int) -> None:
    """Cancel what is left of an order; ``code`` is its venue's reason, 0 for none."""
    row = emit_order(state, Result.CANCELLED, order_of(state, k))
    row.reason = code
    free_order(state, k)


@compiled
def cancel_orders(state: Any, book: int) -> None:
    """Cancel the working orders of one book, or of all (-1); sent ones are the venue's to end."""
    if account_of(state).working == 0:
        return
    for k in range(account_of(state).orders_end):
        order = order_of(state, k)
        if order.status == OrderStatus.WORKING and (book < 0 or order.book == book):
            cancel_order(state, k, 0)


@compiled
def fill_order(state: Any, k: int) -> None:
    """Book the venue's EXECUTION against order ``k`` and take it off what is left."""
    order = order_of(state, k)
    quantity = execution_of(state).quantity
    position = position_of(state, order.book)
    lot = instrument_of(state, order.instrument).lot
    order.quantity = to_lots(order.quantity - quantity, lot)
    position.pending = to_lots(position.pending - quantity, lot)
    fill(state, order.book, order.id, order.decision)
    if order.quantity == 0.0:
        free_order(state, k)


@compiled
def _fit(state: Any, k: int) -> bool:
    """Trim a reduce-only order to its position; False when nothing may be left of the order.

    An opening order whose close before it was not filled whole would cross zero: it may not either.
    """
    order = order_of(state, k)
    position = position_of(state, order.book)
    if not order.reduce_only:
        return bool(position.quantity * order.quantity >= 0.0)
    if abs(order.quantity) > abs(position.quantity):
        lot = instrument_of(state, order.instrument).lot
        fitted = to_lots(-position.quantity, lot)
        position.pending = to_lots(position.pending - order.quantity + fitted, lot)
        order.quantity = fitted
    return bool(order.quantity * position.quantity < 0.0)


@compiled
def match_orders(state: Any, i: int, opened_ts: int) -> None:
    """Let the simulated venue fill the working orders of instrument ``i`` in the bar opened then.

    An order born while the bar was under way waits for the next, for its open was over. What an IOC
    order does not get at once is cancelled; a limit order waits until it expires.
    """
    instrument = instrument_of(state, i)
    for k in range(account_of(state).orders_end):
        order = order_of(state, k)
        if order.status != OrderStatus.WORKING or order.instrument != i:
            continue
        if order.born_ts > opened_ts:
            continue
        if not _fit(state, k):
            cancel_order(state, k, 0)
            continue
        got = call_value(
            state.match,
            state.orders + k * ORDER_SIZE,
            market_of(state, instrument),
            state.instruments + i * INSTRUMENT_SIZE,
            state.execution,
        )
        order.bars_left -= 1
        if got != 0.0:
            fill_order(state, k)
        expired = order.style == OrderStyle.IOC or order.bars_left <= 0
        if order.status == OrderStatus.WORKING and expired:
            cancel_order(state, k, 0)


@compiled
def protect(state: Any, b: int) -> None:
    """Let the venue liquidate a book, or trigger its stop or target, within this bar."""
    position = position_of(state, b)
    i = book_of(state, b).instrument
    hit = call_value(
        state.protect,
        state.positions + b * POSITION_SIZE,
        market_of(state, instrument_of(state, i)),
        state.instruments + i * INSTRUMENT_SIZE,
        state.execution,
    )
    if hit == 0.0:
        return
    position.spent = position.target
    position.target = 0.0
    position.wanted = 0.0
    fill(state, b, 0, position.decision)
    cancel_orders(state, b)


@compiled
def settle(state: Any, i: int, value: float) -> None:
    """End a binary: every book is paid ``value`` per contract, without fee."""
    instrument = instrument_of(state, i)
    instrument.open = 0
    instrument.price = value
    execution = execution_of(state)
    for b in range(instrument.books_at, instrument.books_end):
        cancel_orders(state, b)
        position = position_of(state, b)
        position.spent = 0.0
        position.wanted = 0.0
        position.target = 0.0
        if position.quantity != 0.0:
            execution.quantity = -position.quantity
            execution.price = value
            execution.exit = ExitReason.SETTLEMENT
            execution.fee_micros = 0
            execution.spread_micros = 0
            execution.slippage_micros = 0
            fill(state, b, 0, position.decision)
