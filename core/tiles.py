"""Tiles: a stretch of events observed once, to which many accounts respond one after another.

It is the step of ``core.step`` in another order of loops. The markets and every distinct feature of
a tile are folded first, each feature into a column of its own; then each account walks the tile
while its records and the columns it reads stay in the processor's cache. What a run would keep of
an account for every event is reduced as it goes, so memory does not grow with the events.
"""

from typing import Any

import numpy as np

from core.advance import EVENT_SIZE, MARKET_SIZE, coast
from core.compiled import call_feature, floats, inlined, ints, rows, threaded
from core.ledger import equity_micros
from core.model import MARKET_FIELDS, NODE, Kind
from core.outcomes import ROWS_PER_EVENT_MAX
from core.state import (
    ARRAYS,
    STATE,
    account_of,
    event_of,
    instrument_of,
    state_from,
)
from core.step import DAY_MS, learn, respond
from core.tally import (
    TALLY_SIZE,
    count_outcomes,
    end_days,
    fold_fall,
    measure_equity,
    measure_time,
    tally_from,
)

OWN = (
    "account",
    "instruments",
    "books",
    "positions",
    "orders",
    "inputs",
    "params",
    "limits",
    "sizing",
    "busy",
    "pairs",
)
"""Arrays of the engine that every account has for itself."""

SCRATCH = tuple(name for name in ARRAYS if name not in (*OWN, "nodes", "values", "memory"))
"""Arrays that hold nothing from one event to the next: one set a thread."""

PLACES = tuple((STATE.names or ()).index(name) for name in OWN)
MARKET_WORDS = len(MARKET_FIELDS)

TILE = np.dtype(
    [
        # the events, and for each the MARKET of its instrument right after it
        ("block", "i8"),
        ("length", "i8"),
        ("markets", "i8"),
        # the columns: values of a node event by event, so many events apart
        ("values", "i8"),
        ("memory", "i8"),
        ("params", "i8"),
        ("nodes", "i8"),
        # of every instrument: its MARKET as of the last event
        ("latest", "i8"),
        # the accounts: the first one's OWN arrays, where each of them starts, bytes an account
        ("accounts", "i8"),
        ("offsets", "i8"),
        ("account_size", "i8"),
        ("tallies", "i8"),
        ("days_n", "i8"),
        # rows of ``outcomes`` that a thread has
        ("room", "i8"),
    ]
)
"""A tile and the accounts that respond to it: addresses, lengths, offsets within an account."""

_tile = rows(TILE)
_node = rows(NODE)


@threaded
def learn_tile(state_at: int, tile_at: int) -> None:
    """Fold the events into the markets, and keep each event's market beside it."""
    state, tile = state_from(state_at), _tile(tile_at, 0)
    for k in range(tile.length):
        event = event_of(tile.block, k)
        latest = floats(tile.latest + MARKET_SIZE * event.instrument)
        learn(instrument_of(state, event.instrument), latest, event)
        kept = floats(tile.markets + MARKET_SIZE * k)
        for field in range(MARKET_WORDS):
            kept[field] = latest[field]


@inlined
def _copy_field(tile: Any, node: Any, i: int) -> None:
    """A column of a market field, for strategies and features that read it."""
    column = floats(tile.values + 8 * node.answer)
    for k in range(tile.length):
        event = event_of(tile.block, k)
        if event.kind == Kind.BAR and event.instrument == i:
            column[k] = floats(tile.markets + MARKET_SIZE * k)[node.source]


@threaded
def fold_columns(tile_at: int, homes_at: int, picked_at: int, first: int, last: int) -> None:
    """Fold some nodes over the whole tile: those that ``picked`` names from ``first`` to ``last``.

    ``homes`` says each node's instrument. What they read must have been folded before.
    """
    tile, homes, picked = _tile(tile_at, 0), ints(homes_at), ints(picked_at)
    for p in range(first, last):
        node, i = _node(tile.nodes, picked[p]), homes[picked[p]]
        if node.update == 0:
            _copy_field(tile, node, i)
            continue
        source = floats(tile.values + 8 * node.source)
        column = floats(tile.values + 8 * node.answer)
        memory, params = tile.memory + 8 * node.memory_at, tile.params + 8 * node.params_at
        for k in range(tile.length):
            event = event_of(tile.block, k)
            if event.kind == Kind.BAR and event.instrument == i:
                market = tile.markets + MARKET_SIZE * k
                column[k] = call_feature(node.update, market, source[k], memory, params)


@inlined
def _enter(state_at: int, tile: Any, c: int) -> None:
    """Point a thread's STATE at account ``c``."""
    words, offsets = ints(state_at), ints(tile.offsets)
    for place in range(len(PLACES)):
        words[PLACES[place]] = tile.accounts + c * tile.account_size + offsets[place]


@inlined
def _walk(state: Any, tile: Any, tally_at: int) -> None:
    """Let one account respond to every event of the tile."""
    account, tally = account_of(state), tally_from(tally_at)
    room = tile.room - ROWS_PER_EVENT_MAX * (state.books_n + 1)
    k = 0
    while k < tile.length and account.failed == 0:
        block, left = tile.block + EVENT_SIZE * k, tile.length - k
        state.markets, state.values = tile.markets + MARKET_SIZE * k, tile.values + 8 * k
        folded = coast(state, block, left, True, tally_at)
        if folded == 0:
            event = event_of(block, 0)
            measure_time(tally, account.notional_micros, event.ts_known - account.now)
            if event.ts_known > account.day_end_ts:
                end_days(state, tally, (event.ts_known - 1) // DAY_MS - tally.day_first)
            respond(state, event)
            measure_equity(tally, equity_micros(account))
            folded = 1
        k += folded
        if state.written > room:
            count_outcomes(state, tally_at)
    count_outcomes(state, tally_at)


@threaded
def respond_tile(state_at: int, tile_at: int, first: int, last: int) -> None:
    """Let the accounts from ``first`` up to ``last`` respond to the tile.

    The STATE belongs to the calling thread; its OWN arrays are pointed at each account in turn.
    An account whose strategy failed stays where it is.
    """
    state, tile = state_from(state_at), _tile(tile_at, 0)
    for c in range(first, last):
        _enter(state_at, tile, c)
        _walk(state, tile, tile.tallies + c * TALLY_SIZE)


@threaded
def close_tallies(state_at: int, tile_at: int, first: int, last: int) -> None:
    """After the last tile: the end of the last day, and the fall from the last peak."""
    state, tile = state_from(state_at), _tile(tile_at, 0)
    for c in range(first, last):
        _enter(state_at, tile, c)
        tally = tally_from(tile.tallies + c * TALLY_SIZE)
        end_days(state, tally, tile.days_n)
        fold_fall(tally)
