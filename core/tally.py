"""The tally of an account: its outcomes counted and its equity reduced while a run goes on.

A sweep keeps this instead of outcomes and track: a few hundred bytes, however long the run.
"""

from typing import Any

import numpy as np

from core.compiled import compiled, inlined, ints, rows
from core.ledger import equity_micros, micros
from core.model import Mode, Result
from core.outcomes import fold_outcomes
from core.state import account_of, outcome_of

TALLY = np.dtype(
    [
        # equity: the highest so far, the lowest since, and the deepest fall as a fraction
        ("peak_micros", "i8"),
        ("trough_micros", "i8"),
        ("max_drawdown", "f8"),
        ("exposed_ms", "i8"),
        # equity at the end of every day: where, the number of the first day, the day under way
        ("daily", "i8"),
        ("day_first", "i8"),
        ("day", "i8"),
        ("trades", "i8"),
        ("wins", "i8"),
        ("won_micros", "i8"),
        ("lost_micros", "i8"),
        ("realised_micros", "i8"),
        ("fees_micros", "i8"),
        ("funding_micros", "i8"),
        ("spread_micros", "i8"),
        ("slippage_micros", "i8"),
        ("turnover_micros", "i8"),
        ("fills", "i8"),
        ("refused", "i8"),
        ("halted_ts", "i8"),
        ("outcomes", "i8"),
        ("lanes", "i8", (2,)),
    ]
)
"""Counts and sums over an account's outcomes, and its equity reduced. ``lanes``: the digest of all
outcomes."""

TALLY_SIZE = TALLY.itemsize
LANES_AT = TALLY_SIZE - 16

_tally = rows(TALLY)


@inlined
def tally_from(place: int) -> Any:
    """The TALLY at an address."""
    return _tally(place, 0)


@inlined
def _count_fill(tally: Any, row: Any) -> None:
    tally.fills += 1
    tally.realised_micros += row.amount_micros
    tally.fees_micros += row.fee_micros
    tally.spread_micros += row.spread_micros
    tally.slippage_micros += row.slippage_micros
    tally.turnover_micros += abs(micros(row.quantity * row.price))


@inlined
def _count_trade(tally: Any, earned_micros: int) -> None:
    tally.trades += 1
    if earned_micros > 0:
        tally.wins += 1
        tally.won_micros += earned_micros
    else:
        tally.lost_micros -= earned_micros


@compiled
def count_outcomes(state: Any, tally_at: int) -> None:
    """Fold the outcomes written so far into a tally, and begin again at the first row."""
    tally = tally_from(tally_at)
    for k in range(state.written):
        row = outcome_of(state, k)
        if row.kind == Result.FILL:
            _count_fill(tally, row)
        elif row.kind == Result.TRADE:
            _count_trade(tally, row.amount_micros)
        elif row.kind == Result.FUNDING:
            tally.funding_micros += row.amount_micros
        elif row.kind == Result.REFUSED:
            tally.refused += 1
        elif row.kind == Result.MODE and row.reason == Mode.HALTED and tally.halted_ts == 0:
            tally.halted_ts = row.ts
    fold_outcomes(state.outcomes, state.written, tally_at + LANES_AT)
    tally.outcomes += state.written
    state.written = 0


@compiled
def end_days(state: Any, tally: Any, day: int) -> None:
    """Note the equity for every day that ended before ``day``, those without events included."""
    equity, daily = equity_micros(account_of(state)), ints(tally.daily)
    for k in range(tally.day, day):
        daily[k] = equity
    tally.day = day


@compiled
def fold_fall(tally: Any) -> None:
    """Fold the deepest fall from the peak that is about to be passed."""
    fall = (tally.peak_micros - tally.trough_micros) / tally.peak_micros
    tally.max_drawdown = max(tally.max_drawdown, fall)


@inlined
def measure_time(tally: Any, notional: int, elapsed: int) -> None:
    """Before an event: how long the account was exposed since the last one."""
    if notional > 0:
        tally.exposed_ms += elapsed


@inlined
def measure_equity(tally: Any, equity: int) -> None:
    """After an event: its equity. While a peak stands the deepest fall is at the lowest equity, so
    nothing is divided until a new one."""
    if equity > tally.peak_micros:
        fold_fall(tally)
        tally.peak_micros = equity
        tally.trough_micros = equity
    elif equity < tally.trough_micros:
        tally.trough_micros = equity
