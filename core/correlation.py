"""Correlation: how instruments have moved together so far, for the gate's limit on such exposure.

An exponentially weighted covariance of log returns for every pair of instruments, their means taken
as zero (RiskMetrics, 1996). A pair moves on when it has a bar of both that opened at one time, each
return since the last such bar; so it knows nothing a decision could not have known, and one bar
costs a walk over the other instruments.
"""

import math
from typing import Any

import numpy as np

from core.compiled import compiled, inlined, rows

PAIR = np.dtype(
    [
        # of the last bar both had: its open time, the logs of its closes; how many there were
        ("opened_ts", "i8"),
        ("seen", "i8"),
        ("first", "f8"),
        ("second", "f8"),
        ("variance_first", "f8"),
        ("variance_second", "f8"),
        ("covariance", "f8"),
    ]
)
"""A pair of instruments, per bar. An instrument with itself: its own last bar, in ``first``."""

_pair = rows(PAIR)


def pairs(instruments: int) -> int:
    """How many rows of PAIR so many instruments need."""
    return instruments * (instruments + 1) // 2


@inlined
def _pair_of(state: Any, i: int, j: int) -> Any:
    """The PAIR of instruments ``i`` and ``j``, the lower one first."""
    low, high = min(i, j), max(i, j)
    return _pair(state.pairs, high * (high + 1) // 2 + low)


@compiled
def _fold(pair: Any, opened_ts: int, first: float, second: float, weight: float) -> None:
    """Fold a bar that both have into their pair; one without a price is as if it had not come."""
    if not (math.isfinite(first) and math.isfinite(second) and pair.opened_ts < opened_ts):
        return
    if pair.seen > 0:
        moved, other = first - pair.first, second - pair.second
        pair.variance_first += weight * (moved * moved - pair.variance_first)
        pair.variance_second += weight * (other * other - pair.variance_second)
        pair.covariance += weight * (moved * other - pair.covariance)
    pair.opened_ts = opened_ts
    pair.first = first
    pair.second = second
    pair.seen += 1


@compiled
def learn_pairs(state: Any, i: int, opened_ts: int, close: float) -> None:
    """Fold a bar of instrument ``i`` into its pairs; weights are those of an EMA of that span."""
    own = _pair_of(state, i, i)
    own.opened_ts = opened_ts
    own.first = math.log(close) if close > 0.0 else math.nan
    weight = 2.0 / (state.correlation_bars + 1.0)
    for j in range(state.instruments_n):
        other = _pair_of(state, j, j)
        if j == i or other.opened_ts != opened_ts:
            continue
        first, second = (own.first, other.first) if i < j else (other.first, own.first)
        _fold(_pair_of(state, i, j), opened_ts, first, second, weight)


@compiled
def correlation(state: Any, i: int, j: int) -> float:
    """Of the returns of two instruments, in [-1, 1]; NaN before ``correlation_bars`` of them, and
    where one does not move."""
    if i == j:
        return 1.0
    pair = _pair_of(state, i, j)
    scale = math.sqrt(pair.variance_first * pair.variance_second)
    if pair.seen <= state.correlation_bars or not scale > 0.0:
        return math.nan
    return float(pair.covariance / scale)
