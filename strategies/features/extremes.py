"""Highest and lowest of a window, and how far the price stands from them."""

import math
from collections.abc import Mapping

from core.strategy import Feature
from strategies.features.memory import (
    EXTREME_CELLS,
    NAN,
    Memory,
    Record,
    length,
    size,
    slide_max,
)


def _rolling_max(_market: Record, x: float, m: Memory, p: Record) -> float:
    return slide_max(m, 0, int(p.window), x) if math.isfinite(x) else NAN


def _rolling_min(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    return 0.0 - slide_max(m, 0, int(p.window), 0.0 - x)


def _drawdown(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    n = int(p.window)
    if n > 0:
        peak = slide_max(m, 0, n, x)
    else:
        peak = max(m[0], x)
        m[0] = peak
    return (peak - x) / peak if peak > 0.0 else NAN


def _williams_r(market: Record, _x: float, m: Memory, p: Record) -> float:
    high, low, close = market.high, market.low, market.close
    if not (math.isfinite(high) and math.isfinite(low) and math.isfinite(close)):
        return NAN
    n = int(p.window)
    top = slide_max(m, 0, n, high)
    bottom = 0.0 - slide_max(m, EXTREME_CELLS + n, n, 0.0 - low)
    reach = top - bottom
    return -100.0 * ((top - close) / reach) if reach != 0.0 else NAN


def _drawdown_memory(values: Mapping[str, float]) -> int:
    return EXTREME_CELLS + length(values) if values["window"] else 1


def _drawdown_warmup(values: Mapping[str, float]) -> int:
    return length(values) if values["window"] else 1


rolling_max = Feature(
    "rolling_max",
    _rolling_max,
    unit="of the source",
    params={"window": 20},
    memory=size(EXTREME_CELLS, window=1),
    warmup=size(window=1),
    about="Highest of the last window values.",
)

rolling_min = Feature(
    "rolling_min",
    _rolling_min,
    unit="of the source",
    params={"window": 20},
    memory=size(EXTREME_CELLS, window=1),
    warmup=size(window=1),
    about="Lowest of the last window values.",
)

donchian_upper = Feature(
    "donchian_upper",
    _rolling_max,
    unit="price",
    params={"window": 20},
    source="high",
    memory=size(EXTREME_CELLS, window=1),
    warmup=size(window=1),
    about="Highest high of the last window bars, this one included.",
)

donchian_lower = Feature(
    "donchian_lower",
    _rolling_min,
    unit="price",
    params={"window": 20},
    source="low",
    memory=size(EXTREME_CELLS, window=1),
    warmup=size(window=1),
    about="Lowest low of the last window bars, this one included.",
)

drawdown = Feature(
    "drawdown",
    _drawdown,
    unit="fraction",
    params={"window": 0},
    memory=_drawdown_memory,
    warmup=_drawdown_warmup,
    about="Fall from the highest of the last window values, or of all when window is 0; positive.",
)

williams_r = Feature(
    "williams_r",
    _williams_r,
    unit="-100 to 0",
    params={"window": 14},
    source=None,
    reads=("high", "low", "close"),
    memory=size(2 * EXTREME_CELLS, window=2),
    warmup=size(window=1),
    about="Where the close stands in the range of the last window bars; NaN when there is none.",
)
