"""The simulated venue of paper and replay: next-bar fills with every cost, and no benefit of doubt.

An order meets the first bar after the one it was born on, at its open. What the bar leaves open is
read against the trader: a stop and a target inside one bar is the stop, a liquidation comes before
either, a gap through a stop fills at the open, a limit only touched does not fill.
"""

import math
from typing import Any

from core.compiled import compiled
from core.ledger import micros
from core.model import ExitReason, FeeModel, InstrumentKind, OrderStyle

CENT_MICROS = 10_000


@compiled
def fee_micros(instrument: Any, quantity: float, price: float, rate: float) -> int:
    """Fee of a fill, rounded up: to the micro, or to the cent under the quadratic model.

    Quadratic is Kalshi's ``rate * C * p * (1 - p)``.
    """
    size = abs(quantity)
    if instrument.fee_model == FeeModel.QUADRATIC:
        # 1e-6 cents of slack: binary fractions must not push an exact cent up to the next
        cents = rate * size * price * (1.0 - price) * 100.0
        return math.ceil(cents - 1e-6) * CENT_MICROS
    return math.ceil(size * price * rate * 1e6 - 1e-6)


@compiled
def half_spread(instrument: Any, market: Any) -> float:
    """Half the spread in price: what the terms say or what is quoted, whichever is wider."""
    own = market.open * instrument.half_spread_bps / 1e4 + instrument.half_spread
    quoted = (market.ask - market.bid) / 2.0
    return quoted if quoted > own else own


@compiled
def slippage(instrument: Any, market: Any, quantity: float) -> float:
    """Slippage in price: a share of the price, and the bar's range by the root of our share of its
    volume (the square-root law of impact)."""
    paid = market.open * instrument.slippage_bps / 1e4
    if instrument.impact > 0.0 and market.volume > 0.0:
        share = abs(quantity) / market.volume
        paid += instrument.impact * (market.high - market.low) * math.sqrt(share)
    return paid


@compiled
def available(instrument: Any, market: Any, quantity: float) -> float:
    """How much of ``quantity`` this bar's volume lets through, in whole lots, sign kept."""
    if math.isnan(market.volume):
        return quantity
    most = math.floor(market.volume * instrument.participation / instrument.lot + 1e-9)
    size = min(abs(quantity), most * instrument.lot)
    return size if quantity > 0.0 else -size


@compiled
def _within(instrument: Any, price: float) -> float:
    """A binary never trades outside [0, 1]."""
    if instrument.kind == InstrumentKind.BINARY:
        return min(max(price, 0.0), 1.0)
    return price


@compiled
def take(
    instrument: Any, market: Any, execution: Any, quantity: float, base: float, exit_code: int
) -> float:
    """Cross the spread from ``base``; answers the price paid."""
    side = 1.0 if quantity > 0.0 else -1.0
    spread = half_spread(instrument, market)
    slip = slippage(instrument, market, quantity)
    price = _within(instrument, base + side * (spread + slip))
    execution.quantity = quantity
    execution.price = price
    execution.exit = exit_code
    # what was paid, which at the ends of a binary's range is less than what was asked
    paid = abs(price - base)
    execution.spread_micros = micros(abs(quantity) * min(spread, paid))
    execution.slippage_micros = micros(abs(quantity) * max(paid - spread, 0.0))
    execution.fee_micros = fee_micros(instrument, quantity, price, instrument.fee_rate)
    return price


@compiled
def _make(instrument: Any, execution: Any, quantity: float, price: float, exit_code: int) -> None:
    """Fill at a resting price: maker's fee, no spread."""
    execution.quantity = quantity
    execution.price = price
    execution.exit = exit_code
    execution.spread_micros = 0
    execution.slippage_micros = 0
    execution.fee_micros = fee_micros(instrument, quantity, price, instrument.fee_rate_maker)


@compiled
def match(order: Any, market: Any, instrument: Any, execution: Any) -> float:
    """Fill what this bar gives of an order; answers the quantity, 0 for none."""
    execution.quantity = 0.0
    if not instrument.open:
        return 0.0
    quantity = available(instrument, market, order.quantity)
    if quantity == 0.0:
        return 0.0
    buys = quantity > 0.0
    if order.style == OrderStyle.LIMIT:
        through = market.low < order.limit if buys else market.high > order.limit
        if not through:
            return 0.0
        better = min(market.open, order.limit) if buys else max(market.open, order.limit)
        _make(instrument, execution, quantity, better, order.exit)
        return quantity
    price = take(instrument, market, execution, quantity, market.open, order.exit)
    if (buys and price > order.limit) or (not buys and price < order.limit):
        execution.quantity = 0.0
        return 0.0
    return quantity


