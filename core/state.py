"""The state the step folds into: flat arrays of records, found through one record of addresses.

The arrays belong to the engine, which keeps them alive and where they are; a snapshot of a run is a
copy of their bytes. Compiled code reads a row in place by ``position_of(state, b)`` and the like.
"""

from typing import Any, NamedTuple

import numpy as np

from core.compiled import inlined, rows
from core.model import (
    ACCOUNT,
    BOOK,
    DESK,
    EVENT,
    EXECUTION,
    INSTRUMENT,
    INTENT,
    LEGS,
    NODE,
    ORDER,
    OUTCOME,
    POSITION,
    TRACK,
)


class Ports(NamedTuple):
    """Addresses of the compiled functions that the step calls but must not know."""

    plan: int
    size: int
    review: int
    watch: int
    match: int
    protect: int


ARRAYS = (
    "account",
    "instruments",
    "books",
    "positions",
    "orders",
    "nodes",
    "inputs",
    "values",
    "memory",
    "params",
    "features",
    "limits",
    "sizing",
    "decision",
    "desk",
    "intent",
    "legs",
    "execution",
    "outcomes",
    "busy",
    "pairs",
)
"""``inputs`` (int64): for each book the rows of ``values`` its strategy reads. ``values``
(float64): per instrument its MARKET, then the answers of its nodes. ``memory``: what nodes
remember. ``params``: records of parameters end to end. ``features``: what each strategy is shown.
``limits``: a row a book, the account's last. ``decision``: answer of a plain strategy. ``busy`` is
explained in ``core.exposure``, ``pairs`` in ``core.correlation``."""

COUNTS = ("books_n", "instruments_n", "correlation_bars", "limits_size", "sizing_size", "tell_all")
TOLD = ("written", "asked")

STATE = np.dtype([(name, "i8") for name in (*ARRAYS, "markets", *COUNTS, *TOLD, *Ports._fields)])
"""Addresses of the arrays, their lengths (``_size``: bytes of a row), what the newest call wrote
and asked, and the ports. ``markets`` is where the MARKETs stand: in ``values``, or in a sweep at
the event's row of a tile."""

_account = rows(ACCOUNT)
_instrument = rows(INSTRUMENT)
_book = rows(BOOK)
_position = rows(POSITION)
_order = rows(ORDER)
_node = rows(NODE)
_desk = rows(DESK)
_intent = rows(INTENT)
_legs = rows(LEGS)
_execution = rows(EXECUTION)
_outcome = rows(OUTCOME)
_state = rows(STATE)
_event = rows(EVENT)
_track = rows(TRACK)

POSITION_SIZE, BOOK_SIZE = POSITION.itemsize, BOOK.itemsize
INSTRUMENT_SIZE, ORDER_SIZE = INSTRUMENT.itemsize, ORDER.itemsize


@inlined
def account_of(state: Any) -> Any:
    """The ACCOUNT."""
    return _account(state.account, 0)


@inlined
def instrument_of(state: Any, i: int) -> Any:
    """The INSTRUMENT ``i``."""
    return _instrument(state.instruments, i)


@inlined
def market_of(state: Any, instrument: Any) -> int:
    """Address of an instrument's MARKET."""
    return int(state.markets + 8 * instrument.values_at)


@inlined
def book_of(state: Any, b: int) -> Any:
    """The BOOK ``b``."""
    return _book(state.books, b)


@inlined
def position_of(state: Any, b: int) -> Any:
    """The POSITION of book ``b``."""
    return _position(state.positions, b)


@inlined
def order_of(state: Any, k: int) -> Any:
    """The ORDER in row ``k``."""
    return _order(state.orders, k)


@inlined
def node_of(state: Any, k: int) -> Any:
    """The NODE ``k``."""
    return _node(state.nodes, k)


@inlined
def desk_of(state: Any) -> Any:
    """The DESK record."""
    return _desk(state.desk, 0)


@inlined
def intent_of(state: Any) -> Any:
    """The INTENT under review."""
    return _intent(state.intent, 0)


@inlined
def legs_of(state: Any) -> Any:
    """The planner's LEGS."""
    return _legs(state.legs, 0)


@inlined
def execution_of(state: Any) -> Any:
    """The EXECUTION last answered by the venue."""
    return _execution(state.execution, 0)


@inlined
def outcome_of(state: Any, k: int) -> Any:
    """The OUTCOME in row ``k``."""
    return _outcome(state.outcomes, k)


@inlined
def state_from(place: int) -> Any:
    """The STATE at an address."""
    return _state(place, 0)


@inlined
def event_of(block: int, at: int) -> Any:
    """The EVENT ``at`` of a block."""
    return _event(block, at)


@inlined
def track_of(track: int, at: int) -> Any:
    """The TRACK row ``at``."""
    return _track(track, at)
