"""Writing outcomes: a row is cleared before it is filled, so that equal runs give equal bytes."""

from typing import Any

from core.compiled import compiled
from core.ledger import equity_micros
from core.model import Result
from core.state import account_of, book_of, instrument_of, outcome_of, position_of

ROWS_PER_EVENT_MAX = 64
"""Rows one event may write per book; the step stops while fewer are left."""


@compiled
def _clear(row: Any) -> None:
    row.reason = 0
    row.rule = 0
    row.regime = 0
    row.exit = 0
    row.order = 0
    row.decision = 0
    row.target = 0.0
    row.confidence = 0.0
    row.quantity = 0.0
    row.price = 0.0
    row.limit = 0.0
    row.position = 0.0
    row.entry = 0.0
    row.opened_ts = 0
    row.amount_micros = 0
    row.fee_micros = 0
    row.spread_micros = 0
    row.slippage_micros = 0


@compiled
def emit(state: Any, kind: int, book: int) -> Any:
    """Begin an outcome with what every kind carries (book -1: none); answers its row."""
    row = outcome_of(state, state.written)
    state.written += 1
    account = account_of(state)
    _clear(row)
    row.seq = account.seq
    row.ts = account.now
    row.kind = kind
    row.book = book
    row.equity_micros = equity_micros(account)
    if book >= 0:
        position = position_of(state, book)
        row.regime = int(instrument_of(state, book_of(state, book).instrument).regime)
        row.decision = position.decision
        row.position = position.quantity
        row.entry = position.entry
    return row


@compiled
def emit_order(state: Any, kind: int, order: Any) -> Any:
    """Begin an outcome about an order, with its terms; answers its row."""
    row = emit(state, kind, order.book)
    row.order = order.id
    row.decision = order.decision
    row.quantity = order.quantity
    row.limit = order.limit
    row.price = order.reference
    row.exit = order.exit
    return row


@compiled
def emit_mode(state: Any) -> None:
    """The halt latch moved."""
    account = account_of(state)
    row = emit(state, Result.MODE, -1)
    row.rule = account.mode_rule
    row.reason = account.mode
