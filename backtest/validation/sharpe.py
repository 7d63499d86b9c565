"""How much a Sharpe ratio proves, given how long it was measured and how many were tried.

All Sharpe ratios here are per observation, mean over standard deviation (ddof 1), not annual.
Sources: Bailey and López de Prado, "The Sharpe ratio efficient frontier" (2012) and "The deflated
Sharpe ratio" (2014); Bailey, Borwein, López de Prado and Zhu, "Pseudo-mathematics and financial
charlatanism" (2014); López de Prado, Lipton and Zoonekynd, "How to use the Sharpe ratio" (2026).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

EULER_GAMMA = 0.5772156649015329
FLAT = 1e-12
"""A spread below this share of the largest return is rounding, not variance."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a Sharpe ratio was measured on: its shape decides how far it can be believed.

    ``kurtosis`` is plain (3 for a normal), ``autocorrelation`` that of neighbours.
    """

    sharpe: float
    observations: int
    skewness: float = 0.0
    kurtosis: float = 3.0
    autocorrelation: float = 0.0

    def error(self, at: float) -> float:
        """Standard deviation of the estimate if the true Sharpe ratio were ``at`` (2026)."""
        r = self.autocorrelation
        a = 1 + 2 * r / (1 - r)
        b = 1 + r / (1 - r) + r * r / (1 - r * r)
        c = 1 + 2 * r * r / (1 - r * r)
        variance = a - b * self.skewness * at + c * (self.kurtosis - 1) / 4 * at * at
        # returns of two values only can bring it to nothing, or with autocorrelation below
        return math.sqrt(max(variance, FLAT) / self.observations)


def sample_of(returns: Floats) -> Sample | None:
    """The sample of returns, shape (observations,). None without variance or with fewer than 3.

    A negative autocorrelation is taken as none: believed, it would make every figure stronger.
    """
    if len(returns) < 3 or not np.isfinite(returns).all():
        return None
    centred = returns - returns.mean()
    spread = float(returns.std(ddof=1))
    if spread <= FLAT * float(np.abs(returns).max()):
        return None
    z = centred / float(returns.std())
    return Sample(
        sharpe=float(returns.mean()) / spread,
        observations=len(returns),
        skewness=float(np.mean(z**3)),
        kurtosis=float(np.mean(z**4)),
        autocorrelation=min(max(float(np.mean(z[1:] * z[:-1])), 0.0), 0.99),
    )


def sharpes(returns: Floats) -> Floats:
    """Sharpe ratio of every column, shape (trials,); a column without variance has 0."""
    spread = returns.std(axis=0, ddof=1)
    flat = spread <= FLAT * np.abs(returns).max(axis=0, initial=0.0)
    ratios: Floats = np.where(flat, 0.0, returns.mean(axis=0) / np.where(flat, 1.0, spread))
    return ratios


def psr_2012(sample: Sample, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above ``benchmark`` (2012: error at the estimate).

    ``Phi((SR - SR0) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1)/4 SR^2))``
    """
    distance = (sample.sharpe - benchmark) * math.sqrt(sample.observations - 1)
    return float(ndtr(distance / math.sqrt(max(_shape(sample), FLAT))))


def psr(sample: Sample, benchmark: float = 0.0) -> float:
    """The same in its 2026 form: the error is the one that holds if the benchmark is the truth."""
    return float(ndtr((sample.sharpe - benchmark) / sample.error(benchmark)))


def min_track_2012(sample: Sample, benchmark: float = 0.0, level: float = 0.05) -> float:
    """Observations needed to tell the Sharpe ratio from ``benchmark``; infinite if it is not above.

    ``1 + (1 - g3 SR + (g4 - 1)/4 SR^2) (z / (SR - SR0))^2``
    """
    return 1 + _needed(_shape(sample), sample.sharpe - benchmark, level)


def min_track(sample: Sample, benchmark: float = 0.0, level: float = 0.05) -> float:
    """The same in its 2026 form, with the error at the benchmark."""
    unit = sample.error(benchmark) ** 2 * sample.observations
    return _needed(unit, sample.sharpe - benchmark, level)


