"""Sliding sums, extremes and smoothed means in plain float memory, shared by all indicators.

Each takes the memory, the place ``at`` where its cells begin, a length and the newest value, and
costs O(1) amortised. A running sum is added up afresh whenever its ring wraps: rounding errors then
cannot grow with the length of the run, and nothing older than two windows has any influence left.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from core.compiled import compiled, inlined
from core.errors import ConfigError

Record: TypeAlias = Any
"""A record with named fields: the market, or a feature's parameters."""


class Memory(Protocol):
    """Raw zeroed floats; they can be indexed and have no length."""

    def __getitem__(self, place: int) -> float: ...
    def __setitem__(self, place: int, value: float) -> None: ...


NAN = math.nan

SUM_CELLS, LAG_CELLS, MOMENT_CELLS, EXTREME_CELLS, MEAN_CELLS = 3, 2, 6, 3, 2
"""Cells each needs beside its window (a mean needs no window)."""


def size(plus: int = 0, **times: int) -> Callable[[Mapping[str, float]], int]:
    """``plus`` and so many times each named length, for a feature's memory or warm-up."""

    def measure(values: Mapping[str, float]) -> int:
        return plus + sum(times * length(values, name) for name, times in lengths)

    lengths = tuple(times.items())
    return measure


def length(values: Mapping[str, float], name: str = "window") -> int:
    """A window in whole bars; ConfigError for a fraction, or for less than one."""
    if not values[name] >= 1:
        raise ConfigError(f"{name} must be at least 1 bar, got {values[name]:g}")
    if values[name] != int(values[name]):
        raise ConfigError(f"{name} must be a whole number of bars, got {values[name]:g}")
    return int(values[name])


@compiled
def slide_lag(m: Memory, at: int, n: int, x: float) -> float:
    """The value ``n`` pushes ago."""
    i = int(m[at])
    warm = m[at + 1] == 1.0
    old = m[at + 2 + i]
    m[at + 2 + i] = x
    i += 1
    if i == n:
        i = 0
        m[at + 1] = 1.0
    m[at] = i
    return old if warm else NAN


@inlined
def slide_sum(m: Memory, at: int, n: int, x: float) -> float:
    """Sum of the last ``n`` values."""
    i = int(m[at])
    total = m[at + 2] + (x - m[at + 3 + i])
    m[at + 3 + i] = x
    i += 1
    if i == n:
        i = 0
        m[at + 1] = 1.0
        total = 0.0
        for k in range(at + 3, at + 3 + n):
            total += m[k]
    m[at] = i
    m[at + 2] = total
    return total if m[at + 1] == 1.0 else NAN


@compiled
def slide_moments(m: Memory, at: int, n: int, x: float) -> None:
    """Fold one value into the mean and variance of the last ``n``."""
    i = int(m[at])
    full = m[at + 1] == 1.0
    if i == 0 and not full:
        m[at + 2] = x
    new = x - m[at + 2]
    old = m[at + 6 + i] - m[at + 2] if full else 0.0
    m[at + 6 + i] = x
    m[at + 3] += new - old
    m[at + 4] += new * new - old * old
    m[at + 5] = max(m[at + 5], m[at + 4])
    i += 1
    if i == n:
        i = 0
        full = True
        m[at + 1] = 1.0
    m[at] = i
    # Squares far above the variance would drown it in rounding: measure from a nearer centre.
    spread = n * m[at + 4] - m[at + 3] * m[at + 3]
    if full and (i == 0 or spread < 1e-6 * n * m[at + 5]):
        centre_moments(m, at, n)


@compiled
def centre_moments(m: Memory, at: int, n: int) -> None:
    """Add the moments up afresh, measured from a value inside the window."""
    centre = m[at + 6]
    first, second = 0.0, 0.0
    for k in range(at + 6, at + 6 + n):
        away = m[k] - centre
        first += away
        second += away * away
    m[at + 2] = centre
    m[at + 3] = first
    m[at + 4] = second
    m[at + 5] = second


@compiled
def mean_of(m: Memory, at: int, n: int) -> float:
    """Mean of a full window."""
    return m[at + 2] + m[at + 3] / n if m[at + 1] == 1.0 else NAN


@compiled
def deviation_of(m: Memory, at: int, n: int) -> float:
    """Population standard deviation of a full window."""
    if m[at + 1] == 0.0:
        return NAN
    mean = m[at + 3] / n
    return math.sqrt(max(m[at + 4] / n - mean * mean, 0.0))


@compiled
def slide_max(m: Memory, at: int, n: int, x: float) -> float:
    """Highest of the last ``n`` values: the newest block's so far, and what is left of the last.

    When a block is full, each of its cells is overwritten by the highest from there to its end. It
    takes a third of the time of a queue of candidates, whose branches cannot be predicted.
    """
    i = int(m[at])
    ring = at + 3
    high = x if i == 0 else max(m[at + 2], x)
    m[ring + i] = x
    m[at + 2] = high
    i += 1
    if i == n:
        for k in range(ring + n - 2, ring - 1, -1):
            m[k] = max(m[k], m[k + 1])
        m[at] = 0
        m[at + 1] = 1.0
        return high
    m[at] = i
    return max(high, m[ring + i]) if m[at + 1] == 1.0 else NAN


@compiled
def smooth(m: Memory, at: int, n: int, x: float) -> float:
    """Wilder's mean, seeded by the plain mean of the first ``n`` values."""
    seen = m[at] + 1.0
    m[at] = seen
    if seen > n:
        m[at + 1] = (m[at + 1] * (n - 1) + x) / n
        return m[at + 1]
    m[at + 1] += x
    if seen < n:
        return NAN
    m[at + 1] /= n
    return m[at + 1]


@compiled
def smooth_sum(m: Memory, at: int, n: int, x: float) -> float:
    """Wilder's sum, which forgets one ``n``-th of itself per value."""
    seen = m[at] + 1.0
    m[at] = seen
    if seen < n:
        m[at + 1] += x
        return NAN
    m[at + 1] = m[at + 1] - m[at + 1] / n + x
    return m[at + 1]


@compiled
def average(m: Memory, at: int, n: int, x: float) -> float:
    """Exponential mean with weight 2 / (n + 1), seeded by the plain mean of the first ``n``."""
    seen = m[at] + 1.0
    m[at] = seen
    if seen > n:
        m[at + 1] += (x - m[at + 1]) * (2.0 / (n + 1.0))
        return m[at + 1]
    m[at + 1] += x
    if seen < n:
        return NAN
    m[at + 1] /= n
    return m[at + 1]
