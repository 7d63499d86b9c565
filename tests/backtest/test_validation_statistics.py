"""The statistics against published figures, against ``arch``, and against what they must mean."""

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.validation.clusters import SILHOUETTE_MIN, clusters, distances, silhouettes
from backtest.validation.multiplicity import (
    Correction,
    adjusted,
    haircut,
    lond_levels,
    lord_levels,
    p_value,
    p_value_above,
)
from backtest.validation.overfitting import Score, overfitting
from backtest.validation.resampling import block_length, stationary_counts, stationary_indices
from backtest.validation.sharpe import (
    Sample,
    dsr,
    dsr_2014,
    effective_rank,
    effective_trials,
    expected_maximum,
    min_track,
    min_track_2012,
    min_years,
    observed_fdr,
    planned_fdr,
    power,
    psr,
    psr_2012,
    sample_of,
    sharpes,
    variance_of_maximum,
)
from backtest.validation.superiority import long_variance, superiority
from core.errors import ConfigError

WORKED = Sample(sharpe=2.5 / 250**0.5, observations=1250, skewness=-3, kurtosis=10)
"""The worked example of the deflated Sharpe ratio (2014): 2.5 a year of 250 days, V 0.5 a year."""
WORKED_VARIANCE = 0.5 / 250

PAPER = Sample(sharpe=0.036 / 0.079, observations=24, skewness=-2.448, kurtosis=10.164)
"""The example of the 2026 paper."""
SERIAL = replace(PAPER, autocorrelation=0.2)


def matrix(days: int, trials: int) -> Any:
    """Returns without a generator: a sine so amplified that its fractions are noise."""
    t, n = np.arange(days)[:, None], np.arange(trials)[None, :]
    x = np.sin(12.9898 * (t + 1) + 78.233 * (n + 1)) * 43758.5453
    return 0.02 * (x - np.floor(x) - 0.5)


def better(days: int, trials: int, *, by: float) -> Any:
    """The same with an edge on column 3."""
    returns = matrix(days, trials)
    returns[:, 3] += by
    return returns


def annual(sharpe: float, periods: int, **shape: float) -> Sample:
    return Sample(sharpe=sharpe / periods**0.5, observations=1, **shape)  # type: ignore[arg-type]


PRINTED: list[tuple[str, float, str]] = [
    ("SR0 of the worked example", expected_maximum(100, WORKED_VARIANCE), "0.1132"),
    ("DSR 2014, 100 trials", dsr_2014(WORKED, 100, WORKED_VARIANCE), "0.9004"),
    ("DSR 2014, 46 trials", dsr_2014(WORKED, 46, WORKED_VARIANCE), "0.9505"),
    (
        "DSR 2014, 88 trials, normal",
        dsr_2014(replace(WORKED, skewness=0, kurtosis=3), 88, WORKED_VARIANCE),
        "0.9505",
    ),
    *(
        (f"MinTRL, {n} a year", min_track_2012(annual(2, n), 1 / n**0.5) / n, told)
        for n, told in ((250, "2.73"), (52, "2.83"), (12, "3.24"))
    ),
    (
        "MinTRL in months, skewed",
        min_track_2012(annual(2, 12, skewness=-0.72, kurtosis=5.78), 1 / 12**0.5),
        "59.9",
    ),
    *(
        (f"E[max], {n}", expected_maximum(n), told)
        for n, told in ((10, "1.5746"), (45, "2.2356"), (100, "2.5306"))
    ),
    ("MinBTL, 7", min_years(7, 1.0), "1.92"),
    ("MinBTL, 45", min_years(45, 1.0), "5.00"),
    ("error, as it is", PAPER.error(PAPER.sharpe), "0.329"),
    ("error, normal", replace(PAPER, skewness=0, kurtosis=3).error(PAPER.sharpe), "0.214"),
    ("PSR over 0", psr(PAPER), "0.987"),
    ("PSR over 0.1", psr(PAPER, 0.1), "0.939"),
    ("MinTRL 2026", min_track(PAPER), "13.029"),
    ("power", 1 - power(PAPER, 0.5), "0.315"),
    ("pFDR", planned_fdr(0.05, 0.05, 1 - 0.315), "0.581"),
    ("oFDR", observed_fdr(PAPER, 0.5, 0.05), "0.306"),
    ("E[max] of 10, V 0.1", expected_maximum(10, 0.1), "0.498"),
    ("DSR 2026", dsr(PAPER, 10, 0.1), "0.416"),
    ("DSR 2026, one trial's error", psr(PAPER, expected_maximum(10, 0.1)), "0.451"),
    ("error, serial", SERIAL.error(SERIAL.sharpe), "0.379"),
    ("PSR, serial", psr(SERIAL), "0.966"),
    ("DSR 2026, serial", dsr(SERIAL, 10, 0.1), "0.427"),
    ("variance of the maximum, 10", variance_of_maximum(10), "0.3443"),
    ("variance of the maximum, 100", variance_of_maximum(100), "0.1844"),
    ("variance of the maximum, 1000", variance_of_maximum(1000), "0.1235"),
]