def _shape(sample: Sample) -> float:
    g3, g4, ratio = sample.skewness, sample.kurtosis, sample.sharpe
    return 1 - g3 * ratio + (g4 - 1) / 4 * ratio * ratio


def _needed(variance: float, distance: float, level: float) -> float:
    return variance * float(ndtri(1 - level) / distance) ** 2 if distance > 0 else math.inf


def expected_maximum(trials: int, variance: float = 1.0) -> float:
    """What the best of ``trials`` Sharpe ratios without skill is expected to be; 0 for one trial.

    ``sqrt(V) ((1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e)))``, g being Euler's constant.
    """
    assert trials >= 1, "there is at least the trial that is judged"
    if trials == 1:
        return 0.0
    # -ndtri(p) is ndtri(1 - p) without the loss of digits
    common, rare = -ndtri(1 / trials), -ndtri(1 / (trials * math.e))
    return math.sqrt(variance) * float((1 - EULER_GAMMA) * common + EULER_GAMMA * rare)


@lru_cache(maxsize=256)
def variance_of_maximum(trials: int) -> float:
    """Variance of the largest of ``trials`` standard normals, by integrating its distribution."""
    if trials == 1:
        return 1.0
    x = np.linspace(-10.0, 14.0, 48_001)
    below = np.exp(trials * log_ndtr(x))
    weight = np.diff(below)
    middle = (x[1:] + x[:-1]) / 2
    mean = float(weight @ middle)
    return float(weight @ (middle - mean) ** 2)


def dsr_2014(sample: Sample, trials: int, variance: float) -> float:
    """Deflated Sharpe ratio of 2014: beats the expected maximum, with the error of one trial."""
    return psr_2012(sample, expected_maximum(trials, variance))


def dsr(sample: Sample, trials: int, variance: float) -> float:
    """Deflated Sharpe ratio of 2026: the maximum of many varies less than one of them.

    ``variance`` is that of Sharpe ratios across trials.
    """
    hurdle = expected_maximum(trials, variance)
    error = sample.error(hurdle) * math.sqrt(variance_of_maximum(trials))
    return float(ndtr((sample.sharpe - hurdle) / error))


def min_years(trials: int, annual_sharpe: float) -> float:
    """MinBTL: years below which this many skill-less trials are expected to show such a Sharpe.

    ``(E[max] / SR)^2``; infinite for a Sharpe ratio that is not above zero.
    """
    if annual_sharpe <= 0:
        return math.inf
    return (expected_maximum(trials) / annual_sharpe) ** 2


def power(sample: Sample, alternative: float, benchmark: float = 0.0, level: float = 0.05) -> float:
    """Chance that a test at ``level`` finds a strategy whose true Sharpe is ``alternative``."""
    critical = benchmark + sample.error(benchmark) * float(ndtri(1 - level))
    return float(ndtr((alternative - critical) / sample.error(alternative)))


def planned_fdr(prior: float, level: float, power_: float) -> float:
    """pFDR: share of the strategies that pass which have no skill, ``prior`` being those with."""
    return 1 / (1 + power_ * prior / (level * (1 - prior)))


def observed_fdr(sample: Sample, alternative: float, prior: float, benchmark: float = 0.0) -> float:
    """oFDR: probability that there is no skill, given the Sharpe ratio that was seen."""

    def tail(at: float) -> float:
        return float(ndtr((at - sample.sharpe) / sample.error(at)))

    null, skilled = (1 - prior) * tail(benchmark), prior * tail(alternative)
    return null / (null + skilled)


def effective_trials(returns: Floats) -> float:
    """Effective rank of the trials' correlations: exp of the entropy of its eigenvalues' shares.

    Between 1 (all trials are one) and the number of columns that vary. Roy and Vetterli (2007).
    """
    varying = returns[:, sharpes(returns) != 0.0]
    if varying.shape[1] == 0:
        return 1.0
    z = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    gram = z.T @ z if z.shape[1] <= z.shape[0] else z @ z.T
    return effective_rank(np.linalg.eigvalsh(gram))


def effective_rank(eigenvalues: Floats) -> float:
    """Exp of the entropy of the eigenvalues' shares."""
    share = eigenvalues[eigenvalues > eigenvalues.max() * FLAT]
    share = share / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
