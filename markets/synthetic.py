"""Synthetic markets: the seeded sample the product ships, with the habits real markets have.

Volatility clusters and jumps, volume follows both, the mark strays from the oracle and comes back,
funding follows the premium, the book leans a little before the price does, forecasts know a little
more than the market. Nothing here is evidence about profit: it exercises code.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np

from markets.candles import side_events
from markets.export import write
from markets.history import Contract, Floats, History, Quality, Times, assemble, make_bars

__all__ = ["START_MS", "binary_sample", "sample", "write"]

START_MS = 1_735_689_600_000
"""The first bar opens at 2025-01-01T00:00:00Z."""

_HOUR_MS = 3_600_000
_START_PRICES = {"SOL-PERP": 190.0, "BTC-PERP": 94_000.0, "ETH-PERP": 3_300.0}
_VOLATILITY_PER_MINUTE = 7e-4
_COMMON_SHARE = 0.6
_TAIL_DEGREES = 5.0
_JUMP_CHANCE, _JUMP_SCALE = 4e-4, 6.0
_ARCH, _GARCH = 0.07, 0.91
_LEAN_MEMORY, _LEAN_EFFECT = 0.6, 0.08
_PREMIUM_MEMORY, _PREMIUM_NOISE = 0.985, 0.6e-4
_EXCURSION_CHANCE, _EXCURSION_SCALE = 6e-4, 25e-4
_FUNDING_FLOOR_PER_HOUR, _FUNDING_CAP_PER_HOUR = 1 / 5000 / 24, 1e-3
_TICKS_SHOWN = 5
# a binary's price knows what was true an eighth of its life ago
_STALE_SHARE = 8


def sample(
    seed: int = 7,
    bars: int = 20_000,
    interval_ms: int = 60_000,
    symbols: Sequence[str] = ("SOL-PERP", "BTC-PERP"),
) -> dict[str, History]:
    """Perpetuals by symbol: bars, quotes at each close, funding on the hour.

    A symbol's data depend on the seed and its own name, not on the other symbols.
    """
    assert bars > 0, bars
    common = _tailed(np.random.default_rng(seed), bars)
    return {symbol: _perpetual(symbol, seed, bars, interval_ms, common) for symbol in symbols}


def binary_sample(
    seed: int = 7, bars: int = 240, interval_ms: int = _HOUR_MS, markets: int = 3
) -> dict[str, History]:
    """Event contracts: a price that drifts to 0 or 1, better-informed forecasts, a resolution.

    The resolution falls on the close of the last bar.
    """
    assert bars > 1, bars
    names = [f"EVENT-{number:02d}" for number in range(1, markets + 1)]
    return {name: _binary(name, seed, bars, interval_ms) for name in names}


def _perpetual(symbol: str, seed: int, bars: int, interval_ms: int, common: Floats) -> History:
    rng = _rng(symbol, seed)
    opens = START_MS + interval_ms * np.arange(bars)
    lean = _remembering(rng.standard_normal(bars) * math.sqrt(1 - _LEAN_MEMORY**2), _LEAN_MEMORY)
    own = math.sqrt(1 - _COMMON_SHARE) * _tailed(rng, bars)
    shocks = math.sqrt(_COMMON_SHARE) * common + own + _LEAN_EFFECT * np.append(0.0, lean[:-1])
    usual = _VOLATILITY_PER_MINUTE * math.sqrt(interval_ms / 60_000)
    volatility = _clustered(shocks, usual)
    oracle = _START_PRICES.get(symbol, 100.0) * np.exp(np.cumsum(volatility * shocks))
    premium = _premium(rng, bars)
    tick = 10.0 ** (math.floor(math.log10(oracle[0])) - _TICKS_SHOWN)
    prices = _prices(rng, oracle * (1 + premium), volatility, tick)
    activity = volatility / usual
    prices["volume"] = _volume(rng, prices, volatility, activity, opens)
    columns = _book(rng, prices["close"], lean, activity, tick)
    columns["oracle"] = _on_tick(oracle, tick)
    columns["mark"] = _on_tick(oracle * (1 + premium), tick)
    columns["open_interest"] = _open_interest(rng, shocks)
    columns |= _funding(opens + interval_ms, premium, columns["oracle"], interval_ms)
    return _assembled(opens, interval_ms, prices, columns, f"synthetic {symbol}, seed {seed}")


def _binary(name: str, seed: int, bars: int, interval_ms: int) -> History:
    rng = _rng(name, seed)
    opens = START_MS + interval_ms * np.arange(bars)
    # the sign of a Brownian path at its end, and the exact chance of it being positive before
    path = np.cumsum(rng.standard_normal(bars)) + rng.normal(0, 0.5) * math.sqrt(bars)
    left = np.sqrt(np.maximum(bars - 1 - np.arange(bars), 1e-9))
    truth = np.array([math.erf(z / math.sqrt(2)) / 2 + 0.5 for z in path / left])
    belief = _logit(truth)
    stale = belief[np.maximum(np.arange(bars) - max(bars // _STALE_SHARE, 1), 0)]
    market = _chance(0.85 * stale + rng.normal(0, 0.25, bars))
    forecast = _chance(belief + rng.normal(0, 0.1, bars))
    close = np.clip(_on_tick(market, 0.01), 0.01, 0.99)
    prices = _frame(close, rng.geometric(0.6, bars) / 100 - 0.01, rng.geometric(0.6, bars) / 100)
    prices = {key: np.clip(_on_tick(price, 0.01), 0.01, 0.99) for key, price in prices.items()}
    prices["volume"] = np.ceil(rng.lognormal(5, 1, bars))
    columns = {
        "bid": np.clip(_on_tick(close - 0.01, 0.01), 0.01, 0.98),
        "ask": np.clip(_on_tick(close + 0.01, 0.01), 0.02, 0.99),
        "bid_depth": np.ceil(rng.lognormal(5, 0.5, bars)),
        "ask_depth": np.ceil(rng.lognormal(5, 0.5, bars)),
        "probability": forecast,
        "resolution": np.where(np.arange(bars) == bars - 1, float(path[-1] > 0), np.nan),
    }
    return _assembled(opens, interval_ms, prices, columns, f"synthetic {name}, seed {seed}")


def _assembled(
    opens: Times, interval_ms: int, prices: dict[str, Floats], columns: dict[str, Floats], note: str
) -> History:
    bars = make_bars(opens, interval_ms, **prices)
    quality = Quality(rows_read=len(opens), rows_used=len(opens), notes=(note,))
    end = int(opens[-1]) + interval_ms
    contract = Contract(expires_ms=end) if "resolution" in columns else None
    events = side_events(opens + interval_ms, columns)
    return assemble([*events, bars], interval_ms, quality.spanning(opens, interval_ms), contract)


def _rng(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _tailed(rng: np.random.Generator, count: int) -> Floats:
    """Shocks of unit variance with fat tails, and now and then a jump."""
    shocks = rng.standard_t(_TAIL_DEGREES, count) * math.sqrt((_TAIL_DEGREES - 2) / _TAIL_DEGREES)
    jumps = (rng.random(count) < _JUMP_CHANCE) * rng.normal(0, _JUMP_SCALE, count)
    return np.asarray(shocks + jumps)


def _remembering(noise: Floats, memory: float) -> Floats:
    """A first-order autoregression over the noise."""
    values, level = [], 0.0
    for kick in noise.tolist():
        level = memory * level + kick
        values.append(level)
    return np.array(values)


def _clustered(shocks: Floats, usual: float) -> Floats:
    """GARCH(1,1) volatility per bar; a shock counts at most five times, so that it stays finite."""
    level, values = 1.0, []
    for shock in np.clip(shocks, -5, 5).tolist():
        values.append(level)
        level = 1 - _ARCH - _GARCH + level * (_GARCH + _ARCH * shock * shock)
    return usual * np.sqrt(values)


def _premium(rng: np.random.Generator, count: int) -> Floats:
    """Mark over oracle, as a fraction: it reverts, with rare excursions."""
    leaps = (rng.random(count) < _EXCURSION_CHANCE) * rng.normal(0, _EXCURSION_SCALE, count)
    return _remembering(rng.normal(0, _PREMIUM_NOISE, count) + leaps, _PREMIUM_MEMORY)


def _prices(
    rng: np.random.Generator, path: Floats, volatility: Floats, tick: float
) -> dict[str, Floats]:
    reach = 0.5 * volatility * path
    above, below = np.abs(rng.normal(0, reach)), np.abs(rng.normal(0, reach))
    return {key: _on_tick(price, tick) for key, price in _frame(path, above, below).items()}


def _frame(close: Floats, above: Floats, below: Floats) -> dict[str, Floats]:
    """Bars whose open is the close before, reaching that far above and below their body."""
    first = np.append(close[:1], close[:-1])
    top, bottom = np.maximum(first, close), np.minimum(first, close)
    low = np.maximum(bottom - below, 0.5 * bottom)
    return {"open": first, "high": top + above, "low": low, "close": close}


def _volume(
    rng: np.random.Generator,
    prices: dict[str, Floats],
    volatility: Floats,
    activity: Floats,
    opens: Times,
) -> Floats:
    """Units traded: more when it is volatile, when the body is large, and in the afternoon."""
    body = np.abs(np.log(prices["close"] / prices["open"])) / volatility
    hour = opens % 86_400_000 / _HOUR_MS
    daily = 1 + 0.4 * np.sin((hour - 9) / 24 * 2 * np.pi)
    scale = 2e6 / prices["close"][0]
    noise = rng.lognormal(-0.1, 0.45, len(body))
    volume: Floats = scale * daily * activity**1.5 * (0.5 + 0.7 * body) * noise
    return np.round(volume, 3)


def _book(
    rng: np.random.Generator, close: Floats, lean: Floats, activity: Floats, tick: float
) -> dict[str, Floats]:
    """Best prices, further apart when volatile, and depths that lean before the price moves."""
    half = np.maximum(_on_tick(close * 0.5e-4 * (0.5 + activity), tick), tick)
    depth = 4e6 / close[0] / activity * rng.lognormal(0, 0.3, len(close))
    share = (1 + np.tanh(0.6 * lean)) / 2
    return {
        "bid": _on_tick(close - half, tick),
        "ask": _on_tick(close + half, tick),
        "bid_depth": np.round(depth * share, 3),
        "ask_depth": np.round(depth * (1 - share), 3),
    }


def _open_interest(rng: np.random.Generator, shocks: Floats) -> Floats:
    """Units held: wanders, and falls when a large move closes positions."""
    flushed = np.where(np.abs(shocks) > 4, -0.02, 0.0)
    drift = _remembering(rng.normal(0, 2e-3, len(shocks)) + flushed, 0.999)
    return np.round(1e6 * np.exp(drift), 3)


def _funding(closes: Times, premium: Floats, oracle: Floats, interval_ms: int) -> dict[str, Floats]:
    """Settlements on the hour from the mean premium since the last, as Drift computes them."""
    hours = max(interval_ms / _HOUR_MS, 1.0)
    window = max(_HOUR_MS // interval_ms, 1)
    sums = np.cumsum(premium)
    before = np.append(np.zeros(min(window, len(sums))), sums[:-window])
    mean = (sums - before) / window
    cap = _FUNDING_CAP_PER_HOUR
    rate = np.clip(mean / 24 + _FUNDING_FLOOR_PER_HOUR, -cap, cap)
    settles = closes % _HOUR_MS == 0
    return {
        "funding_settled": np.where(settles, rate * hours, np.nan),
        "funding_hours": np.where(settles, hours, np.nan),
        "settle_price": np.where(settles, oracle, np.nan),
    }


def _on_tick(price: Floats, tick: float) -> Floats:
    return np.round(np.rint(price / tick) * tick, 10)


def _logit(chance: Floats) -> Floats:
    inside = np.clip(chance, 1e-4, 1 - 1e-4)
    odds: Floats = np.log(inside) - np.log1p(-inside)
    return odds


def _chance(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))
