"""Indicators as incremental accumulators, one number per bar; a new one is a function and a line.

Every feature answers NaN until it is warm. A missing input (NaN) is skipped: the answer of that bar
is NaN and the state stays as it was.
"""

from core.strategy import Feature
from strategies.features.averages import ema, lag, sma, volume_mean
from strategies.features.extremes import (
    donchian_lower,
    donchian_upper,
    drawdown,
    rolling_max,
    rolling_min,
    williams_r,
)
from strategies.features.market import (
    body_over_atr,
    funding_rate,
    ob_imbalance,
    open_interest,
    premium,
    spread_bps,
    volume_z,
)
from strategies.features.momentum import (
    change,
    log_return,
    macd,
    macd_histogram,
    macd_signal,
    returns,
    roc,
    rsi,
)
from strategies.features.ranges import adx, atr, minus_di, plus_di, true_range
from strategies.features.volatility import (
    bollinger_lower,
    bollinger_middle,
    bollinger_upper,
    realized_vol,
    realized_vol_annual,
    std,
    zscore,
)

__all__ = [
    "FEATURES",
    "adx",
    "atr",
    "body_over_atr",
    "bollinger_lower",
    "bollinger_middle",
    "bollinger_upper",
    "change",
    "donchian_lower",
    "donchian_upper",
    "drawdown",
    "ema",
    "funding_rate",
    "lag",
    "log_return",
    "macd",
    "macd_histogram",
    "macd_signal",
    "minus_di",
    "ob_imbalance",
    "open_interest",
    "plus_di",
    "premium",
    "realized_vol",
    "realized_vol_annual",
    "returns",
    "roc",
    "rolling_max",
    "rolling_min",
    "rsi",
    "sma",
    "spread_bps",
    "std",
    "true_range",
    "volume_mean",
    "volume_z",
    "williams_r",
    "zscore",
]

FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        *(sma, ema, lag, volume_mean),
        *(rsi, macd, macd_signal, macd_histogram, change, returns, roc, log_return),
        *(true_range, atr, plus_di, minus_di, adx),
        *(std, zscore, bollinger_upper, bollinger_middle, bollinger_lower),
        *(realized_vol, realized_vol_annual),
        *(rolling_max, rolling_min, donchian_upper, donchian_lower, drawdown, williams_r),
        *(body_over_atr, volume_z, ob_imbalance, premium),
        *(funding_rate, open_interest, spread_bps),
    )
}
"""Every feature by name: what a rule or a configuration may ask for."""
