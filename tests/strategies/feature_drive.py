"""Runs features without the engine: the same compiled call, over a made-up market.

As a program it writes a digest of every feature's answers, so that a test can compare the compiled
with the interpreted run.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.compiled import address_of, call_feature, compiled
from core.model import MARKET, MARKET_FIELDS
from core.strategy import Feature
from strategies.features import FEATURES
from strategies.regimes import REGIME

Floats = NDArray[np.float64]
GUARD = 12345.678
ALL = {**FEATURES, REGIME.name: REGIME}


@compiled
def drive(
    callee: int, market: int, values: Floats, memory: int, params: int, out: Floats, step: int
) -> None:
    """Call one feature once per bar."""
    for i in range(len(out)):
        out[i] = call_feature(callee, market + i * step, values[i], memory, params)


def bars(count: int, seed: int = 0, scatter: float = 0.002) -> Any:
    """A random walk with all fields filled."""
    chance = np.random.default_rng(seed)
    market = np.zeros(count, MARKET)
    for name in MARKET_FIELDS:
        market[name] = chance.random(count)
    close = 100 * np.exp(np.cumsum(chance.normal(0, scatter, count)))
    before = np.concatenate([[100.0], close[:-1]])
    market["close"], market["open"] = close, before
    market["high"] = np.maximum(close, before) * (1 + chance.random(count) * scatter)
    market["low"] = np.minimum(close, before) * (1 - chance.random(count) * scatter)
    market["volume"] = chance.lognormal(3, 1, count)
    market["oracle"] = close
    market["mark"] = close * (1 + chance.normal(0, scatter, count))
    market["bid"], market["ask"] = close - 0.01, close + 0.01 * chance.random(count)
    return market


def closes(values: Any) -> Any:
    """Bars that are one price each."""
    market = np.zeros(len(values), MARKET)
    for name in ("open", "high", "low", "close", "volume"):
        market[name] = values
    return market


def answers(feature: Feature, market: Any, **params: float) -> Floats:
    """Every answer over these bars."""
    return run(feature, market, **params)[0]


def run(feature: Feature, market: Any, **params: float) -> tuple[Floats, Floats]:
    """Every answer over these bars and the memory after; fails if the feature leaves its memory."""
    chosen = {**feature.params, **params}
    cells = feature.memory(chosen)
    memory = np.zeros(cells + 8)
    memory[cells:] = GUARD
    record = np.zeros(1, feature.layout)
    for name, value in chosen.items():
        record[name] = value
    source = market[feature.source] if feature.source else np.full(len(market), np.nan)
    out = np.empty(len(market))
    callee = address_of(feature.update, "RfFR:f", MARKET, feature.layout)
    places = [array.ctypes.data for array in (market, memory, record)]
    values = np.ascontiguousarray(source)
    drive(callee, places[0], values, places[1], places[2], out, MARKET.itemsize)
    assert (memory[cells:] == GUARD).all(), f"{feature.name} wrote beyond its memory"
    return out, memory[:cells]


def gappy(count: int) -> Any:
    """Bars of which some fields are missing now and then, and some are infinite or zero."""
    market = bars(count, seed=5)
    chance = np.random.default_rng(6)
    for name in MARKET_FIELDS:
        market[name][chance.random(count) < 0.03] = np.nan
        market[name][chance.random(count) < 0.01] = np.inf
        market[name][chance.random(count) < 0.01] = 0.0
    return market


def digests() -> list[str]:
    """One line per feature and market: its answers as bytes."""
    markets = (bars(300), gappy(300), closes(np.full(60, 7.3)))
    return [
        f"{name} {answers(feature, market).tobytes().hex()}"
        for name, feature in sorted(ALL.items())
        for market in markets
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(digests()))
