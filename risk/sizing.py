"""Sizing: how much one full target is, rounded down to the lot, shrunk after losses.

Sources: Kelly (1956) for a bet at odds ``f = p - (1 - p) / b`` and for a drift ``f = mean /
variance``; the shrink ``SR^2 / (SR^2 + 1/T)`` is the share of a noisy estimate that maximises the
growth to be expected (cf. Baker and McHale, 2013).
"""

import math
from typing import Any

from core.compiled import compiled
from core.model import InstrumentKind
from risk.limits import SizingRule

KELLY_TRADES_MIN = 20


@compiled
def kelly_binary(probability: float, price: float, side: float) -> float:
    """Fraction of equity to stake on one side of a binary; zero without an edge."""
    chance = probability if side > 0.0 else 1.0 - probability
    cost = price if side > 0.0 else 1.0 - price
    if not 0.0 < cost < 1.0:
        return 0.0
    return max(0.0, (chance - cost) / (1.0 - cost))


@compiled
def kelly_returns(mean: float, variance: float, trades: int) -> float:
    """Fraction of equity by the mean and variance of our own trades' returns, shrunk for error."""
    if trades < KELLY_TRADES_MIN or variance <= 0.0 or mean <= 0.0:
        return 0.0
    sharpe2 = mean * mean / variance
    return mean / variance * sharpe2 / (sharpe2 + 1.0 / trades)


@compiled
def throttle(desk: Any, limit_day: float, limit_drawdown: float) -> float:
    """Half size beyond a soft limit, full size before it."""
    day = limit_day > 0.0 and desk.day_return <= -limit_day
    peak = limit_drawdown > 0.0 and desk.drawdown >= limit_drawdown
    return 0.5 if day or peak else 1.0


@compiled
def _unit_cost(intent: Any, instrument: Any) -> float:
    """Quote that one unit puts at stake: its price, or what the other side of a binary costs."""
    if instrument.kind == InstrumentKind.BINARY and intent.target < 0.0:
        return float(1.0 - intent.price)
    return float(intent.price)


@compiled
def _kelly(intent: Any, instrument: Any, desk: Any) -> float:
    """Kelly's fraction of equity by the stated probability, or by our own record."""
    if instrument.kind == InstrumentKind.BINARY:
        side = 1.0 if intent.target > 0.0 else -1.0
        return kelly_binary(intent.probability, intent.price, side)
    return kelly_returns(desk.return_mean, desk.return_variance, desk.trades)


@compiled
def _full_stake(intent: Any, instrument: Any, desk: Any, sizing: Any) -> float:
    """Quote at stake in a full target; NaN where an input is missing."""
    rule = int(sizing.rule)
    if rule == SizingRule.NOTIONAL:
        return float(sizing.value)
    stake = sizing.value * desk.equity
    if rule == SizingRule.ATR_RISK:
        loss = sizing.atr_multiple * intent.atr
        stake = stake / loss * intent.price if loss > 0.0 else math.nan
    elif rule == SizingRule.VOLATILITY:
        stake = stake / intent.volatility if intent.volatility > 0.0 else math.nan
    elif rule == SizingRule.KELLY:
        stake = stake * _kelly(intent, instrument, desk)
    return float(stake)


@compiled
def size(intent: Any, instrument: Any, desk: Any, sizing: Any) -> float:
    """Signed quantity for ``intent.target``, whole lots towards zero; 0 where an input is missing.

    QUANTITY is taken as it is; every other rule is capped at ``cap`` of equity and halved beyond a
    soft loss limit.
    """
    cost = _unit_cost(intent, instrument)
    if not cost > 0.0 or not desk.equity > 0.0:
        return 0.0
    wanted = float(sizing.value)
    if int(sizing.rule) != SizingRule.QUANTITY:
        stake = _full_stake(intent, instrument, desk, sizing)
        if math.isnan(stake):
            return 0.0
        scale = throttle(desk, sizing.daily_loss_soft, sizing.drawdown_soft)
        wanted = min(stake, sizing.cap * desk.equity) * scale / cost
    lots = math.floor(abs(intent.target) * wanted / instrument.lot + 1e-9)
    quantity = lots * instrument.lot
    return quantity if intent.target > 0.0 else -quantity
