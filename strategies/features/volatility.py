"""How widely a series scatters: deviations, bands, scores and realised volatility.

All deviations are those of a population (divided by the window), as in TA-Lib.
"""

import math

from core.compiled import compiled
from core.strategy import Feature
from strategies.features.averages import _sma
from strategies.features.memory import (
    MOMENT_CELLS,
    NAN,
    SUM_CELLS,
    Memory,
    Record,
    deviation_of,
    mean_of,
    size,
    slide_moments,
)

MINUTES_PER_YEAR = 525_600


@compiled
def next_volatility(m: Memory, n: int, x: float) -> float:
    """Deviation of the last ``n`` log returns; the value before is kept in the first cell."""
    before = m[0]
    m[0] = x
    if before == 0.0:
        return NAN
    slide_moments(m, 1, n, math.log(x / before))
    return deviation_of(m, 1, n)


def _std(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    n = int(p.window)
    slide_moments(m, 0, n, x)
    return deviation_of(m, 0, n)


def _zscore(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    n = int(p.window)
    slide_moments(m, 0, n, x)
    deviation = deviation_of(m, 0, n)
    return (x - mean_of(m, 0, n)) / deviation if deviation != 0.0 else 0.0


def _bollinger_upper(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    n = int(p.window)
    slide_moments(m, 0, n, x)
    band: float = p.width * deviation_of(m, 0, n)
    return mean_of(m, 0, n) + band


def _bollinger_lower(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    n = int(p.window)
    slide_moments(m, 0, n, x)
    band: float = p.width * deviation_of(m, 0, n)
    return mean_of(m, 0, n) - band


def _realized_vol(_market: Record, x: float, m: Memory, p: Record) -> float:
    return next_volatility(m, int(p.window), x) if 0.0 < x < math.inf else NAN


def _realized_vol_annual(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not 0.0 < x < math.inf:
        return NAN
    return next_volatility(m, int(p.window), x) * math.sqrt(max(p.bars_per_year, 0.0))


std = Feature(
    "std",
    _std,
    unit="of the source",
    params={"window": 20},
    memory=size(MOMENT_CELLS, window=1),
    warmup=size(window=1),
    about="Standard deviation of the last window values.",
)

zscore = Feature(
    "zscore",
    _zscore,
    unit="deviations",
    params={"window": 20},
    memory=size(MOMENT_CELLS, window=1),
    warmup=size(window=1),
    about="Deviations from the mean of the last window values, this one included; 0 if all equal.",
)

bollinger_upper = Feature(
    "bollinger_upper",
    _bollinger_upper,
    unit="of the source",
    params={"window": 20, "width": 2},
    memory=size(MOMENT_CELLS, window=1),
    warmup=size(window=1),
    about="Mean of the last window values plus width deviations.",
)

bollinger_middle = Feature(
    "bollinger_middle",
    _sma,
    unit="of the source",
    params={"window": 20},
    memory=size(SUM_CELLS, window=1),
    warmup=size(window=1),
    about="Mean of the last window values.",
)

bollinger_lower = Feature(
    "bollinger_lower",
    _bollinger_lower,
    unit="of the source",
    params={"window": 20, "width": 2},
    memory=size(MOMENT_CELLS, window=1),
    warmup=size(window=1),
    about="Mean of the last window values less width deviations.",
)

realized_vol = Feature(
    "realized_vol",
    _realized_vol,
    unit="fraction per bar",
    params={"window": 20},
    memory=size(1 + MOMENT_CELLS, window=1),
    warmup=size(1, window=1),
    about="Standard deviation of the last window log returns, per bar.",
)

realized_vol_annual = Feature(
    "realized_vol_annual",
    _realized_vol_annual,
    unit="fraction per year",
    params={"window": 20, "bars_per_year": MINUTES_PER_YEAR},
    memory=size(1 + MOMENT_CELLS, window=1),
    warmup=size(1, window=1),
    about="Standard deviation of the last window log returns, times the root of bars_per_year.",
)
