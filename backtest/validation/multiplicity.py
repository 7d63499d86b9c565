"""Many tests at once, and tests without end: what is left of a p-value after all the others.

Haircut: Harvey and Liu, "Backtesting" (J. of Portfolio Management, 2015). Online: an autopilot
never knows how many tests are to come, so each spends a part of its error and earns some back with
every discovery: LOND (Javanmard and Montanari 2015), LORD++ (Ramdas et al. 2017).
"""

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]


class Correction(StrEnum):
    """Of p-values, the strictest first. BHY holds under any dependence of the tests."""

    BONFERRONI = "bonferroni"
    HOLM = "holm"
    BHY = "bhy"


def p_value(sharpe: float, observations: int) -> float:
    """Two-sided p-value of a per-observation Sharpe ratio, by ``t = SR sqrt(T)``."""
    return 2 * float(ndtr(-abs(sharpe) * math.sqrt(observations)))


def p_value_above(sharpe: float, observations: int) -> float:
    """One-sided: the chance of such a ratio or a higher one without skill."""
    return float(ndtr(-sharpe * math.sqrt(observations)))


def adjusted(p_values: Floats, correction: Correction) -> Floats:
    """The p-values, each as large as it is after all the others, shape (tests,)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    rank = np.arange(1, count + 1)
    match correction:
        case Correction.BONFERRONI:
            raised = p_values[order] * count
        case Correction.HOLM:
            raised = np.maximum.accumulate(p_values[order] * (count + 1 - rank))
        case Correction.BHY:
            steps = p_values[order] * count * (1 / rank).sum() / rank
            raised = np.minimum.accumulate(steps[::-1])[::-1]
    found = np.empty(count)
    found[order] = np.minimum(raised, 1.0)
    return found


def haircut(sharpe: float, p_adjusted: float, observations: int) -> float:
    """The Sharpe ratio that alone would have the adjusted p-value; its sign is kept."""
    left = -float(ndtri(min(p_adjusted, 1.0) / 2)) / math.sqrt(observations)
    return math.copysign(max(left, 0.0), sharpe)


def lond_levels(p_values: Sequence[float], level: float = 0.05) -> Floats:
    """Level of each test in turn, shape (tests,): ``level b_t (D + 1)``, D discoveries before it,
    ``b_t = 6 / (pi^2 t^2)``. A p-value at or below its level is a discovery."""
    levels, found = np.empty(len(p_values)), 0
    for t, p in enumerate(p_values, 1):
        levels[t - 1] = level * 6 / (math.pi**2 * t**2) * (found + 1)
        found += p <= levels[t - 1]
    return levels


def lord_levels(p_values: Sequence[float], level: float = 0.05, wealth: float = 0.025) -> Floats:
    """LORD++: level of each test in turn, shape (tests,); ``wealth`` is spent before any discovery.

    ``W g(t) + (a - W) g(t - t1) + a sum g(t - tj)`` over later discoveries, with weights that
    sum to less than one, ``g(t) ~ log(max(t, 2)) / (t exp(sqrt(log t)))`` (Javanmard and Montanari
    2018).
    """
    count = len(p_values)
    t = np.arange(1, count + 1)
    weight = 0.07720838 * np.log(np.maximum(t, 2)) / (t * np.exp(np.sqrt(np.log(t))))
    levels = wealth * weight
    discoveries = 0
    for k, p in enumerate(p_values):
        if p <= levels[k]:
            discoveries += 1
            earned = level - wealth if discoveries == 1 else level
            levels[k + 1 :] += earned * weight[: count - k - 1]
    return levels
