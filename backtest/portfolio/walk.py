"""An allocation walked through time: at each step only the days before it are known.

What it made of the books stands beside equal weights over the same days, with what moving the
weights cost; a method that only ever looks good without that is no method.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.portfolio.weights import Method, Terms, weigh
from backtest.statistics import DAYS_PER_YEAR, sharpe
from core.errors import DataError

CAVEATS = (
    (
        "Methods and terms are parameters too: each one tried on these days is a trial, and the "
        "best of them the luckiest."
    ),
    (
        "Weights scale what the books earned as recorded: the gate's limits and the impact of "
        "larger orders show only in a replay of the written profile."
    ),
    (
        "A weight is no limit: strategy, instrument, cluster and gross limits of the gate hold at "
        "every order whatever the weights, and the gate knows no correlation but a cluster's."
    ),
)
"""What a reader must know beside the figures of any allocation."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Weights by day and what they made.

    ``weights`` has one row more than there are days, shape (days + 1, books): row k is held on day
    k, the last is for the day to come. Each was known after ``known_days`` whole days, shape (days
    + 1,), never more than the row's own number. ``returns`` are after ``costs``, both shape
    (days,), fractions of the account. Before ``begins``, the lookback, weights are equal.
    """

    weights: Floats
    known_days: Ints
    returns: Floats
    costs: Floats
    begins: int


def walk(returns: Floats, terms: Terms) -> Walk:
    """Allocate over books by their daily returns, shape (days, books).

    DataError when there are no days beyond the lookback.
    """
    days, books = returns.shape
    if days <= terms.lookback_days:
        raise DataError(
            f"an allocation that looks back {terms.lookback_days} days needs more than that: "
            f"the runs have {days} in common"
        )
    weights = np.full((days + 1, books), terms.gross_max / books)
    known = np.zeros(days + 1, np.int64)
    for day in range(terms.lookback_days, days + 1):
        held, since = weights[day - 1], known[day - 1]
        if (day - terms.lookback_days) % terms.every_days == 0:
            aim = weigh(returns[day - terms.lookback_days : day], terms)
            if np.abs(aim - held).max() > terms.buffer:
                held, since = aim, day
        weights[day], known[day] = held, since
    moved = np.abs(np.diff(weights[:-1], axis=0, prepend=weights[:1])).sum(axis=1)
    costs: Floats = moved * terms.cost_bps / 1e4
    earned = (weights[:-1] * returns).sum(axis=1) - costs
    return Walk(
        weights=weights,
        known_days=known,
        returns=earned,
        costs=costs,
        begins=terms.lookback_days,
    )


def figures(found: Walk) -> dict[str, Any]:
    """Figures of an allocation after its lookback, None where undefined.

    ``return``, ``volatility`` and ``max_drawdown`` are fractions, ``turnover`` is weight moved a
    year, ``costs`` what that took from the account as a fraction of it, ``gross`` the mean sum of
    weights, ``changes`` the days on which a weight changed.
    """
    returns = found.returns[found.begins :]
    growth = np.cumprod(np.append(1.0, np.maximum(1.0 + returns, 0.0)))
    moved = np.abs(np.diff(found.weights[found.begins - 1 : -1], axis=0)).sum(axis=1)
    years = len(returns) / DAYS_PER_YEAR
    return {
        "days": len(returns),
        "return": float(growth[-1]) - 1.0,
        "volatility": float(returns.std(ddof=1)) * DAYS_PER_YEAR**0.5 if len(returns) > 1 else None,
        "sharpe": sharpe(returns),
        "max_drawdown": float((1.0 - growth / np.maximum.accumulate(growth)).max()),
        "turnover": float(moved.sum()) / years,
        "costs": float(found.costs[found.begins :].sum()),
        "gross": float(found.weights[found.begins : -1].sum(axis=1).mean()),
        "changes": int((moved > 0).sum()),
    }


def equal_walk(returns: Floats, terms: Terms) -> Walk:
    """The same days with equal weights and no cap: what an allocation is held against."""
    return walk(returns, replace(terms, method=Method.EQUAL, correlation_max=1.0))
