"""Two made-up searches, one that holds an edge and one that holds none: the gate's own proof.

A gate that nobody saw open and shut is not known to work. These show both on any machine; they are
noise from a generator and say nothing about any market.
"""

from typing import Any

import numpy as np

from backtest.validation.sharpe import sharpes
from backtest.validation.verdict import YEAR, Evidence, Thresholds

DAYS, TRIALS, DAILY = 1_460, 60, 0.01
COST, EDGE = 0.0002, 3.5
"""What trading costs a day, and the annual Sharpe ratio of the edge after it."""

HARDER = {"costs x2": COST, "costs x3": 2 * COST, "one bar late": COST, "fills missed": COST / 2}
"""What each harder world is taken to cost a day; a real candidate is replayed in it."""


def with_an_edge(seed: int) -> Evidence:
    """A search of four years in which one trial has an edge; it is the one that is found."""
    returns = _noise(seed)
    returns[:, 0] += EDGE / YEAR * DAILY
    return _best(returns, "with an edge")


def without_an_edge(seed: int) -> Evidence:
    """A search that only pays costs. Its best is shown, and nobody counted the trials before."""
    returns = _noise(seed) - 10 * COST
    return _best(returns, "without an edge", uncounted="no row of it stands in a ledger")


def _noise(seed: int) -> Any:
    """Fat-tailed daily returns of every trial."""
    return np.random.default_rng(seed).standard_t(5, (DAYS, TRIALS)) / np.sqrt(5 / 3) * DAILY


def _best(returns: Any, name: str, **more: str) -> Evidence:
    best = int(sharpes(returns).argmax())
    return Evidence(
        returns=returns,
        candidate=best,
        trials=TRIALS,
        name=name,
        turns=tuple(range(1, TRIALS + 1)),
        stressed={world: returns[:, best] - HARDER[world] for world in HARDER},
        **more,
    )


assert set(Thresholds().worlds) <= set(HARDER), "the examples are shown in every world asked for"
