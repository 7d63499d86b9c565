"""How many different things a search tried: trials that rise and fall together are one.

A figure beside the verdict. The gate counts every trial, because how to cluster is one more choice,
and one that can be made after the results are seen. Source: López de Prado and Lewis, "Detection of
false investment strategies using unsupervised learning methods" (2019): distances of correlation,
and the number of clusters whose silhouettes are highest for their spread. Clusters are merged by
average distance rather than sought by k-means, which depends on where it starts.
"""

import numpy as np
from numpy.typing import NDArray

from backtest.validation.sharpe import FLAT, sharpes

TRIALS_MAX = 400
"""Trials that are clustered, evenly taken from more: the work grows with the cube of it."""
SILHOUETTE_MIN = 0.25
"""Below it "no substantial structure has been found" (Kaufman and Rousseeuw, 1990)."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def clusters(returns: Floats) -> Ints | None:
    """The cluster of every trial that varies, of at most ``TRIALS_MAX`` of them, from returns of
    shape (days, trials). None with fewer than three, or where no clusters stand apart.
    """
    varying = returns[:, sharpes(returns) != 0.0]
    count = varying.shape[1]
    if count < 3:
        return None
    taken = np.unique(np.linspace(0, count - 1, min(count, TRIALS_MAX)).round().astype(int))
    apart = distances(varying[:, taken])
    best, highest = None, 0.0
    for labels in _cuts(apart):
        each = silhouettes(apart, labels)
        quality = each.mean() / max(each.std(), FLAT)
        if each.mean() >= SILHOUETTE_MIN and quality > highest:
            best, highest = labels, quality
    return best


def distances(returns: Floats) -> Floats:
    """``sqrt((1 - correlation) / 2)`` of all pairs, from 0 (one is the other) to 1 (its mirror
    image), shape (trials, trials)."""
    related = np.atleast_2d(np.corrcoef(returns, rowvar=False))
    found: Floats = np.sqrt(np.clip((1 - related) / 2, 0.0, 1.0))
    np.fill_diagonal(found, 0.0)
    return found


def _cuts(apart: Floats) -> list[Ints]:
    """Labels for every number of clusters from 2 to one less than there are trials."""
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    tree = linkage(squareform(apart, checks=False), "average")
    return list(cut_tree(tree, n_clusters=np.arange(2, len(apart))).T.astype(np.int64))


def silhouettes(apart: Floats, labels: Ints) -> Floats:
    """How much nearer each trial is to its own cluster than to the next, between -1 and 1; 0 for
    one that is alone. Rousseeuw (1987)."""
    places = np.arange(len(labels))
    order = np.argsort(labels, kind="stable")
    begins = np.flatnonzero(np.diff(labels[order], prepend=-1))
    size = np.diff(np.append(begins, len(labels)))
    near = np.add.reduceat(apart[:, order], begins, axis=1)
    own = near[places, labels] / np.maximum(size[labels] - 1, 1)
    mean = near / size
    mean[places, labels] = np.inf
    other = mean.min(axis=1)
    far = np.maximum(np.maximum(own, other), FLAT)
    found: Floats = np.where(size[labels] > 1, (other - own) / far, 0.0)
    return found
