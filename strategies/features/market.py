"""The eight market features of the E3 family, each with one stated unit and one stated meaning.

The systems this product unites gave every one of them a different meaning live and in backtests.
Here a missing input gives NaN, never a plausible constant: a filter cannot pass on data that is not
there.
"""

import math

from core.strategy import Feature
from strategies.features.memory import (
    MEAN_CELLS,
    MOMENT_CELLS,
    NAN,
    Memory,
    Record,
    deviation_of,
    mean_of,
    size,
    slide_moments,
)
from strategies.features.ranges import known_bar, next_atr


def _body_over_atr(market: Record, _x: float, m: Memory, p: Record) -> float:
    if not (known_bar(market) and math.isfinite(market.open)):
        return NAN
    atr = next_atr(market, m, int(p.window))
    return abs(market.close - market.open) / atr if atr != 0.0 else NAN


def _volume_z(_market: Record, x: float, m: Memory, p: Record) -> float:
    if not math.isfinite(x):
        return NAN
    n = int(p.window)
    mean, deviation = mean_of(m, 0, n), deviation_of(m, 0, n)
    slide_moments(m, 0, n, x)
    if deviation == 0.0:
        return 0.0 if x == mean else NAN
    return (x - mean) / deviation


def _ob_imbalance(market: Record, _x: float, _m: Memory, _p: Record) -> float:
    bid, ask = market.bid_depth, market.ask_depth
    total = bid + ask
    return bid / total if bid >= 0.0 and ask >= 0.0 and 0.0 < total < math.inf else NAN


def _premium(market: Record, _x: float, _m: Memory, _p: Record) -> float:
    oracle, mark = market.oracle, market.mark
    if math.isnan(mark) and market.ask >= market.bid:
        mark = (market.bid + market.ask) / 2.0
    if not (math.isfinite(mark) and 0.0 < oracle < math.inf):
        return NAN
    return (mark - oracle) / oracle


def _spread_bps(market: Record, _x: float, _m: Memory, _p: Record) -> float:
    bid, ask = market.bid, market.ask
    middle = (bid + ask) / 2.0
    return (ask - bid) / middle * 1e4 if ask >= bid and 0.0 < middle < math.inf else NAN


def _known(_market: Record, x: float, _m: Memory, _p: Record) -> float:
    return x if math.isfinite(x) else NAN


body_over_atr = Feature(
    "body_over_atr",
    _body_over_atr,
    unit="ATR",
    params={"window": 14},
    source=None,
    reads=("open", "high", "low", "close"),
    memory=size(2 + MEAN_CELLS),
    warmup=size(1, window=1),
    about="Size of the bar's body over the average true range, which includes this bar.",
)

volume_z = Feature(
    "volume_z",
    _volume_z,
    unit="deviations",
    params={"window": 14},
    source="volume",
    memory=size(MOMENT_CELLS, window=1),
    warmup=size(1, window=1),
    about="Deviations of the volume from its mean over the window bars before; where those were "
    "all equal, 0 if this one is too, else NaN.",
)

ob_imbalance = Feature(
    "ob_imbalance",
    _ob_imbalance,
    unit="0 to 1",
    source=None,
    reads=("bid_depth", "ask_depth"),
    about="Bid share of the depth of the order book.",
)

premium = Feature(
    "premium",
    _premium,
    unit="fraction",
    source=None,
    reads=("mark", "oracle"),
    about="Mark (while there is none, the mid of bid and ask) over the oracle, less one.",
)

funding_rate = Feature(
    "funding_rate",
    _known,
    unit="fraction per hour",
    source="funding_rate",
    about="What longs pay shorts, as known now.",
)

open_interest = Feature(
    "open_interest",
    _known,
    unit="units",
    source="open_interest",
    about="Contracts outstanding, as known now.",
)

spread_bps = Feature(
    "spread_bps",
    _spread_bps,
    unit="basis points",
    source=None,
    reads=("bid", "ask"),
    about="Ask less bid over the mid price; NaN for a crossed book.",
)
