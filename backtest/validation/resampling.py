"""The stationary bootstrap: histories that could have been, with their dependence kept.

Blocks of random length keep what follows what; one set of indices for all columns keeps what moves
together. Politis and Romano (1994); the block length is that of Politis and White (2004) with the
correction of Patton, Politis and White (2009).
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def stationary_indices(
    rng: np.random.Generator, length: int, block: float, count: int
) -> Iterator[Ints]:
    """``count`` times the places, shape (length,), of one resampled history.

    Blocks begin anywhere with probability 1 / ``block`` at each place and wrap around the end.
    """
    places = np.arange(length)
    for _ in range(count):
        starts, begins = rng.integers(length, size=length), rng.random(length) <= 1 / block
        begins[0] = True
        origin = np.maximum.accumulate(np.where(begins, places, 0))
        yield (starts[origin] + places - origin) % length


def stationary_counts(rng: np.random.Generator, length: int, block: float, count: int) -> Floats:
    """How often each place is drawn, shape (count, length): its product with returns sums them."""
    return np.stack(
        [
            np.bincount(drawn, minlength=length).astype(np.float64)
            for drawn in stationary_indices(rng, length, block, count)
        ]
    )


def block_length(returns: Floats) -> float:
    """Mean block length for the stationary bootstrap of returns, shape (days, columns): the longest
    that any column asks for, at least 1."""
    return max((_block_length(column) for column in returns.T), default=1.0)


def _block_length(series: Floats) -> float:
    n = len(series)
    centred = series - series.mean()
    if n < 8 or not centred.any():
        return 1.0
    run = max(5, int(math.log10(n)))
    lags = min(math.ceil(math.sqrt(n)) + run, n - 2)
    covariance = np.array([centred[: n - k] @ centred[k:] for k in range(lags + 1)]) / n
    reach = min(2 * _first_uncorrelated(covariance / covariance[0], n, run), lags)
    k = np.arange(1, reach + 1)
    # the flat-top window: one up to half of the reach, then down to nothing
    tapered = np.minimum(1.0, 2 * (1 - k / reach)) * covariance[1 : reach + 1]
    slope, density = 2 * float(tapered @ k), float(covariance[0] + 2 * tapered.sum())
    if density <= 0.0 or slope == 0.0:
        return 1.0
    length = (slope / density) ** 2 * n
    return min(max(length ** (1 / 3), 1.0), math.ceil(min(3 * math.sqrt(n), n / 3)))


def _first_uncorrelated(correlation: Floats, n: int, run: int) -> int:
    """The first lag from which ``run`` lags are within chance; else the last lag."""
    chance = 2 * math.sqrt(math.log10(n) / n)
    beyond = [k for k in range(1, len(correlation)) if abs(correlation[k]) >= chance]
    edges = [0, *beyond, len(correlation)]
    for before, after in pairwise(edges):
        if after - before > run:
            return before + 1
    return len(correlation) - 1
