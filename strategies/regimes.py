"""Which kind of market this is, bar by bar and from the past alone.

It runs on every bar of every instrument, because results are reported per regime and a regime that
is computed afterwards, over the whole series, has seen the future. Every state is harder to enter
than to stay in and lasts a least number of bars, so a market on the edge does not flicker.
"""

import math
from enum import IntEnum

from core.compiled import inlined
from core.strategy import Feature
from strategies.features.memory import Memory, Record, size


class Regime(IntEnum):
    """Kinds of market. The later in CRASH, HIGH_VOLATILITY, trend, RANGE gives way to the earlier:
    a strong trend bar in a wild market is high volatility, a wild fall is a crash."""

    UNKNOWN = 0
    TREND_UP = 1
    TREND_DOWN = 2
    RANGE = 3
    HIGH_VOLATILITY = 4
    CRASH = 5


UNKNOWN, TREND_UP, TREND_DOWN, RANGE, HIGH_VOLATILITY, CRASH = (float(code) for code in Regime)

DEFAULTS = {
    # bars a mean looks back over: volatility now, volatility as usual, trend, the decaying peak
    "fast": 30.0,
    "slow": 500.0,
    "trend": 60.0,
    "peak": 240.0,
    # volatility now over volatility as usual
    "wild_enter": 1.5,
    "wild_leave": 1.2,
    # mean return over mean absolute return: 1 when all bars go the same way
    "trend_enter": 0.3,
    "trend_leave": 0.05,
    # fall from the decaying peak, and of one bar, in usual volatilities per bar
    "crash_enter": 30.0,
    "crash_leave": 15.0,
    "crash_bar": 12.0,
    # no fall smaller than this fraction is a crash, however calm the market was
    "crash_fall_min": 0.02,
    # bars a regime lasts at least (a crash waits for nobody), and bars before the first verdict
    "dwell": 10.0,
    "warmup": 60.0,
}
"""Parameters of the classifier. For a walk of independent returns the trend score scatters by 0.16
and the volatility ratio by 0.13, and a fall is seldom beyond 25 volatilities: such a walk spends
about a tenth of its time in each trend, and next to none in the wild regimes."""

# Cells of memory: bars seen, last price, four weights, five means, regime and bars in it.
BARS, LAST, SLOW, FAST, TREND, DECAY, USUAL, WILD, DRIFT, PATH, PEAK, NOW, HELD = range(13)


@inlined
def start(x: float, m: Memory, p: Record) -> None:
    """Take the first price, and turn spans into weights once."""
    m[LAST] = x
    m[PEAK] = x
    m[SLOW] = 2.0 / (p.slow + 1.0)
    m[FAST] = 2.0 / (p.fast + 1.0)
    m[TREND] = 2.0 / (p.trend + 1.0)
    m[DECAY] = 2.0 / (p.peak + 1.0)


@inlined
def fold(x: float, move: float, m: Memory, p: Record) -> None:
    """Bring the means up to date."""
    bars = m[BARS] + 1.0
    square = move * move
    slow, fast, trend = m[SLOW], m[FAST], m[TREND]
    if bars < p.slow:
        # Young means weigh all bars alike, so that the first return does not linger.
        young = 1.0 / bars
        slow, fast, trend = max(slow, young), max(fast, young), max(trend, young)
    m[BARS] = bars
    m[LAST] = x
    m[USUAL] += slow * (square - m[USUAL])
    m[WILD] += fast * (square - m[WILD])
    m[DRIFT] += trend * (move - m[DRIFT])
    m[PATH] += trend * (abs(move) - m[PATH])
    peak = m[PEAK] + m[DECAY] * (x - m[PEAK])
    m[PEAK] = x if x > peak else peak


@inlined
def crashed(x: float, move: float, m: Memory, p: Record) -> bool:
    """Whether this fall, from the peak or of one bar, is one of a crash. Squares, for no root."""
    fall, peak = m[PEAK] - x, m[PEAK]
    units = p.crash_leave if m[NOW] == CRASH else p.crash_enter
    if fall >= p.crash_fall_min * peak and fall * fall > units * units * m[USUAL] * peak * peak:
        return True
    units = p.crash_bar
    return bool(move <= -p.crash_fall_min and move * move > units * units * m[USUAL])


@inlined
def judge(x: float, move: float, m: Memory, p: Record) -> float:
    """The regime these means speak for; the present one is easier to stay in."""
    now = m[NOW]
    ratio = p.wild_leave if now == HIGH_VOLATILITY else p.wild_enter
    up = p.trend_leave if now == TREND_UP else p.trend_enter
    down = p.trend_leave if now == TREND_DOWN else p.trend_enter
    if crashed(x, move, m, p):
        return CRASH
    if m[WILD] > ratio * ratio * m[USUAL]:
        return HIGH_VOLATILITY
    if m[DRIFT] > up * m[PATH]:
        return TREND_UP
    if m[DRIFT] < -down * m[PATH]:
        return TREND_DOWN
    return RANGE


def classify(_market: Record, x: float, m: Memory, p: Record) -> float:
    """Code of the regime after this bar. A missing price leaves the regime as it is."""
    if not 0.0 < x < math.inf:
        return m[NOW]
    if m[LAST] == 0.0:
        start(x, m, p)
        return UNKNOWN
    move = x / m[LAST] - 1.0
    fold(x, move, m, p)
    if m[BARS] < p.warmup:
        return UNKNOWN
    seen = judge(x, move, m, p)
    m[HELD] += 1.0
    if seen != m[NOW] and (m[HELD] >= p.dwell or seen == CRASH or m[NOW] == UNKNOWN):
        m[NOW] = seen
        m[HELD] = 0.0
    return m[NOW]


REGIME = Feature(
    "regime",
    classify,
    unit="regime code",
    params=DEFAULTS,
    memory=size(HELD + 1),
    about="Kind of market after this bar, as a code of Regime.",
)
