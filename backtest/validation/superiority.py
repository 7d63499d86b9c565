"""Is the best of all these better than doing nothing, or only the luckiest of many?

White's reality check (Econometrica, 2000), Hansen's test of superior predictive ability (J. of
Business and Economic Statistics, 2005) and Romano and Wolf's StepM (Econometrica, 2005) from one
stationary bootstrap. The ``arch`` package is their oracle in the tests and not used here: its test
compares means that are not studentised, so that a wild trial hides a good one, and its variance is
a loop in Python over all lags of all columns.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtest.validation.resampling import stationary_counts

COLUMNS_AT_ONCE = 512

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Superiority:
    """P-values that no trial earns anything, never below 1 / (draws + 1).

    ``lower`` is too hopeful, ``upper`` takes every bad trial for a rival; ``consistent`` is
    Hansen's and the one to use. ``reality_check`` is White's. ``winners`` are the columns that
    StepM names.
    """

    lower: float
    consistent: float
    upper: float
    reality_check: float
    winners: tuple[int, ...]


def superiority(
    returns: Floats,
    *,
    rng: np.random.Generator,
    block: float,
    draws: int = 1_000,
    level: float = 0.05,
    studentised: bool = True,
) -> Superiority | None:
    """Test trials, shape (days, trials), against earning nothing; None when no trial varies.

    ``block`` is the mean block length, ``level`` that of StepM, and the means are compared in units
    of their own error unless ``studentised`` is off. Same generator state, same result.
    """
    days = len(returns)
    varying = np.flatnonzero(np.ptp(returns, axis=0) > 0)
    if len(varying) == 0 or days < 3:
        return None
    traded = returns[:, varying]
    mean = traded.mean(axis=0)
    error = np.sqrt(long_variance(traded, block) / days)
    moved = stationary_counts(rng, days, block, draws) @ traded / days
    # a trial this far below nothing cannot be the best, so it is no rival (Hansen 2005, section 3)
    hopeless = mean < -error * math.sqrt(2 * math.log(math.log(days)))
    scale = error if studentised else np.ones(len(mean))
    best = float((mean / scale).max())

    def p_value(centre: Floats, scale: Floats, best: float) -> float:
        beyond = ((moved - centre) / scale).max(axis=1) > best
        return max(float(beyond.mean()), 1 / (draws + 1))

    consistent = np.where(hopeless, 0.0, mean)
    won = _stepwise((moved - consistent) / scale, mean / scale, level)
    return Superiority(
        lower=p_value(np.maximum(mean, 0.0), scale, best),
        consistent=p_value(consistent, scale, best),
        upper=p_value(mean, scale, best),
        reality_check=p_value(mean, np.ones(len(mean)), float(mean.max())),
        winners=tuple(varying[won].tolist()),
    )


def _stepwise(null: Floats, seen: Floats, level: float) -> list[int]:
    """Columns above the critical value of those not yet above one, until none is."""
    left = np.ones(len(seen), bool)
    while left.any():
        critical = np.quantile(null[:, left].max(axis=1), 1 - level)
        more = left & (seen > critical)
        if not more.any():
            break
        left &= ~more
    return np.flatnonzero(~left).tolist()


def long_variance(returns: Floats, block: float) -> Floats:
    """Variance of sqrt(days) times the mean under the stationary bootstrap, shape (trials,).

    Autocovariances weighted by ``(1 - i/T) q^i + i/T q^(T - i)`` with ``q = 1 - 1/block``.
    """
    days = len(returns)
    lag, q = np.arange(1, days), 1 - 1 / block
    weight = (1 - lag / days) * q**lag + lag / days * q ** (days - lag)
    width = 1 << (2 * days - 1).bit_length()
    found = []
    for at in range(0, returns.shape[1], COLUMNS_AT_ONCE):
        part = returns[:, at : at + COLUMNS_AT_ONCE]
        spectrum = np.fft.rfft(part - part.mean(axis=0), width, axis=0)
        covariance = np.fft.irfft(np.abs(spectrum) ** 2, width, axis=0)[:days] / days
        found.append(covariance[0] + 2 * weight @ covariance[1:])
    return np.concatenate(found)
