"""The gate: an ordered list of pre-trade checks that fail closed; what passes becomes an order.

A rule answers True when the intent may pass. NaN never passes: each is written as the condition
that must hold. Exits (reduce-only intents) meet only the first rules, for they make the desk safer.
A new rule is one function and one line in ``review``.
"""

import math
from enum import IntEnum
from typing import Any

from core.compiled import compiled
from core.model import InstrumentKind, Mode


class Rule(IntEnum):
    """Why an intent was refused; NONE is an approval."""

    NONE = 0
    PRICE_UNKNOWN = 1
    NOT_A_NUMBER = 2
    MARKET_CLOSED = 3
    NOT_REDUCING = 4
    HALTED = 5
    REDUCE_ONLY = 6
    SIZE_ZERO = 7
    STALE_DATA = 8
    STALE_QUOTE = 9
    TICK_OR_LOT = 10
    PRICE_COLLAR = 11
    ORDER_NOTIONAL = 12
    ORDER_TOO_SMALL = 13
    ORDER_RISK = 14
    DUPLICATE = 15
    ORDER_RATE = 16
    PENDING_NOTIONAL = 17
    INSTRUMENT_EXPOSURE = 18
    STRATEGY_EXPOSURE = 19
    CLUSTER_RISK = 20
    GROSS_EXPOSURE = 21
    LEVERAGE = 22
    MARGIN = 23
    DAILY_LOSS = 24
    DRAWDOWN = 25
    LOSING_STREAK = 26
    COOLDOWN = 27
    VOLUME_SHARE = 28
    LINK_DOWN = 29
    CORRELATED_EXPOSURE = 30


@compiled
def _under(value: float, limit: float) -> bool:
    """At most the limit; a limit of zero is off."""
    return limit == 0.0 or value <= limit


@compiled
def _whole(value: float, step: float) -> bool:
    """A whole number of steps, to within what a float of that size can tell."""
    steps = value / step
    return abs(steps - math.floor(steps + 0.5)) <= 1e-6 + 4e-16 * abs(steps)


@compiled
def price_known(intent: Any, instrument: Any) -> bool:
    """A price above zero; a binary's within [0, 1]."""
    if instrument.kind == InstrumentKind.BINARY:
        return 0.0 <= intent.price <= 1.0
    return 0.0 < intent.price < math.inf


@compiled
def numbers_sane(intent: Any, desk: Any) -> bool:
    """Finite quantity, limit and equity, and a day that began with money."""
    finite = abs(intent.quantity) < math.inf and abs(intent.limit) < math.inf
    return finite and abs(desk.equity) < math.inf


@compiled
def reduces(intent: Any, desk: Any) -> bool:
    """A reduce-only intent opposes the position and does not exceed it."""
    opposes = intent.quantity * desk.position < 0.0
    return opposes and abs(intent.quantity) <= abs(desk.position)


@compiled
def on_grid(intent: Any, instrument: Any) -> bool:
    """Quantity in whole lots, limit in whole ticks."""
    return _whole(intent.quantity, instrument.lot) and _whole(intent.limit, instrument.tick)


@compiled
def near_oracle(intent: Any, desk: Any, limits: Any) -> bool:
    """The price lies within the collar of the oracle, where there is one."""
    if limits.collar == 0.0 or math.isnan(desk.oracle):
        return True
    return abs(intent.price - desk.oracle) <= limits.collar * desk.oracle


@compiled
def fresh_quote(desk: Any, limits: Any) -> bool:
    """The last quote is young enough; with the limit on, no quote at all is stale."""
    return limits.quote_age_ms_max == 0.0 or desk.quote_age_ms <= limits.quote_age_ms_max


@compiled
def large_enough(desk: Any, limits: Any, instrument: Any) -> bool:
    """Not below what the venue, or our own limits, take."""
    least = max(instrument.notional_min, limits.order_notional_min)
    return desk.order_notional >= least


@compiled
def not_repeated(desk: Any, limits: Any) -> bool:
    """No equal order of this book within the window."""
    return limits.repeat_ms == 0.0 or not desk.since_repeat_ms < limits.repeat_ms


@compiled
def cooled_down(desk: Any, limits: Any) -> bool:
    """Enough time since this book's last exit."""
    return limits.cooldown_ms == 0.0 or not desk.since_exit_ms < limits.cooldown_ms


