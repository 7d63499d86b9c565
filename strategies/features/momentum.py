"""How far and how steadily a series has moved: changes, returns, RSI and MACD.

RSI and MACD follow TA-Lib to the last digit that matters, so that a rule found elsewhere means the
same here. Two departures: RSI of a series that never moved is 50 (TA-Lib says 0), and the MACD line
does not wait for its signal line.
"""

import math
from collections.abc import Mapping

from core.compiled import compiled
from core.strategy import Feature
from strategies.features.memory import (
    LAG_CELLS,
    MEAN_CELLS,
    NAN,
    Memory,
    Record,
    average,
    length,
    size,
    slide_lag,
    smooth,
)


def _change(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    return x - slide_lag(m, 0, int(p.window), x)


def _returns(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    before = slide_lag(m, 0, int(p.window), x)
    return x / before - 1.0 if before != 0.0 else NAN


def _roc(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    before = slide_lag(m, 0, int(p.window), x)
    return (x / before - 1.0) * 100.0 if before != 0.0 else NAN


def _log_return(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    before = slide_lag(m, 0, int(p.window), x)
    return math.log(x / before) if x > 0.0 and before > 0.0 else NAN


def _rsi(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    n = int(p.window)
    change = x - m[1]
    started = m[0] == 1.0
    m[0] = 1.0
    m[1] = x
    if not started:
        return NAN
    gain = smooth(m, 2, n, max(change, 0.0))
    loss = smooth(m, 4, n, max(-change, 0.0))
    total = gain + loss
    return 100.0 * (gain / total) if total != 0.0 else 50.0


@compiled
def macd_of(m: Memory, fast: int, slow: int, x: float) -> float:
    """The MACD line; the fast mean is seeded as late as the slow one, as TA-Lib does it."""
    if fast > slow:
        fast, slow = slow, fast
    m[4] += 1.0
    long = average(m, 0, slow, x)
    if m[4] <= slow - fast:
        return NAN
    return average(m, 2, fast, x) - long


def _macd(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    return macd_of(m, int(p.fast), int(p.slow), x)


def _macd_signal(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    line = macd_of(m, int(p.fast), int(p.slow), x)
    if math.isnan(line):
        return NAN
    return average(m, 5, int(p.signal), line)


def _macd_histogram(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    line = macd_of(m, int(p.fast), int(p.slow), x)
    if math.isnan(line):
        return NAN
    return line - average(m, 5, int(p.signal), line)


def _macd_warmup(values: Mapping[str, float]) -> int:
    line = max(length(values, "fast"), length(values, "slow"))
    return line + length(values, "signal") - 1 if "signal" in values else line


change = Feature(
    "change",
    _change,
    unit="of the source",
    params={"window": 1},
    memory=size(LAG_CELLS, window=1),
    warmup=size(1, window=1),
    about="The value less the one window updates ago.",
)

returns = Feature(
    "returns",
    _returns,
    unit="fraction",
    params={"window": 1},
    memory=size(LAG_CELLS, window=1),
    warmup=size(1, window=1),
    about="Simple return over window updates.",
)

roc = Feature(
    "roc",
    _roc,
    unit="percent",
    params={"window": 10},
    memory=size(LAG_CELLS, window=1),
    warmup=size(1, window=1),
    about="Simple return over window updates, in percent.",
)

log_return = Feature(
    "log_return",
    _log_return,
    unit="log",
    params={"window": 1},
    memory=size(LAG_CELLS, window=1),
    warmup=size(1, window=1),
    about="Logarithm of the value over the one window updates ago.",
)

rsi = Feature(
    "rsi",
    _rsi,
    unit="0 to 100",
    params={"window": 14},
    memory=size(2 + 2 * MEAN_CELLS),
    warmup=size(1, window=1),
    about="Wilder's relative strength index: share of gains in all movement.",
)

macd = Feature(
    "macd",
    _macd,
    unit="of the source",
    params={"fast": 12, "slow": 26},
    memory=size(1 + 2 * MEAN_CELLS),
    warmup=_macd_warmup,
    about="Fast exponential mean less the slow one.",
)

macd_signal = Feature(
    "macd_signal",
    _macd_signal,
    unit="of the source",
    params={"fast": 12, "slow": 26, "signal": 9},
    memory=size(1 + 3 * MEAN_CELLS),
    warmup=_macd_warmup,
    about="Exponential mean of the MACD line.",
)

macd_histogram = Feature(
    "macd_histogram",
    _macd_histogram,
    unit="of the source",
    params={"fast": 12, "slow": 26, "signal": 9},
    memory=size(1 + 3 * MEAN_CELLS),
    warmup=_macd_warmup,
    about="The MACD line less its signal line.",
)
