"""Colours that read on white, on black and on paper, the same in the page and in the picture."""

from strategies.regimes import Regime

BLUE, VIOLET, AMBER = "#4c8dff", "#9c6ade", "#e8a317"
GAIN, LOSS = "#12a77b", "#e5484d"
GREY, GRID = "#8a94a6", "rgba(128,140,160,0.18)"

SERIES = ("#2a88cc", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a94a6")
"""Lines side by side: told apart by every kind of colour vision (after Okabe and Ito, 2008)."""

DIVERGING = [
    [0.0, "#b35806"],
    [0.25, "#fdb863"],
    [0.5, "#f4f4f4"],
    [0.75, "#92c5de"],
    [1.0, "#2166ac"],
]
"""From bad to good for every kind of colour vision: orange, nothing, blue."""
SEQUENTIAL = "Cividis"

REGIMES = {
    Regime.UNKNOWN: "#9aa0a6",
    Regime.TREND_UP: "#12a77b",
    Regime.TREND_DOWN: "#e8710a",
    Regime.RANGE: "#6b8fc9",
    Regime.HIGH_VOLATILITY: "#9c6ade",
    Regime.CRASH: "#d6214b",
}
BAND_OPACITY = 0.2
RANGE_OPACITY = 0.3
"""Of the other bands' opacity: most of the time is range, and it should look like nothing."""


def signed(value: float) -> str:
    """Green for a gain, red for a loss."""
    return GAIN if value >= 0 else LOSS


def faded(colour: str, opacity: float) -> str:
    """A hex colour as rgba."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def band(regime: Regime) -> str:
    """The tint of a regime behind prices."""
    share = RANGE_OPACITY if regime == Regime.RANGE else 1.0
    return faded(REGIMES[regime], BAND_OPACITY * share)