@pytest.mark.parametrize(("name", "value", "printed"), PRINTED, ids=[row[0] for row in PRINTED])
def test_published_figures_come_out_to_the_digits_printed(
    name: str, value: float, printed: str
) -> None:
    digits = len(printed.partition(".")[2])
    assert f"{value:.{digits}f}" == printed, name


NORMAL = NormalDist()


class Plain:
    """The formulas once more, written down from the papers and computed with the standard library
    alone: what the printed digits hide must agree too."""

    @staticmethod
    def error(s: Sample, at: float) -> float:
        r, g3, g4 = s.autocorrelation, s.skewness, s.kurtosis
        a, b = 1 + 2 * r / (1 - r), 1 + r / (1 - r) + r**2 / (1 - r**2)
        c = 1 + 2 * r**2 / (1 - r**2)
        return math.sqrt((a - b * g3 * at + c * (g4 - 1) / 4 * at**2) / s.observations)

    @staticmethod
    def psr(s: Sample, at: float = 0.0) -> float:
        return NORMAL.cdf((s.sharpe - at) / Plain.error(s, at))

    @staticmethod
    def psr_2012(s: Sample, at: float) -> float:
        shape = 1 - s.skewness * s.sharpe + (s.kurtosis - 1) / 4 * s.sharpe**2
        return NORMAL.cdf((s.sharpe - at) * math.sqrt((s.observations - 1) / shape))

    @staticmethod
    def maximum(n: int, variance: float = 1.0) -> float:
        g = 0.5772156649015329
        quantiles = NORMAL.inv_cdf(1 - 1 / n), NORMAL.inv_cdf(1 - 1 / (n * math.e))
        return math.sqrt(variance) * ((1 - g) * quantiles[0] + g * quantiles[1])

    @staticmethod
    def spread(n: int) -> float:
        """Variance of the largest of n normals: Simpson's rule over its density."""
        steps, low, high = 20_000, -8.0, 12.0
        width = (high - low) / steps
        moments = [0.0, 0.0]
        for k in range(steps + 1):
            x = low + k * width
            share = (1 if k in {0, steps} else 4 if k % 2 else 2) * width / 3
            density = n * NORMAL.pdf(x) * NORMAL.cdf(x) ** (n - 1)
            for power_, _ in enumerate(moments):
                moments[power_] += share * density * x ** (power_ + 1)
        return moments[1] - moments[0] ** 2

    @staticmethod
    def dsr(s: Sample, n: int, variance: float) -> float:
        at = Plain.maximum(n, variance)
        return NORMAL.cdf((s.sharpe - at) / (Plain.error(s, at) * math.sqrt(Plain.spread(n))))

    @staticmethod
    def track_2012(s: Sample, at: float) -> float:
        shape = 1 - s.skewness * s.sharpe + (s.kurtosis - 1) / 4 * s.sharpe**2
        return 1 + shape * (NORMAL.inv_cdf(0.95) / (s.sharpe - at)) ** 2

    @staticmethod
    def power(s: Sample, to: float) -> float:
        reached = NORMAL.inv_cdf(0.95) * Plain.error(s, 0.0)
        return 1 - NORMAL.cdf((reached - to) / Plain.error(s, to))

    @staticmethod
    def observed(s: Sample, to: float, prior: float) -> float:
        null = (1 - prior) * (1 - NORMAL.cdf(s.sharpe / Plain.error(s, 0.0)))
        skilled = prior * (1 - NORMAL.cdf((s.sharpe - to) / Plain.error(s, to)))
        return null / (null + skilled)


