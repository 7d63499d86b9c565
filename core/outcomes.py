"""Writing outcomes: a row is cleared before it is filled, so that equal runs give equal bytes."""

from typing import Any

from core.compiled import compiled, folded, inlined, ints
from core.ledger import equity_micros
from core.model import OUTCOME, Result
from core.state import account_of, book_of, instrument_of, outcome_of, position_of

ROWS_PER_EVENT_MAX = 64
"""Rows one event may write per book; the step stops while fewer are left."""

OUTCOME_SIZE = OUTCOME.itemsize
SALT, PEPPER = 0x6A09E667F3BCC908, 0x3C6EF372FE94F82B
"""The first bits of the roots of 2 and 5 behind the point: constants nobody chose."""


def outcome_rows_min(books: int) -> int:
    """Room that outcomes of one call need: two events' most."""
    return 2 * ROWS_PER_EVENT_MAX * (books + 1)


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


@inlined
def _fold_row(row: Any, digest: Any) -> None:
    """Fold an outcome's words into two lanes, which change places so that each sees every column.

    The first word, the number of the event, is left out: a live run also counts events that change
    nothing, such as a line that went down and up between two bars, and must equal its replay.
    """
    low, high = digest[0], digest[1]
    for k in range(1, 17, 4):
        low = folded(row[k] ^ SALT, row[k + 1] ^ low)
        high = folded(row[k + 2] ^ PEPPER, row[k + 3] ^ high)
    low = folded(row[17] ^ SALT, row[18] ^ low)
    high = folded(row[19] ^ PEPPER, SALT ^ high)
    digest[0], digest[1] = high, low


@compiled
def fold_outcomes(outcomes: int, length: int, digest: int) -> None:
    """Fold ``length`` outcomes at an address into the running digest (two words) at another.

    In one call or many: the digest depends on the rows alone. It tells runs apart; it is no seal
    against a forger.
    """
    lanes = ints(digest)
    for k in range(length):
        _fold_row(ints(outcomes + k * OUTCOME_SIZE), lanes)
