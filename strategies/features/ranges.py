"""True range and Wilder's directional movement: how far bars reach, and which way.

They read high, low and close of the market, so they have no source. Values equal TA-Lib's,
including its choice to leave ADX unchanged on a bar without any direction.
"""

import math

from core.compiled import compiled
from core.strategy import Feature
from strategies.features.memory import (
    MEAN_CELLS,
    NAN,
    Memory,
    Record,
    size,
    smooth,
    smooth_sum,
)

BAR = ("high", "low", "close")


@compiled
def range_of(high: float, low: float, before: float) -> float:
    """True range, given the close of the bar before."""
    return max(high - low, abs(high - before), abs(low - before))


@compiled
def known_bar(market: Record) -> bool:
    """Whether high, low and close are all numbers."""
    return math.isfinite(market.high) and math.isfinite(market.low) and math.isfinite(market.close)


@compiled
def next_range(market: Record, m: Memory) -> float:
    """True range of this bar, from the close kept in the first two cells."""
    started, before = m[0] == 1.0, m[1]
    m[0] = 1.0
    m[1] = market.close
    return range_of(market.high, market.low, before) if started else NAN


@compiled
def next_atr(market: Record, m: Memory, n: int) -> float:
    """Average true range, kept in the first four cells."""
    reach = next_range(market, m)
    return smooth(m, 2, n, reach) if not math.isnan(reach) else NAN


@compiled
def next_directions(market: Record, m: Memory, n: int) -> tuple[float, float]:
    """Plus and minus directional indicators, kept in the first ten cells."""
    started = m[0] == 1.0
    up, down = market.high - m[2], m[3] - market.low
    reach = next_range(market, m)
    m[2] = market.high
    m[3] = market.low
    if not started:
        return NAN, NAN
    plus = smooth_sum(m, 4, n, up if up > down and up > 0.0 else 0.0)
    minus = smooth_sum(m, 6, n, down if down > up and down > 0.0 else 0.0)
    total = smooth_sum(m, 8, n, reach)
    if math.isnan(total):
        return NAN, NAN
    if total == 0.0:
        return 0.0, 0.0
    return 100.0 * (plus / total), 100.0 * (minus / total)


def _true_range(market: Record, _x: float, m: Memory, _p: Record) -> float:
    return next_range(market, m) if known_bar(market) else NAN


def _atr(market: Record, _x: float, m: Memory, p: Record) -> float:
    return next_atr(market, m, int(p.window)) if known_bar(market) else NAN


def _plus_di(market: Record, _x: float, m: Memory, p: Record) -> float:
    return next_directions(market, m, int(p.window))[0] if known_bar(market) else NAN


def _minus_di(market: Record, _x: float, m: Memory, p: Record) -> float:
    return next_directions(market, m, int(p.window))[1] if known_bar(market) else NAN


def _adx(market: Record, _x: float, m: Memory, p: Record) -> float:
    if not known_bar(market):
        return NAN
    n = int(p.window)
    plus, minus = next_directions(market, m, n)
    if math.isnan(plus):
        return NAN
    total = plus + minus
    if total != 0.0:
        return smooth(m, 10, n, 100.0 * (abs(plus - minus) / total))
    return smooth(m, 10, n, 0.0) if m[10] < n else m[11]


true_range = Feature(
    "true_range",
    _true_range,
    unit="price",
    source=None,
    reads=BAR,
    memory=size(2),
    warmup=size(2),
    about="Reach of the bar, the gap from the close before included.",
)

atr = Feature(
    "atr",
    _atr,
    unit="price",
    params={"window": 14},
    source=None,
    reads=BAR,
    memory=size(2 + MEAN_CELLS),
    warmup=size(1, window=1),
    about="Wilder's mean of the true range, seeded by the mean of the first window.",
)

plus_di = Feature(
    "plus_di",
    _plus_di,
    unit="0 to 100",
    params={"window": 14},
    source=None,
    reads=BAR,
    memory=size(4 + 3 * MEAN_CELLS),
    warmup=size(1, window=1),
    about="Upward movement as a share of the true range.",
)

minus_di = Feature(
    "minus_di",
    _minus_di,
    unit="0 to 100",
    params={"window": 14},
    source=None,
    reads=BAR,
    memory=size(4 + 3 * MEAN_CELLS),
    warmup=size(1, window=1),
    about="Downward movement as a share of the true range.",
)

adx = Feature(
    "adx",
    _adx,
    unit="0 to 100",
    params={"window": 14},
    source=None,
    reads=BAR,
    memory=size(4 + 4 * MEAN_CELLS),
    warmup=size(window=2),
    about="Wilder's average directional index: strength of a trend, whichever way.",
)
