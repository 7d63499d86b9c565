"""Funding and premium skew fade: take the side that is paid when the crowd leans one way."""

from enum import IntEnum
from typing import Any

from core.strategy import Decision, Param, PositionView, Strategy
from strategies.features import funding_rate, premium, spread_bps, volume_z


class Reason(IntEnum):
    """Why it enters, stays or leaves."""

    NEUTRAL = 0
    LONGS_PAY_AND_PREMIUM_RICH = 1
    SHORTS_PAY_AND_PREMIUM_CHEAP = 2
    SPREAD_WIDE = 3
    VOLUME_LOW = 4
    HOLDING = 5
    SKEW_GONE = 6


def decide(f: Any, position: PositionView, p: Any) -> Decision:
    """Fade a skew of both funding and premium; leave when either is back in its neutral band."""
    if position.target != 0.0:
        calm = abs(f.funding_rate) < p.funding_exit or abs(f.premium) < p.premium_exit
        turned = f.premium * position.target > 0.0
        if calm or turned:
            return 0.0, 1.0, Reason.SKEW_GONE
        return position.target, 1.0, Reason.HOLDING
    rich = f.funding_rate > p.funding and f.premium > p.premium
    cheap = f.funding_rate < -p.funding and f.premium < -p.premium
    if not rich and not cheap:
        return 0.0, 0.0, Reason.NEUTRAL
    if f.spread_bps > p.spread_bps:
        return 0.0, 0.0, Reason.SPREAD_WIDE
    if f.volume_z < p.volume_z:
        return 0.0, 0.0, Reason.VOLUME_LOW
    strong = 2.0 * p.funding < abs(f.funding_rate) and 2.0 * p.premium < abs(f.premium)
    confidence = 0.8 if strong else 0.6
    if rich:
        return -1.0, confidence, Reason.LONGS_PAY_AND_PREMIUM_RICH
    return 1.0, confidence, Reason.SHORTS_PAY_AND_PREMIUM_CHEAP


FUNDING_FADE = Strategy(
    name="funding_fade",
    about="fades a skew of funding and premium, with a bracket",
    decide=decide,
    reasons=Reason,
    features={
        "funding_rate": funding_rate(),
        "premium": premium(),
        "spread_bps": spread_bps(),
        "volume_z": volume_z(),
    },
    params={
        "funding": Param(0.0001, 0.00001, 0.0005, "funding per hour, as a fraction, that enters"),
        "premium": Param(0.002, 0.0005, 0.02, "premium, as a fraction, that enters"),
        "funding_exit": Param(0.00005, 0.0, 0.0005, "funding per hour that is neutral again"),
        "premium_exit": Param(0.0005, 0.0, 0.01, "premium that is neutral again"),
        "spread_bps": Param(30.0, 10.0, 50.0, "widest spread, in basis points"),
        "volume_z": Param(0.0, -1.0, 2.5, "least volume, in deviations from its mean"),
        "take_profit": Param(0.015, 0.0, 0.1, "fraction of the entry, 0 for none"),
        "stop_loss": Param(0.01, 0.0, 0.1, "fraction of the entry, 0 for none"),
    },
)
