"""E3: trade a strong bar on heavy volume, on the side the premium or the order book gives.

The seed's name covers three incompatible rules, in which filters only annotate, or a missing input
passes. Here every filter vetoes, all of them are told at once, and a missing input is no decision.
"""

from enum import IntFlag
from typing import Any

from core.strategy import Decision, Param, PositionView, Strategy
from strategies.features import (
    body_over_atr,
    funding_rate,
    ob_imbalance,
    open_interest,
    premium,
    realized_vol,
    spread_bps,
    volume_z,
)


class Reason(IntFlag):
    """What vetoed, or what gave the side."""

    BODY_SMALL = 1
    VOLUME_LOW = 2
    VOLATILITY_HIGH = 4
    SPREAD_WIDE = 8
    NO_OPEN_INTEREST = 16
    NO_SIDE = 32
    CONFIDENCE_LOW = 64
    PREMIUM_AND_FUNDING_RICH = 128
    PREMIUM_AND_FUNDING_CHEAP = 256
    BIDS_HEAVY = 512
    ASKS_HEAVY = 1024
    HOLDING = 2048


BODY_SMALL = Reason.BODY_SMALL.value
VOLUME_LOW = Reason.VOLUME_LOW.value
VOLATILITY_HIGH = Reason.VOLATILITY_HIGH.value
SPREAD_WIDE = Reason.SPREAD_WIDE.value
NO_OPEN_INTEREST = Reason.NO_OPEN_INTEREST.value
NO_SIDE = Reason.NO_SIDE.value
CONFIDENCE_LOW = Reason.CONFIDENCE_LOW.value
RICH = Reason.PREMIUM_AND_FUNDING_RICH.value
CHEAP = Reason.PREMIUM_AND_FUNDING_CHEAP.value
BIDS_HEAVY = Reason.BIDS_HEAVY.value
ASKS_HEAVY = Reason.ASKS_HEAVY.value
HOLDING = Reason.HOLDING.value


# One function, because plain Python and compiled code must run the same one.
def decide(f: Any, position: PositionView, p: Any) -> Decision:  # noqa: C901, PLR0912
    """Enter when no filter vetoes; hold until the bracket closes it or the other side triggers."""
    side, reason = 0.0, 0
    if f.premium > p.premium and f.funding_rate > 0.0:
        side, reason = -1.0, RICH
    elif f.premium < -p.premium and f.funding_rate < 0.0:
        side, reason = 1.0, CHEAP
    elif f.ob_imbalance >= p.imbalance:
        side, reason = 1.0, BIDS_HEAVY
    elif f.ob_imbalance <= 1.0 - p.imbalance:
        side, reason = -1.0, ASKS_HEAVY

    vetoes = NO_SIDE if side == 0.0 else 0
    if f.body_over_atr < p.body:
        vetoes |= BODY_SMALL
    if f.volume_z < p.volume_z:
        vetoes |= VOLUME_LOW
    if f.realized_vol > p.realized_vol:
        vetoes |= VOLATILITY_HIGH
    if f.spread_bps > p.spread_bps:
        vetoes |= SPREAD_WIDE
    if f.open_interest <= 0.0:
        vetoes |= NO_OPEN_INTEREST

    confidence = 0.5
    if f.volume_z > p.big_volume_z:
        confidence += 0.20
    if f.body_over_atr > p.big_body:
        confidence += 0.15
    if abs(f.premium) > p.premium:
        confidence += 0.10
    if abs(f.ob_imbalance - 0.5) > 0.2:
        confidence += 0.05
    confidence = min(1.0, confidence * p.confidence_multiplier)
    if confidence < p.confidence:
        vetoes |= CONFIDENCE_LOW

    if vetoes:
        holding = HOLDING if position.target != 0.0 else 0
        return position.target, confidence, vetoes | holding
    return side, confidence, reason


E3 = Strategy(
    name="e3",
    about="a strong bar on heavy volume, on the side of premium or book, with a bracket",
    decide=decide,
    reasons=Reason,
    features={
        "body_over_atr": body_over_atr(),
        "volume_z": volume_z(),
        "ob_imbalance": ob_imbalance(),
        "premium": premium(),
        "funding_rate": funding_rate(),
        "open_interest": open_interest(),
        "realized_vol": realized_vol(window=60),
        "spread_bps": spread_bps(),
    },
    params={
        "body": Param(1.0, 0.0, 2.0, "least body, in ATR"),
        "volume_z": Param(1.5, 0.0, 4.0, "least volume, in deviations from its mean"),
        "imbalance": Param(0.6, 0.5, 0.9, "least bid share of the book for a long"),
        "premium": Param(0.002, 0.0, 0.02, "premium, as a fraction, that gives the side"),
        "realized_vol": Param(0.005, 0.0, 0.05, "most volatility per bar, as a fraction"),
        "spread_bps": Param(20.0, 1.0, 100.0, "widest spread, in basis points"),
        "confidence": Param(0.5, 0.0, 1.0, "least confidence"),
        "big_volume_z": Param(2.5, 1.0, 6.0, "volume that adds 0.20 confidence"),
        "big_body": Param(0.8, 0.2, 3.0, "body that adds 0.15 confidence"),
        "confidence_multiplier": Param(1.0, 0.5, 1.5, "scale of the confidence"),
        "take_profit": Param(0.02, 0.0, 0.1, "fraction of the entry, 0 for none"),
        "stop_loss": Param(0.01, 0.0, 0.1, "fraction of the entry, 0 for none"),
        "trailing_stop": Param(0.005, 0.0, 0.1, "fraction of the best price, 0 for none"),
    },
    profiles={
        "strict": {"body": 1.0, "volume_z": 2.0, "confidence": 0.65, "spread_bps": 10.0},
        "high-trade": {
            "body": 0.01,
            "volume_z": 0.1,
            "imbalance": 0.5,
            "premium": 0.0001,
            "realized_vol": 0.05,
            "spread_bps": 100.0,
            "confidence": 0.0,
        },
    },
)
