"""Trend flip: long while the fast average is above the slow one, short while it is below."""

from enum import IntEnum
from typing import Any

from core.strategy import Decision, Param, PositionView, Strategy
from strategies.features import sma


class Reason(IntEnum):
    """Why it holds what it holds."""

    FAST_ABOVE_SLOW = 1
    FAST_BELOW_SLOW = 2
    AVERAGES_EQUAL = 3


# Averages of equal decimal prices may differ in the last binary digits: that is no crossing.
TIE = 1e-12


def decide(f: Any, position: PositionView, _p: Any) -> Decision:
    """Flip with the sign of the gap; hold on a tie."""
    gap = f.fast - f.slow
    if gap > TIE * f.slow:
        return 1.0, 1.0, Reason.FAST_ABOVE_SLOW
    if gap < -TIE * f.slow:
        return -1.0, 1.0, Reason.FAST_BELOW_SLOW
    return position.target, 1.0, Reason.AVERAGES_EQUAL


TREND = Strategy(
    name="trend",
    about="flips between long and short when two moving averages cross",
    decide=decide,
    reasons=Reason,
    features={"fast": sma(window="fast"), "slow": sma(window="slow")},
    params={
        "fast": Param(20, 5, 100, "bars in the fast average"),
        "slow": Param(50, 20, 400, "bars in the slow average"),
        "take_profit": Param(0, 0, 0.2, "fraction of the entry, 0 for none"),
        "stop_loss": Param(0, 0, 0.2, "fraction of the entry, 0 for none"),
        "trailing_stop": Param(0, 0, 0.2, "fraction of the entry, 0 for none"),
    },
)
