"""Means over a window and earlier values: what most rules compare the price with."""

import math

from core.strategy import Feature
from strategies.features.memory import (
    LAG_CELLS,
    MEAN_CELLS,
    NAN,
    SUM_CELLS,
    Memory,
    Record,
    average,
    size,
    slide_lag,
    slide_sum,
)


def _sma(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    n = int(p.window)
    return slide_sum(m, 0, n, x) / n


def _ema(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    return average(m, 0, int(p.window), x)


def _lag(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    return slide_lag(m, 0, int(p.window), x)


sma = Feature(
    "sma",
    _sma,
    unit="of the source",
    params={"window": 20},
    memory=size(SUM_CELLS, window=1),
    warmup=size(window=1),
    about="Mean of the last window values.",
)

volume_mean = Feature(
    "volume_mean",
    _sma,
    unit="units",
    params={"window": 20},
    source="volume",
    memory=size(SUM_CELLS, window=1),
    warmup=size(window=1),
    about="Mean volume of the last window bars, this one included.",
)

ema = Feature(
    "ema",
    _ema,
    unit="of the source",
    params={"window": 20},
    memory=size(MEAN_CELLS),
    warmup=size(window=1),
    about="Exponential mean of weight 2 / (window + 1), seeded by the mean of the first window.",
)

lag = Feature(
    "lag",
    _lag,
    unit="of the source",
    params={"window": 1},
    memory=size(LAG_CELLS, window=1),
    warmup=size(1, window=1),
    about="The value window updates ago.",
)
