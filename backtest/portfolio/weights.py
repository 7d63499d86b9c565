"""Weights of books from a window of their daily returns: five methods, and a cap on correlation.

Each sees the window and nothing else. What a method does not give to a book stays cash. A book that
did not move in the window gets nothing, unless weights are equal: nothing is known of it.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from backtest.statistics import DAYS_PER_YEAR
from core.errors import ConfigError

Floats = NDArray[np.float64]
FLAT = 1e-12
"""A deviation this small is that of a book that stood still."""


class Method(StrEnum):
    """How weights come about."""

    EQUAL = "equal"
    INVERSE_VOLATILITY = "inverse-volatility"
    VOLATILITY_TARGET = "volatility-target"
    KELLY = "kelly"
    HRP = "hrp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Terms of an allocation.

    ``lookback_days`` of returns are read every ``every_days``; the weights are taken over when one
    of them differs by more than ``buffer``. ``cost_bps`` is charged on every unit of weight that
    changes, as if each book were fully invested. ``gross_max`` bounds the sum of weights.
    ``volatility`` is the annual target, ``kelly_share`` the share of the Kelly bet,
    ``correlation_max`` where books count as one bet, 1 for never.
    """

    method: Method = Method.EQUAL
    lookback_days: int = 60
    every_days: int = 7
    buffer: float = 0.02
    cost_bps: float = 10.0
    gross_max: float = 1.0
    volatility: float = 0.2
    kelly_share: float = 0.25
    correlation_max: float = 1.0

    def __post_init__(self) -> None:
        if self.lookback_days < 2 or self.every_days < 1:
            raise ConfigError("an allocation reads two days or more, and takes a day or more")
        if not (self.buffer >= 0 and self.cost_bps >= 0):
            raise ConfigError("the buffer and the costs of an allocation must be zero or above")
        if not (self.gross_max > 0 and self.volatility > 0):
            raise ConfigError("the most to allocate and the volatility must be above zero")
        if not (0 < self.kelly_share <= 1 and 0 <= self.correlation_max <= 1):
            raise ConfigError("the Kelly share lies in (0, 1], the correlation in [0, 1]")


def weigh(window: Floats, terms: Terms) -> Floats:
    """Weights of books, shape (books,), none negative, by their returns, shape (days, books)."""
    found = np.zeros(window.shape[1])
    moved = np.ones(window.shape[1], bool)
    if terms.method is not Method.EQUAL:
        moved = window.std(axis=0, ddof=1) > FLAT
    if moved.any():
        found[moved] = METHODS[terms.method](window[:, moved], terms)
    gross = float(found.sum())
    bounded = found * min(1.0, terms.gross_max / gross) if gross > 0 else found
    return decorrelated(bounded, window, terms.correlation_max)


def _equal(window: Floats, terms: Terms) -> Floats:
    return np.full(window.shape[1], terms.gross_max / window.shape[1])


def _inverse_volatility(window: Floats, terms: Terms) -> Floats:
    inverse = 1.0 / window.std(axis=0, ddof=1)
    return terms.gross_max * inverse / inverse.sum()


def _volatility_target(window: Floats, terms: Terms) -> Floats:
    """Inverse volatility, times target over forecast; the forecast is the window's own."""
    mix = _inverse_volatility(window, terms)
    forecast = float((window @ mix).std(ddof=1)) * math.sqrt(DAYS_PER_YEAR)
    return mix * min(1.0, terms.volatility / forecast) if forecast > FLAT else mix


def _kelly(window: Floats, terms: Terms) -> Floats:
    """The f >= 0 that maximises ``m f - f C f / 2``, times the share of it that is bet,
    each mean m shrunk by ``SR^2 / (SR^2 + 1/T)``.

    Kelly (1956); the shrink is the share of a noisy estimate that maximises the growth to be
    expected (cf. Baker and McHale, 2013).
    """
    from scipy.optimize import nnls

    days, count = window.shape
    mean, variance = window.mean(axis=0), window.var(axis=0, ddof=1)
    sharpe2 = mean**2 / variance
    shrunk = mean * sharpe2 / (sharpe2 + 1.0 / days)
    covariance = np.atleast_2d(np.cov(window, rowvar=False))
    # books that are copies of each other have no inverse
    root = np.linalg.cholesky(covariance + 1e-9 * variance.mean() * np.eye(count))
    bet: Floats = nnls(root.T, np.linalg.solve(root, shrunk))[0]
    return terms.kelly_share * bet


def _hrp(window: Floats, terms: Terms) -> Floats:
    """Hierarchical risk parity: López de Prado (J. of Portfolio Management 42(4), 2016)."""
    if window.shape[1] == 1:
        return np.full(1, terms.gross_max)
    try:
        from skfolio.optimization import HierarchicalRiskParity
    except ImportError as error:
        raise ConfigError(
            "method hrp needs skfolio: install the research extra (pip install -e .[research])"
        ) from error
    with warnings.catch_warnings():
        # books that are copies: it says that it mends their covariance, which is what is wanted
        warnings.simplefilter("ignore", UserWarning)
        found = HierarchicalRiskParity().fit(window).weights_
    return terms.gross_max * np.asarray(found, np.float64)


METHODS: Mapping[Method, Callable[[Floats, Terms], Floats]] = {
    Method.EQUAL: _equal,
    Method.INVERSE_VOLATILITY: _inverse_volatility,
    Method.VOLATILITY_TARGET: _volatility_target,
    Method.KELLY: _kelly,
    Method.HRP: _hrp,
}


def correlation(window: Floats) -> Floats:
    """Correlations of books, shape (books, books); 0 with a book that stood still."""
    deviation = window.std(axis=0, ddof=1)
    safe = np.where(deviation > FLAT, deviation, np.inf)
    scaled = (window - window.mean(axis=0)) / safe
    found: Floats = scaled.T @ scaled / (len(window) - 1)
    np.fill_diagonal(found, 1.0)
    return found


def decorrelated(weights: Floats, window: Floats, limit: float) -> Floats:
    """The weights with every group of books correlated beyond ``limit`` scaled down together.

    A group carries no more risk than it would if no two of it were correlated beyond the limit: its
    weights times ``sqrt(w C' w / w C w)``, where C' is the covariance C with the correlations
    above the limit put at it. What is taken from it stays cash.
    """
    if limit >= 1.0:
        return weights
    related, scaled = correlation(window), weights.copy()
    risk = weights * window.std(axis=0, ddof=1)
    for group in _groups(related > limit):
        own = risk[group]
        inside = related[np.ix_(group, group)]
        capped = np.minimum(inside, limit)
        np.fill_diagonal(capped, 1.0)
        variance = float(own @ inside @ own)
        if variance > 0:
            scaled[group] *= math.sqrt(max(float(own @ capped @ own), 0.0) / variance)
    return scaled


def _groups(linked: NDArray[np.bool_]) -> list[list[int]]:
    """Books that hang together by any chain of links, groups of two and more."""
    found: list[list[int]] = []
    left = set(range(len(linked)))
    while left:
        group, edge = set(), {min(left)}
        while edge:
            group |= edge
            edge = {int(b) for a in edge for b in np.flatnonzero(linked[a])} - group
        left -= group
        if len(group) > 1:
            found.append(sorted(group))
    return found
