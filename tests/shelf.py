"""Every strategy on the shelf, each with a world that has what it needs and makes it trade."""

from collections.abc import Sequence
from dataclasses import replace as changed
from functools import cache
from typing import Any

from backtest.assemble import BookSetup, Setup
from backtest.replay import replay
from backtest.run import Run
from core.engine import Book
from core.instrument import Instrument, binary
from core.model import OrderStyle
from core.strategy import Strategy
from markets.history import History
from markets.synthetic import binary_sample, sample
from risk.limits import Limits, Sizing, SizingRule
from strategies.e3 import E3
from strategies.funding_fade import FUNDING_FADE
from strategies.probability import PROBABILITY
from strategies.seed_rules import SEED_RULES
from strategies.trend import TREND

LIMITS = Limits(cooldown_ms=120_000, gross_notional_max=40_000.0, quote_age_ms_max=600_000.0)

SHELF: dict[str, tuple[Strategy, dict[str, float], Sizing]] = {
    "trend": (
        TREND,
        {"fast": 5, "slow": 20, "stop_loss": 0.004, "trailing_stop": 0.002},
        Sizing(rule=SizingRule.ATR_RISK, value=0.002),
    ),
    "e3": (
        E3,
        dict(E3.profile("high-trade")),
        Sizing(rule=SizingRule.VOLATILITY, value=0.0004),
    ),
    "funding_fade": (
        FUNDING_FADE,
        {"funding": 1e-6, "premium": 1e-4, "funding_exit": 0.0, "premium_exit": 2e-5},
        Sizing(rule=SizingRule.NOTIONAL, value=1_000.0),
    ),
    "seed_rules": (
        SEED_RULES,
        {"take_profit": 0.01, "stop_loss": 0.004, "max_drawdown": 0.003},
        Sizing(rule=SizingRule.EQUITY, value=0.3),
    ),
    "probability": (
        PROBABILITY,
        {"edge": 0.01},
        Sizing(rule=SizingRule.KELLY, value=0.25, cap=0.2),
    ),
}


@cache
def shelf_world(name: str, bars: int) -> dict[str, History]:
    """Two perpetuals, or three binaries."""
    return binary_sample(bars=bars // 3) if name == "probability" else sample(bars=bars)


def shelf_setup(name: str, *, plain: bool = False) -> Setup:
    """The strategy on every instrument of its world; limit orders on the first, IOC elsewhere."""
    strategy, params, sizing = SHELF[name]
    if plain:
        strategy = changed(strategy, compiled=False)
    symbols = list(shelf_world(name, 600))
    instruments = [
        binary(symbol) if name == "probability" else Instrument(name=symbol, tick=0.01, lot=1e-4)
        for symbol in symbols
    ]
    books = [
        BookSetup(
            book=Book(
                name=f"{name}@{symbol}",
                strategy=strategy,
                instrument=symbol,
                params=params,
                style=OrderStyle.LIMIT if place == 0 and name == "trend" else OrderStyle.IOC,
                offset=0.0002 if place == 0 and name == "trend" else 0.05,
                ttl_bars=3,
            ),
            sizing=sizing,
            limits=LIMITS,
        )
        for place, symbol in enumerate(symbols)
    ]
    return Setup(instruments=tuple(instruments), books=tuple(books), limits=LIMITS)


def shelf_run(
    name: str,
    bars: int,
    *,
    plain: bool = False,
    cuts: Sequence[int] | range | None = None,
    **more: Any,
) -> Run:
    """Replay one strategy of the shelf over its world."""
    return replay(shelf_setup(name, plain=plain), shelf_world(name, bars), cuts=cuts, **more)