def _again() -> dict[str, float]:
    """Every row of ``PRINTED`` once more."""
    v, one = WORKED_VARIANCE, replace(WORKED, skewness=0, kurtosis=3)
    skewed, normal = annual(2, 12, skewness=-0.72, kurtosis=5.78), replace(PAPER, skewness=0)
    return {
        "SR0 of the worked example": Plain.maximum(100, v),
        "DSR 2014, 100 trials": Plain.psr_2012(WORKED, Plain.maximum(100, v)),
        "DSR 2014, 46 trials": Plain.psr_2012(WORKED, Plain.maximum(46, v)),
        "DSR 2014, 88 trials, normal": Plain.psr_2012(one, Plain.maximum(88, v)),
        **{
            f"MinTRL, {n} a year": Plain.track_2012(annual(2, n), 1 / n**0.5) / n
            for n in (250, 52, 12)
        },
        "MinTRL in months, skewed": Plain.track_2012(skewed, 1 / 12**0.5),
        **{f"E[max], {n}": Plain.maximum(n) for n in (10, 45, 100)},
        **{f"MinBTL, {n}": Plain.maximum(n) ** 2 for n in (7, 45)},
        "error, as it is": Plain.error(PAPER, PAPER.sharpe),
        "error, normal": Plain.error(replace(normal, kurtosis=3), PAPER.sharpe),
        "PSR over 0": Plain.psr(PAPER),
        "PSR over 0.1": Plain.psr(PAPER, 0.1),
        "MinTRL 2026": 24 * (Plain.error(PAPER, 0) * NORMAL.inv_cdf(0.95) / PAPER.sharpe) ** 2,
        "power": 1 - Plain.power(PAPER, 0.5),
        "pFDR": 1 / (1 + 0.685 * 0.05 / (0.05 * 0.95)),
        "oFDR": Plain.observed(PAPER, 0.5, 0.05),
        "E[max] of 10, V 0.1": Plain.maximum(10, 0.1),
        "DSR 2026": Plain.dsr(PAPER, 10, 0.1),
        "DSR 2026, one trial's error": Plain.psr(PAPER, Plain.maximum(10, 0.1)),
        "error, serial": Plain.error(SERIAL, SERIAL.sharpe),
        "PSR, serial": Plain.psr(SERIAL),
        "DSR 2026, serial": Plain.dsr(SERIAL, 10, 0.1),
        **{f"variance of the maximum, {n}": Plain.spread(n) for n in (10, 100, 1000)},
    }


def test_published_figures_come_out_to_a_millionth() -> None:
    again = _again()
    assert set(again) == {name for name, _, _ in PRINTED}
    for name, value, _ in PRINTED:
        assert value == pytest.approx(again[name], abs=1e-6), name


def test_the_effective_rank_of_three_trials() -> None:
    correlations = np.array([[1, 0.1, 0.7], [0.1, 1, 0.8], [0.7, 0.8, 1]])
    assert round(effective_rank(np.linalg.eigvalsh(correlations)), 4) == 1.8402


def test_the_made_matrix_is_the_same_on_this_machine() -> None:
    """Its sine is amplified so much that another libm may differ: then these say so first."""
    made = matrix(1600, 20)
    pinned = {
        (0, 0): 0.0048016965,
        (23, 3): 0.0058061993,
        (159, 9): 0.0064697866,
        (1599, 19): 0.0023549017,
    }
    for (t, n), value in pinned.items():
        assert made[t, n] == pytest.approx(value, abs=1e-9)


PBO = [
    (matrix(24, 4), 4, 0.5, 1 / 3, -0.96131, 1e-5),
    (matrix(160, 10), 8, 68 / 70, 54 / 70, -0.606806, 1e-6),
    (better(160, 10, by=0.004), 8, 0.0, 0.0, -0.997584, 1e-6),
    (matrix(1600, 20), 16, 0.6314685, 0.3939394, -0.491816, 1e-6),
]


