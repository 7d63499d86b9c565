"""Probability of backtest overfitting: does being best on one half of history mean anything?

Combinatorially symmetric cross-validation of Bailey, Borwein, López de Prado and Zhu (J. of
Computational Finance, 2016). Without any skill the probability is about a half, not zero.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.validation.sharpe import FLAT
from core.errors import ConfigError

SPLITS_AT_ONCE = 1_024
"""Splits folded together: bounds the memory to this many rows of one number a trial."""

Floats = NDArray[np.float64]


class Score(StrEnum):
    """What a trial is ranked by; the slope and the losses are in its units."""

    SHARPE = "sharpe"
    MEAN = "mean"


@dataclass(frozen=True, eq=False)
class Overfitting:
    """One row a split. ``logits`` are of the best trial's rank outside the half that chose it.

    ``chosen`` and ``outside`` are its score inside and outside that half.
    """

    logits: Floats
    chosen: Floats
    outside: Floats

    @property
    def probability(self) -> float:
        """PBO: share of splits whose best falls to the median or below it outside."""
        return float((self.logits <= 0).mean())

    @property
    def loss(self) -> float:
        """Share of splits whose best loses outside."""
        return float((self.outside < 0).mean())

    @property
    def slope(self) -> float | None:
        """Slope of outside on inside over the splits; None where inside is always the same."""
        centred = self.chosen - self.chosen.mean()
        spread = float(centred @ centred)
        return float(centred @ self.outside) / spread if spread > 0 else None


def overfitting(returns: Floats, blocks: int = 16, score: Score = Score.SHARPE) -> Overfitting:
    """Every way to choose half of ``blocks`` even blocks; returns have shape (days, trials).

    Days that do not fill the blocks are left out at the beginning. A trial without variance scores
    0. ConfigError for an odd number of blocks, fewer than two trials, or two days a block.
    """
    days, trials = returns.shape
    if blocks < 2 or blocks % 2:
        raise ConfigError(f"cross-validation needs an even number of blocks, got {blocks}")
    needed = blocks if score is Score.MEAN else 2 * blocks
    if trials < 2 or days < needed:
        raise ConfigError(
            f"cross-validation in {blocks} blocks needs two trials and {needed} days, "
            f"got {trials} and {days}"
        )
    size = days // blocks
    kept = returns[days - size * blocks :]
    sums = _Blocks.of(kept.reshape(blocks, size, trials), score)
    halves = np.array(list(combinations(range(blocks), blocks // 2)))
    parts = [
        sums.judge(halves[at : at + SPLITS_AT_ONCE]) for at in range(0, len(halves), SPLITS_AT_ONCE)
    ]
    return Overfitting(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Sums of each block, from which the score of any half follows without its days."""

    mean: Floats
    first: Floats
    second: Floats
    size: int
    score: Score

    @staticmethod
    def of(cube: Any, score: Score) -> "_Blocks":
        """From returns of shape (blocks, days of a block, trials)."""
        mean = cube.mean(axis=(0, 1))
        centred = cube - mean
        return _Blocks(mean, centred.sum(axis=1), (centred**2).sum(axis=1), cube.shape[1], score)

    def judge(self, halves: Any) -> tuple[Floats, Floats, Floats]:
        """Logit, score inside and score outside of each half's best, shape (splits,)."""
        chosen = np.zeros((len(halves), len(self.first)))
        np.put_along_axis(chosen, halves, 1.0, axis=1)
        inside, outside = self._scores(chosen), self._scores(1.0 - chosen)
        rows, best = np.arange(len(halves)), inside.argmax(axis=1)
        reached = outside[rows, best]
        # trials that tie share the mean of their ranks
        reached_by = reached[:, None]
        rank = ((outside < reached_by).sum(axis=1) + (outside <= reached_by).sum(axis=1) + 1) / 2
        share = rank / (outside.shape[1] + 1)
        return np.log(share / (1 - share)), inside[rows, best], reached

    def _scores(self, chosen: Floats) -> Floats:
        """Score of every trial over the chosen blocks, shape (splits, trials)."""
        count = self.size * (len(self.first) // 2)
        off = chosen @ self.first / count
        mean: Floats = self.mean + off
        if self.score is Score.MEAN:
            return mean
        variance = (chosen @ self.second - count * off**2) / (count - 1)
        flat = variance <= (FLAT * np.abs(mean)) ** 2
        ratios: Floats = np.where(flat, 0.0, mean / np.sqrt(np.where(flat, 1.0, variance)))
        return ratios
