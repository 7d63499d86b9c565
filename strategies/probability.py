"""Probability edge: buy the side of a binary whose stated probability beats its price by more than
what it costs to trade. The probability is a forecast that came in as an event; it is never the
confidence, which says how wide the edge is."""

from enum import IntEnum
from typing import Any

from core.strategy import Decision, Param, PositionView, Strategy


class Reason(IntEnum):
    """Which side has the edge, if any."""

    NO_EDGE = 0
    YES_CHEAP = 1
    NO_CHEAP = 2
    HOLDING = 3
    EDGE_GONE = 4


def decide(f: Any, position: PositionView, p: Any) -> Decision:
    """Hold YES (1), NO (-1) or nothing by the edge left after spread and fee."""
    cost = p.half_spread + p.fee_rate * f.close * (1.0 - f.close)
    edge = f.probability - f.close
    confidence = min(1.0, abs(edge))
    if position.target != 0.0:
        if edge * position.target < -p.edge_exit:
            return 0.0, confidence, Reason.EDGE_GONE
        return position.target, confidence, Reason.HOLDING
    if edge > cost + p.edge:
        return 1.0, confidence, Reason.YES_CHEAP
    if -edge > cost + p.edge:
        return -1.0, confidence, Reason.NO_CHEAP
    return 0.0, confidence, Reason.NO_EDGE


PROBABILITY = Strategy(
    name="probability",
    about="buys the side of a binary that a stated probability says is cheap after costs",
    decide=decide,
    reasons=Reason,
    features={"close": "close", "probability": "probability"},
    params={
        "edge": Param(0.03, 0.0, 0.3, "least edge beyond costs, in probability"),
        "edge_exit": Param(0.02, 0.0, 0.3, "edge against the position that closes it"),
        "half_spread": Param(0.01, 0.0, 0.1, "half spread to expect, in price"),
        "fee_rate": Param(0.07, 0.0, 0.2, "coefficient of the quadratic fee"),
    },
)