@pytest.mark.parametrize(("returns", "blocks", "pbo", "loss", "slope", "within"), PBO)
def test_overfitting_of_the_made_matrix(
    returns: Any, blocks: int, pbo: float, loss: float, slope: float, within: float
) -> None:
    found = overfitting(returns, blocks)
    assert found.probability == pytest.approx(pbo, abs=1e-7)
    assert found.loss == pytest.approx(loss, abs=1e-7)
    assert found.slope == pytest.approx(slope, abs=within)
    assert len(found.logits) == math.comb(blocks, blocks // 2)


def test_overfitting_by_hand() -> None:
    returns = np.array([[3, 1, 2], [1, 2, 0], [0, 2, 3], [2, 0, 1]], float)
    found = overfitting(returns, 4, Score.MEAN)
    assert found.probability == 1.0
    expected = [math.log(0.25 / 0.75)] * 4 + [math.log(0.375 / 0.625)] * 2
    np.testing.assert_allclose(np.sort(found.logits), expected, atol=1e-12)


def test_overfitting_from_sums_equals_overfitting_from_days() -> None:
    """The blocks' sums must give what the days themselves would."""
    returns, blocks = matrix(120, 6) + 0.5, 6
    found = overfitting(returns, blocks)
    from itertools import combinations

    parts = returns.reshape(blocks, 20, 6)
    for k, half in enumerate(combinations(range(blocks), 3)):
        rest = [b for b in range(blocks) if b not in half]
        inside = sharpes(np.concatenate(parts[list(half)]))
        outside = sharpes(np.concatenate(parts[rest]))
        best = int(inside.argmax())
        assert found.chosen[k] == pytest.approx(inside[best], rel=1e-9)
        assert found.outside[k] == pytest.approx(outside[best], rel=1e-9)


@pytest.mark.parametrize(("days", "trials", "blocks"), [(40, 1, 4), (7, 5, 4), (40, 5, 3)])
def test_overfitting_refuses_what_it_cannot_divide(days: int, trials: int, blocks: int) -> None:
    with pytest.raises(ConfigError):
        overfitting(matrix(days, trials), blocks)


def test_a_trial_that_never_trades_is_neither_best_nor_an_error() -> None:
    returns = np.column_stack([better(160, 10, by=0.004), np.zeros(160)])
    assert overfitting(returns, 8).probability == 0.0


@pytest.mark.parametrize(
    ("by", "p_values", "winners"),
    [(0.0, (0.103, 0.126, 0.126), ()), (0.0015, (1 / 1001,) * 3, (3,))],
)
def test_superiority_draws_as_arch_does(
    by: float, p_values: tuple[float, ...], winners: tuple[int, ...]
) -> None:
    """Without studentising, equal to ``arch`` 8.0.0 by seed; a p-value of 0 is 1 / (draws + 1)."""
    returns = better(500, 20, by=by)
    rng = np.random.default_rng(1234)
    found = superiority(returns, rng=rng, block=10, draws=1000, studentised=False)
    assert found is not None
    assert (found.lower, found.consistent, found.upper) == pytest.approx(p_values, abs=1e-12)
    assert found.winners == winners
    assert found.reality_check == found.upper


def test_superiority_agrees_with_arch_on_other_worlds() -> None:
    bootstrap = pytest.importorskip("arch.bootstrap", reason="the research extra is not installed")
    rng = np.random.default_rng(3)
    returns = rng.normal(0.02, 1.0, (300, 12)) * rng.uniform(0.5, 3.0, 12)
    returns[:, 5] -= 1.0
    oracle = bootstrap.SPA(np.zeros(300), -returns, block_size=7, reps=400, seed=9)
    oracle.compute()
    found = superiority(
        returns, rng=np.random.default_rng(9), block=7, draws=400, studentised=False
    )
    assert found is not None
    mine = (found.lower, found.consistent, found.upper)
    assert mine == pytest.approx(tuple(oracle.pvalues), abs=1e-12)
    np.testing.assert_allclose(long_variance(returns, 7), oracle._loss_diff_var, rtol=1e-9)


def test_studentising_finds_a_quiet_edge_beside_a_wild_trial() -> None:
    rng = np.random.default_rng(5)
    returns = rng.normal(0, 0.002, (700, 5))
    returns[:, 2] += 0.0004
    wild = rng.normal(0, 0.05, 700)
    returns[:, 4] = wild - wild.mean()
    by_mean, by_error = (
        superiority(returns, rng=np.random.default_rng(1), block=5, studentised=each)
        for each in (False, True)
    )
    assert by_mean is not None
    assert by_error is not None
    assert by_mean.consistent > 0.05
    assert by_error.consistent < 0.01
    assert by_error.winners == (2,)


def test_nothing_that_varies_has_no_p_value() -> None:
    rng = np.random.default_rng(1)
    assert superiority(np.zeros((50, 3)), rng=rng, block=5) is None


def test_block_lengths_are_those_of_arch() -> None:
    bootstrap = pytest.importorskip("arch.bootstrap", reason="the research extra is not installed")
    rng = np.random.default_rng(5)
    series = rng.normal(size=(700, 4))
    for k in range(1, 700):
        series[k] += np.array([0.0, 0.3, 0.6, 0.8]) * series[k - 1]
    oracle = bootstrap.optimal_block_length(series)["stationary"].to_numpy()
    mine = [block_length(series[:, [k]]) for k in range(4)]
    np.testing.assert_allclose(mine, np.maximum(oracle, 1.0), rtol=0.01)
    assert block_length(series) == max(mine)
    assert block_length(np.zeros((100, 2))) == 1.0


def test_the_bootstrap_keeps_columns_together_and_blocks_whole() -> None:
    rng = np.random.default_rng(2)
    drawn = np.concatenate(list(stationary_indices(rng, 400, 20.0, 50)))
    steps = np.diff(drawn.reshape(50, 400), axis=1) % 400
    assert (steps == 1).mean() == pytest.approx(0.95, abs=0.01)
    counts = stationary_counts(np.random.default_rng(2), 400, 20.0, 50)
    assert (counts.sum(axis=1) == 400).all()
    returns = matrix(400, 3)
    first = next(stationary_indices(np.random.default_rng(2), 400, 20.0, 1))
    np.testing.assert_allclose(counts[0] @ returns, returns[first].sum(axis=0), atol=1e-12)


def test_lond_spends_as_published() -> None:
    p_values = [0.001, 0.8, 0.003, 0.2, 0.04]
    levels = lond_levels(p_values)
    printed = [0.030396, 0.015198, 0.006755, 0.005699, 0.003648]
    np.testing.assert_allclose(levels, printed, atol=6e-7)
    assert [p <= a for p, a in zip(p_values, levels, strict=True)] == [1, 0, 1, 0, 0]


def test_lord_earns_back_with_discoveries_and_never_overspends() -> None:
    nothing = lord_levels([1.0] * 20_000)
    assert nothing.sum() < 0.025
    found = lord_levels([1e-9, *[1.0] * 50])
    assert (found[1:] > nothing[1:51]).all()
    assert found[0] == nothing[0]


def test_online_levels_keep_false_discoveries_rare() -> None:
    rng = np.random.default_rng(11)
    share = []
    for _ in range(200):
        p = rng.uniform(size=200)
        real = rng.uniform(size=200) < 0.2
        p[real] = rng.uniform(0, 1e-4, real.sum())
        found = p <= lord_levels(p.tolist())
        share.append((found & ~real).sum() / max(found.sum(), 1))
    assert np.mean(share) <= 0.05


def test_haircuts_are_ordered_and_by_hand() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(adjusted(p, Correction.BONFERRONI), [0.04, 0.16, 0.12, 0.02])
    np.testing.assert_allclose(adjusted(p, Correction.HOLM), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(adjusted(p, Correction.BHY), np.array([2, 4, 4, 2]) / 1e2 * 25 / 12)
    assert haircut(0.1, p_value(0.1, 1000), 1000) == pytest.approx(0.1)
    assert haircut(0.1, 0.05, 1000) < 0.1
    assert haircut(-0.1, 1.0, 1000) == 0.0


def test_two_forms_of_psr_agree_for_a_short_distance_and_one_trial_deflates_nothing() -> None:
    assert psr_2012(PAPER) == pytest.approx(psr(PAPER), abs=0.1)
    assert dsr(PAPER, 1, 0.1) == psr(PAPER)
    assert expected_maximum(1) == 0.0


def test_a_sharpe_that_is_not_above_the_benchmark_needs_forever() -> None:
    assert min_track(replace(PAPER, sharpe=-0.1)) == math.inf
    assert min_years(10, -1.0) == math.inf


@pytest.mark.parametrize("returns", [[0.1, 0.2], [0.1] * 9, [0.1, float("nan"), 0.2], []])
def test_a_sample_that_proves_nothing_is_none(returns: list[float]) -> None:
    assert sample_of(np.array(returns)) is None


def test_negative_autocorrelation_is_not_believed() -> None:
    zigzag = sample_of(np.tile([0.02, -0.01], 50))
    assert zigzag is not None
    assert zigzag.autocorrelation == 0.0


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 10**7), st.floats(0.01, 0.2), st.integers(50, 5000))
def test_more_trials_never_help(trials: int, sharpe: float, days: int) -> None:
    sample = Sample(sharpe=sharpe, observations=days)
    fewer, more = dsr(sample, trials, 1 / days), dsr(sample, trials * 2, 1 / days)
    assert more <= fewer + 1e-9 or fewer < 0.5
    assert min_years(trials * 2, sharpe) >= min_years(trials, sharpe)


