"""What the names of the rule language stand for: fields, features with arguments, the position.

A name can only be something the engine folds from the past, so no rule can name the future, and its
warm-up is known before it runs.
"""

import re
from collections.abc import Collection

from core.model import MARKET_FIELDS
from core.strategy import Feature, Source
from strategies.features import (
    FEATURES,
    bollinger_lower,
    bollinger_middle,
    bollinger_upper,
    donchian_lower,
    donchian_upper,
    macd,
    macd_histogram,
    macd_signal,
    sma,
    volume_mean,
)
from strategies.regimes import REGIME, Regime
from strategies.rules.expression import Held, Leaf, Number, Parameter, Series

FUNCTIONS: dict[str, Feature] = {**FEATURES, "ma": sma, "volume_ma": volume_mean}
"""What can be called, or carry its window as a suffix: ``ma_20`` is ``sma(close, 20)``."""

FIXED: dict[str, Source] = {
    **{name: name for name in MARKET_FIELDS},
    "price": "close",
    "regime": REGIME(),
    "macd.macd": macd(),
    "macd.line": macd(),
    "macd.signal": macd_signal(),
    "macd.histogram": macd_histogram(),
    "bb.upper": bollinger_upper(),
    "bb.middle": bollinger_middle(),
    "bb.lower": bollinger_lower(),
    "donchian.upper": donchian_upper(),
    "donchian.lower": donchian_lower(),
}

HELD = {
    "gain": Held("gain"),
    "bars_held": Held("bars_held"),
    "drawdown": Held("drawdown"),
}
"""Of the open position, 0 without one: open return, bars since the entry, and the fall of the price
from its best since the entry. ``drawdown(close, 50)`` with arguments is that of the market."""

CODES = {regime.name.lower(): Number(float(regime)) for regime in Regime}
"""Codes to compare ``regime`` with: ``regime == trend_up``."""

SUFFIXED = re.compile(r"([a-z_]+?)_(\d+)")


def meaning(name: str, parameters: Collection[str]) -> Leaf | None:
    """What a name stands for, or None."""
    if name in parameters:
        return Parameter(name)
    if name in HELD:
        return HELD[name]
    if name in CODES:
        return CODES[name]
    if name in FIXED:
        return Series(FIXED[name])
    if name in FUNCTIONS:
        return Series(FUNCTIONS[name]())
    match = SUFFIXED.fullmatch(name)
    if match and "window" in getattr(FUNCTIONS.get(match[1]), "params", ()):
        return Series(FUNCTIONS[match[1]](window=float(match[2])))
    return None


def known_names(parameters: Collection[str]) -> list[str]:
    """Every name there is, with a few examples of suffixes."""
    return [*parameters, *HELD, *CODES, *FIXED, *FUNCTIONS, "ma_20", "sma_50", "ema_12", "rsi_14"]