@compiled
def liquidation_price(instrument: Any, entry: float, side: float) -> float:
    """Price at which an isolated position loses its margin: with collateral ``C = qE / leverage``,
    long ``(qE - C) / (q (1 - m))``, short ``(qE + C) / (q (1 + m))``."""
    margin = 1.0 / instrument.leverage
    return entry * (1.0 - side * margin) / (1.0 - side * instrument.maintenance)


@compiled
def _margin_gone(position: Any, market: Any, instrument: Any, side: float) -> bool:
    """Whether the bar's adverse extreme reaches the liquidation price. It runs on every bar of an
    open book, so it is ``extreme <= liquidation_price`` with both sides multiplied out."""
    worst = market.low if side > 0.0 else market.high
    leverage = instrument.leverage
    left = worst * (1.0 - side * instrument.maintenance) * leverage
    return bool(side * (left - position.entry * (leverage - side)) <= 0.0)


@compiled
def _liquidate(position: Any, market: Any, instrument: Any, execution: Any, side: float) -> None:
    """Close at the liquidation price, or at the open beyond it; the loss ends at the margin."""
    price = liquidation_price(instrument, position.entry, side)
    gapped = min(market.open, price) if side > 0.0 else max(market.open, price)
    bankrupt = position.entry * (1.0 - side / instrument.leverage)
    at = max(gapped, bankrupt) if side > 0.0 else min(gapped, bankrupt)
    execution.quantity = -position.quantity
    execution.price = at
    execution.exit = ExitReason.LIQUIDATION
    execution.spread_micros = 0
    execution.slippage_micros = 0
    # the fee is paid out of what margin is left, never beyond it
    left = abs(position.quantity) * abs(at - bankrupt)
    fee = abs(position.quantity) * at * instrument.liquidation_fee_rate
    execution.fee_micros = micros(min(fee, left))


@compiled
def _stop_level(position: Any, side: float) -> tuple[float, int]:
    """The nearer of stop and trailing stop, NaN for none. The trail arms once the best price is
    beyond the entry by its own distance, and it follows the best price of earlier bars."""
    level, code = math.nan, 0
    if position.stop_loss > 0.0:
        level = position.entry * (1.0 - side * position.stop_loss)
        code = ExitReason.STOP_LOSS.value
    trail = position.trailing_stop
    if trail > 0.0 and side * (position.best - position.entry) > position.entry * trail:
        trailed = position.best * (1.0 - side * trail)
        if math.isnan(level) or side * (trailed - level) > 0.0:
            level, code = trailed, ExitReason.TRAILING_STOP.value
    return level, code


@compiled
def _guard(position: Any, instrument: Any, side: float, level: float, goal: float) -> None:
    """Tell the step between which prices nothing here can happen; a trail moves, so it has none."""
    position.guard_low = math.inf
    if position.trailing_stop > 0.0:
        return
    low, high = (level, goal) if side > 0.0 else (goal, level)
    position.guard_low = 0.0 if math.isnan(low) else low
    position.guard_high = math.inf if math.isnan(high) else high
    if instrument.kind == InstrumentKind.PERP:
        # a little inside the liquidation price, whose own test has other roundings
        gone = liquidation_price(instrument, position.entry, side)
        if side > 0.0:
            position.guard_low = max(position.guard_low, gone * (1.0 + 1e-9))
        else:
            position.guard_high = min(position.guard_high, gone * (1.0 - 1e-9))


@compiled
def protect(position: Any, market: Any, instrument: Any, execution: Any) -> float:
    """Liquidation, then stop, then target within this bar; answers the exit code, 0 for none."""
    side = 1.0 if position.quantity > 0.0 else -1.0
    perpetual = instrument.kind == InstrumentKind.PERP
    if perpetual and _margin_gone(position, market, instrument, side):
        _liquidate(position, market, instrument, execution, side)
        return float(ExitReason.LIQUIDATION.value)
    level, code = _stop_level(position, side)
    reached = market.low <= level if side > 0.0 else market.high >= level
    if reached:
        base = min(market.open, level) if side > 0.0 else max(market.open, level)
        take(instrument, market, execution, -position.quantity, base, code)
        return float(code)
    goal = math.nan
    if position.take_profit > 0.0:
        goal = position.entry * (1.0 + side * position.take_profit)
        if (market.high > goal) if side > 0.0 else (market.low < goal):
            _make(instrument, execution, -position.quantity, goal, ExitReason.TAKE_PROFIT.value)
            return float(ExitReason.TAKE_PROFIT.value)
    _guard(position, instrument, side, level, goal)
    return 0.0
