"""The gate: one verdict over everything a search has to show, with every figure and its threshold.

It passes when every check that has a threshold passes. A figure that cannot be had fails its check:
what nobody could measure is no reason to believe.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.statistics import DAYS_PER_YEAR
from backtest.validation.clusters import clusters
from backtest.validation.ledger import Head, Ledger, LedgerBroken
from backtest.validation.multiplicity import (
    Correction,
    adjusted,
    haircut,
    lond_levels,
    lord_levels,
    p_value,
    p_value_above,
)
from backtest.validation.overfitting import Overfitting, overfitting
from backtest.validation.resampling import block_length
from backtest.validation.returns import TrialReturns, returns_hash
from backtest.validation.sharpe import (
    Sample,
    dsr,
    dsr_2014,
    effective_trials,
    expected_maximum,
    min_track,
    min_track_2012,
    min_years,
    observed_fdr,
    planned_fdr,
    power,
    psr,
    sample_of,
    sharpes,
)
from backtest.validation.superiority import Superiority, superiority
from core.errors import UnknownName

YEAR = math.sqrt(DAYS_PER_YEAR)
"""Takes a daily Sharpe ratio to an annual one."""

Floats = NDArray[np.float64]


class Side(StrEnum):
    """On which side of its threshold a figure passes."""

    AT_LEAST = ">="
    AT_MOST = "<="
    ABOVE = ">"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What is asked for. Fix them before the search, not after.

    ``worlds`` are the harder ones in which the candidate must still earn (``backtest.stress``).
    ``prior`` is the share of strategies taken to have skill, ``skill`` their Sharpe ratio a year:
    of figures that are told, not judged.
    """

    dsr_min: float = 0.95
    pbo_max: float = 0.25
    spa_max: float = 0.05
    level: float = 0.05
    blocks: int = 16
    draws: int = 1_000
    worlds: tuple[str, ...] = ("costs x2", "one bar late", "fills missed")
    prior: float = 0.05
    skill: float = 1.0
    seed: int = 20_261_121


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure. ``passed`` is None where no threshold stands: it is told, not judged."""

    name: str
    value: float | None
    why: str
    side: Side | None = None
    threshold: float | None = None
    passed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says of a candidate."""

    candidate: str
    trials: int
    days: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check that judges has passed."""
        judged = self.judged
        return bool(judged) and all(check.passed for check in judged)

    @property
    def judged(self) -> tuple[Check, ...]:
        """The checks with a threshold."""
        return tuple(check for check in self.checks if check.passed is not None)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """What the gate is shown: daily net returns (days, trials) of a search and its best.

    ``trials`` is N: all that were ever tried, whatever became of them, from the ledger and from
    nowhere else; ``uncounted`` says why that number cannot be relied on, if so. ``turns`` are the
    columns' places among them, from 1, in the order they were counted. ``stressed`` are the
    candidate's daily returns in harder worlds, by their name.
    """

    returns: Floats
    candidate: int
    trials: int
    name: str = "candidate"
    stressed: Mapping[str, Floats] = field(default_factory=dict)
    uncounted: str = ""
    turns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.trials >= self.returns.shape[1], "every column is a trial, and so was counted"


def gather(
    found: TrialReturns,
    ledger: Ledger,
    *,
    candidate: str | None = None,
    stressed: Mapping[str, Floats] | None = None,
    sealed: tuple[Head, ...] = (),
) -> Evidence:
    """The evidence of a search, held against the ledger; the best trial unless one is named.

    LedgerBroken when the ledger is not whole, when a trial of the study that ended with a result is
    missing from the returns, or when a column is not the one that was sealed.
    """
    history = ledger.history((found.head, *sealed))
    results = history.results(found.study)
    for trial in results:
        if trial not in found.trials:
            raise LedgerBroken(f"the returns of {found.study} lack trial {trial}, which has ended")
    for trial, column in zip(found.trials, found.returns.T, strict=True):
        if trial not in results:
            raise LedgerBroken(f"the ledger knows no result of trial {trial} of {found.study}")
        if returns_hash(column) != results[trial].returns_hash:
            raise LedgerBroken(f"the returns of trial {trial} are not those it ended with")
    if candidate is not None and candidate not in found.trials:
        raise UnknownName("trial", candidate, found.trials)
    returns = found.returns.astype(np.float64)
    place = int(sharpes(returns).argmax()) if candidate is None else found.trials.index(candidate)
    turns = history.turns
    return Evidence(
        returns=returns,
        candidate=place,
        trials=history.count,
        name=found.trials[place],
        stressed=stressed or {},
        turns=tuple(turns[trial] for trial in found.trials),
    )


def judge(evidence: Evidence, asked: Thresholds | None = None) -> Verdict:
    """The verdict on a candidate. Equal evidence and thresholds give an equal verdict."""
    asked = asked or Thresholds()
    sample = sample_of(evidence.returns[:, evidence.candidate])
    return Verdict(
        candidate=evidence.name,
        trials=evidence.trials,
        days=len(evidence.returns),
        checks=(
            _counted(evidence),
            *_luck(evidence, sample, asked),
            *_selection(evidence, asked),
            *_rivals(evidence, asked),
            *_stress(evidence, asked),
            *_told(evidence, sample, asked),
        ),
    )


def trial_variance(returns: Floats, sample: Sample) -> float:
    """Variance of Sharpe ratios across trials that the deflation uses.

    At least that of one estimate without skill: trials that resemble each other spread little
    around a luck they share, and their own spread would take that luck for skill.
    """
    ratios = sharpes(returns)
    varying = ratios[ratios != 0.0]
    across = float(varying.var(ddof=1)) if len(varying) > 1 else 0.0
    return max(across, sample.error(0.0) ** 2)


def _check(name: str, value: float | None, side: Side, threshold: float, why: str) -> Check:
    passed = (
        value is not None
        and {
            Side.AT_LEAST: value >= threshold,
            Side.AT_MOST: value <= threshold,
            Side.ABOVE: value > threshold,
        }[side]
    )
    return Check(name=name, value=value, side=side, threshold=threshold, passed=passed, why=why)


def _counted(evidence: Evidence) -> Check:
    """Was it counted before its result was known?"""
    why = evidence.uncounted or "whole, and the candidate was counted before its result was known"
    return _check("in the ledger", float(not evidence.uncounted), Side.AT_LEAST, 1.0, why)


def _luck(evidence: Evidence, sample: Sample | None, asked: Thresholds) -> Iterator[Check]:
    """Is the Sharpe ratio more than time and the number of trials explain?"""
    days, trials = len(evidence.returns), evidence.trials
    if sample is None:
        why = "its returns have no variance, or are too few"
        yield _check("deflated Sharpe", None, Side.AT_LEAST, asked.dsr_min, why)
        return
    variance = trial_variance(evidence.returns, sample)
    hurdle = expected_maximum(trials, variance) * YEAR
    yield _check(
        "deflated Sharpe",
        dsr(sample, trials, variance),
        Side.AT_LEAST,
        asked.dsr_min,
        f"Sharpe {sample.sharpe * YEAR:.2f} a year; the best of {trials:,} without skill: "
        f"{hurdle:.2f}",
    )
    hopeless = "" if sample.sharpe > 0 else "a Sharpe that is not above zero proves nothing"
    yield _check(
        "days of track",
        float(days),
        Side.AT_LEAST,
        min_track(sample, level=asked.level),
        hopeless or "what it takes to tell this Sharpe from zero",
    )
    yield _check(
        "years of history",
        days / DAYS_PER_YEAR,
        Side.AT_LEAST,
        min_years(trials, sample.sharpe * YEAR),
        hopeless or f"in fewer, the best of {trials:,} without skill would show this Sharpe",
    )


def _selection(evidence: Evidence, asked: Thresholds) -> Iterator[Check]:
    """Does the choice of the best hold on days that did not make it?"""
    if evidence.trials == 1:
        why = "one trial was ever made: nothing was chosen"
        yield Check(name="overfitting (PBO)", value=None, why=why)
        return
    days, columns = evidence.returns.shape
    if columns < 2 or days < 2 * asked.blocks:
        why = (
            f"two trials and {2 * asked.blocks} days are needed, there are {columns} and {days}: "
            "whether the choice holds cannot be told"
        )
        yield _check("overfitting (PBO)", None, Side.AT_MOST, asked.pbo_max, why)
        return
    found: Overfitting = overfitting(evidence.returns, asked.blocks)
    why = f"{len(found.logits):,} ways to choose on half of the days; no skill gives about 0.5"
    yield _check("overfitting (PBO)", found.probability, Side.AT_MOST, asked.pbo_max, why)
    yield Check(name="loss after choice", value=found.loss, why="share of those ways that lose")
    yield Check(name="slope after choice", value=found.slope, why="outside on inside; falls if < 0")


def _rivals(evidence: Evidence, asked: Thresholds) -> Iterator[Check]:
    """Is the best of all trials better than doing nothing, and is it this one?"""
    found: Superiority | None = superiority(
        evidence.returns,
        rng=np.random.default_rng(asked.seed),
        block=block_length(evidence.returns[:, [evidence.candidate]]),
        draws=asked.draws,
        level=asked.level,
    )
    if found is None:
        why = "no trial has returns that vary"
        yield _check("superiority (SPA)", None, Side.AT_MOST, asked.spa_max, why)
        return
    yield _check(
        "superiority (SPA)",
        found.consistent,
        Side.AT_MOST,
        asked.spa_max,
        f"chance to look so if no trial earns; lower {found.lower:.3f}, upper {found.upper:.3f}",
    )
    named = evidence.candidate in found.winners
    yield _check(
        "named by StepM",
        float(named),
        Side.AT_LEAST,
        1.0,
        f"it tells {len(found.winners):,} of {evidence.returns.shape[1]:,} trials from luck",
    )
    yield Check(name="reality check", value=found.reality_check, why="White's p-value")


def _stress(evidence: Evidence, asked: Thresholds) -> Iterator[Check]:
    """Does it still earn in harder worlds?"""
    for name in dict.fromkeys((*asked.worlds, *evidence.stressed)):
        returns = evidence.stressed.get(name)
        if returns is None:
            yield _check(name, None, Side.ABOVE, 0.0, "not shown: it was not replayed so")
            continue
        sample = sample_of(returns)
        ratio = None if sample is None else sample.sharpe * YEAR
        why = "its Sharpe a year, replayed in this world"
        if name in asked.worlds:
            yield _check(name, ratio, Side.ABOVE, 0.0, why)
        else:
            yield Check(name=name, value=ratio, why=why)


def _told(evidence: Evidence, sample: Sample | None, asked: Thresholds) -> Iterator[Check]:
    """Figures beside the verdict."""
    trials = evidence.trials
    yield from _alike(evidence)
    if sample is None:
        return
    variance = trial_variance(evidence.returns, sample)
    yield Check(name="Sharpe a year", value=sample.sharpe * YEAR, why="daily, times sqrt(365)")
    yield Check(name="PSR", value=psr(sample), why="above zero, as if it were the only trial")
    yield Check(
        name="deflated Sharpe 2014", value=dsr_2014(sample, trials, variance), why="too strict"
    )
    yield Check(
        name="days of track 2012",
        value=min_track_2012(sample, level=asked.level),
        why="the error at the estimate, not at nothing",
    )
    yield from _believed(sample, asked)
    for correction, ratio in _haircuts(evidence, sample).items():
        yield Check(name=f"haircut, {correction}", value=ratio, why="Sharpe a year that is left")
    if evidence.turns:
        yield from _online(evidence, asked)


def _alike(evidence: Evidence) -> Iterator[Check]:
    """How many different things were tried. Beside the verdict: to choose how trials are counted
    after their results would be one more way to be lucky."""
    counted = f"of {evidence.trials:,}; the gate counts all"
    by_rank = effective_trials(evidence.returns)
    yield Check(name="effective trials, by rank", value=by_rank, why=counted)
    found = clusters(evidence.returns)
    if found is None:
        why = "no clusters stand apart"
        yield Check(name="effective trials, by clusters", value=None, why=why)
        return
    told = "" if len(found) == evidence.returns.shape[1] else f"among {len(found):,} "
    value = float(len(np.unique(found)))
    yield Check(name="effective trials, by clusters", value=value, why=told + counted)


def _online(evidence: Evidence, asked: Thresholds) -> Iterator[Check]:
    """Had every trial been a test in its turn, would this one have been a discovery?

    A trial without returns is a test that found nothing. LORD++ takes tests for independent, LOND
    bears with those that rise and fall together.
    """
    days = len(evidence.returns)
    p_values = np.ones(evidence.trials)
    p_values[np.array(evidence.turns) - 1] = [
        p_value_above(ratio, days) for ratio in sharpes(evidence.returns)
    ]
    turn = evidence.turns[evidence.candidate]
    for name, levels in (("LORD++", lord_levels), ("LOND", lond_levels)):
        level = float(levels(p_values.tolist(), asked.level)[turn - 1])
        yield Check(
            name=f"online FDR, {name}",
            value=float(p_values[turn - 1]) / level,
            why=f"p-value over what trial {turn:,} may spend ({level:.1e}); a discovery if at most "
            "1",
        )


def _believed(sample: Sample, asked: Thresholds) -> Iterator[Check]:
    """What a Sharpe ratio is worth where few have any skill, as if it were the only trial."""
    skill = asked.skill / YEAR
    found = power(sample, skill, level=asked.level)
    of_those = f"if {asked.prior:.0%} of all have {asked.skill:g} a year"
    yield Check(
        name="power",
        value=found,
        why=f"chance to find a Sharpe of {asked.skill:g} a year in so many days",
    )
    yield Check(
        name="planned FDR",
        value=planned_fdr(asked.prior, asked.level, found),
        why=f"of what such a test finds, the share without skill, {of_those}",
    )
    yield Check(
        name="observed FDR",
        value=observed_fdr(sample, skill, asked.prior),
        why=f"chance that this one has no skill, {of_those}",
    )


def _haircuts(evidence: Evidence, sample: Sample) -> dict[str, float]:
    """Annual Sharpe ratio left by each correction, if there is any to begin with.

    A trial without returns counts with p = 1.
    """
    if sample.sharpe <= 0:
        return {}
    days = len(evidence.returns)
    ratios = sharpes(evidence.returns)
    p_values = np.ones(evidence.trials)
    p_values[: len(ratios)] = [p_value(ratio, days) for ratio in ratios]
    return {
        str(correction): YEAR
        * haircut(sample.sharpe, float(adjusted(p_values, correction)[evidence.candidate]), days)
        for correction in Correction
    }