@compiled
def volume_share(intent: Any, desk: Any, limits: Any) -> bool:
    """A share of the last bar's volume that the market can bear."""
    if limits.volume_share_max == 0.0:
        return True
    return abs(intent.quantity) <= limits.volume_share_max * desk.bar_volume


@compiled
def _exit_review(intent: Any, desk: Any, instrument: Any) -> int:
    """What even an exit must meet."""
    if not price_known(intent, instrument):
        return Rule.PRICE_UNKNOWN
    if not numbers_sane(intent, desk):
        return Rule.NOT_A_NUMBER
    if not desk.instrument_open:
        return Rule.MARKET_CLOSED
    if intent.reduce_only and not reduces(intent, desk):
        return Rule.NOT_REDUCING
    return Rule.NONE


@compiled
def _order_review(intent: Any, desk: Any, limits: Any, instrument: Any) -> int:
    """Mode, data and the order by itself."""
    if desk.mode == Mode.HALTED:
        return Rule.HALTED
    if desk.mode == Mode.REDUCING:
        return Rule.REDUCE_ONLY
    if not desk.linked:
        return Rule.LINK_DOWN
    if intent.quantity == 0.0:
        return Rule.SIZE_ZERO
    if not _under(desk.data_age_ms, limits.data_age_ms_max):
        return Rule.STALE_DATA
    if not fresh_quote(desk, limits):
        return Rule.STALE_QUOTE
    if not on_grid(intent, instrument):
        return Rule.TICK_OR_LOT
    if not near_oracle(intent, desk, limits):
        return Rule.PRICE_COLLAR
    if not _under(desk.order_notional, limits.order_notional_max):
        return Rule.ORDER_NOTIONAL
    if not large_enough(desk, limits, instrument):
        return Rule.ORDER_TOO_SMALL
    if not _under(desk.order_risk, limits.order_risk_max):
        return Rule.ORDER_RISK
    if not not_repeated(desk, limits):
        return Rule.DUPLICATE
    if not (limits.orders_per_minute_max == 0 or desk.orders_minute < limits.orders_per_minute_max):
        return Rule.ORDER_RATE
    return Rule.NONE


@compiled
def _exposure_review(desk: Any, limits: Any) -> int:
    """The desk with all open orders and this one filled."""
    if not _under(desk.pending_notional, limits.pending_notional_max):
        return Rule.PENDING_NOTIONAL
    if not _under(desk.instrument_notional, limits.instrument_notional_max):
        return Rule.INSTRUMENT_EXPOSURE
    if not _under(desk.strategy_notional, limits.strategy_notional_max):
        return Rule.STRATEGY_EXPOSURE
    if not _under(desk.cluster_risk, limits.cluster_risk_max):
        return Rule.CLUSTER_RISK
    if not _under(desk.correlated_notional, limits.correlated_notional_max):
        return Rule.CORRELATED_EXPOSURE
    if not _under(desk.gross_notional, limits.gross_notional_max):
        return Rule.GROSS_EXPOSURE
    if limits.leverage_max > 0.0 and not desk.gross_notional <= limits.leverage_max * desk.equity:
        return Rule.LEVERAGE
    if not desk.margin <= desk.equity:
        return Rule.MARGIN
    return Rule.NONE


@compiled
def _loss_review(intent: Any, desk: Any, limits: Any) -> int:
    """What has been lost, and how lately."""
    if limits.daily_loss > 0.0 and not desk.day_return > -limits.daily_loss:
        return Rule.DAILY_LOSS
    if limits.drawdown > 0.0 and not desk.drawdown < limits.drawdown:
        return Rule.DRAWDOWN
    if limits.losses_in_row_max > 0 and desk.losses_in_row >= limits.losses_in_row_max:
        return Rule.LOSING_STREAK
    if not cooled_down(desk, limits):
        return Rule.COOLDOWN
    if not volume_share(intent, desk, limits):
        return Rule.VOLUME_SHARE
    return Rule.NONE


@compiled
def review(intent: Any, desk: Any, limits: Any, instrument: Any) -> int:
    """The first rule that refuses, or NONE."""
    rule = _exit_review(intent, desk, instrument)
    if rule != 0 or intent.reduce_only:
        return rule
    rule = _order_review(intent, desk, limits, instrument)
    if rule != 0:
        return rule
    rule = _exposure_review(desk, limits)
    if rule != 0:
        return rule
    return _loss_review(intent, desk, limits)
