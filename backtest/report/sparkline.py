"""Equity as one line of characters: the first glance at a run, in any terminal and any log."""

import numpy as np

from backtest.run import Run

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(run: Run, width: int = 72) -> str:
    """Equity at ``width`` evenly spaced moments, lowest to highest; flat equity is a flat line."""
    known = run.block["ts_known"]
    if len(known) == 0 or width < 1:
        return ""
    moments = np.linspace(known[0], known[-1], width)
    equity = run.equity[np.searchsorted(known, moments, side="right").clip(min=1) - 1]
    low, high = float(equity.min()), float(equity.max())
    if high == low:
        return BLOCKS[0] * width
    levels = np.rint((equity - low) / (high - low) * (len(BLOCKS) - 1)).astype(int)
    return "".join(BLOCKS[level] for level in levels)