def test_equal_trials_are_one_effective_trial() -> None:
    one = matrix(200, 1)
    assert effective_trials(np.repeat(one, 8, axis=1)) == pytest.approx(1.0)
    assert effective_trials(np.zeros((50, 3))) == 1.0
    assert 7 < effective_trials(matrix(4000, 8)) <= 8
    wide = matrix(40, 200)
    assert effective_trials(wide) <= 39.5


def blocks(sizes: list[int], shared: float, *, days: int = 730, seed: int = 1) -> Any:
    """Trials in groups that have this correlation inside, and none outside."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            np.sqrt(shared) * rng.standard_normal((days, 1))
            + np.sqrt(1 - shared) * rng.standard_normal((days, size))
            for size in sizes
        ],
        axis=1,
    )


@pytest.mark.parametrize("sizes", [[12, 12], [3, 10, 20, 4], [2] * 6, [5] * 20])
@pytest.mark.parametrize("shared", [0.5, 0.7, 0.95])
def test_planted_blocks_are_found_whatever_their_order(sizes: list[int], shared: float) -> None:
    returns, truth = blocks(sizes, shared), np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(3).permutation(len(truth))
    found = clusters(returns[:, order])
    assert found is not None
    pairs = set(zip(found.tolist(), truth[order].tolist(), strict=True))
    assert len(pairs) == len(sizes) == len(set(found.tolist()))
    assert found.tolist() == clusters(returns[:, order]).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("returns", [blocks([1] * 20, 0.0), blocks([30], 0.5), matrix(50, 2)])
def test_where_no_clusters_stand_apart_none_are_told(returns: Any) -> None:
    assert clusters(returns) is None


def test_trials_that_never_trade_are_in_no_cluster_and_many_are_taken_evenly() -> None:
    returns = blocks([6, 6], 0.7)
    still = np.column_stack([np.zeros((730, 3)), returns])
    assert clusters(still).tolist() == clusters(returns).tolist()  # type: ignore[union-attr]
    many = clusters(blocks([300, 300, 300], 0.7, days=200))
    assert many is not None
    assert (len(many), len(set(many.tolist()))) == (400, 3)


def test_silhouettes_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the research extra is not installed")
    apart = distances(blocks([3, 5, 1, 7], 0.4))
    labels = np.array([0, 0, 1, 1, 2, 1, 1, 0, 3, 2, 2, 0, 1, 2, 2, 0])
    theirs = metrics.silhouette_samples(apart, labels, metric="precomputed")
    np.testing.assert_allclose(silhouettes(apart, labels), theirs, atol=1e-12)
    assert SILHOUETTE_MIN > 0


def test_one_side_of_a_p_value() -> None:
    assert p_value_above(0.1, 400) == pytest.approx(p_value(0.1, 400) / 2)
    assert p_value_above(-0.1, 400) == pytest.approx(1 - p_value(0.1, 400) / 2)
