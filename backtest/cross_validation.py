"""Combinatorial purged cross-validation: many paths through one history, each out of sample.

A walk forward tells one story, and one story may be luck. Here history is cut into groups, and
every choice of some of them is traded with what a search over all the others found best; put
together, these make several whole paths. Fits see what lies after a test as well as before it, so a
path is no account that could have been traded: it is a sample of what such a search gives where it
has not looked. Source: López de Prado, "Advances in Financial Machine Learning" (2018), chapter 12.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.run import Run
from backtest.splits import Combinatorial, Spans, combinatorial
from backtest.statistics import daily_equity, daily_returns, returns_of, sharpe, sortino
from backtest.stretches import (
    Piece,
    Stretch,
    best_of,
    figures_of,
    hash_of,
    parted,
    stitched,
    trade,
    within,
)
from backtest.sweep.rows import Row
from backtest.sweep.space import Point
from backtest.sweep.sweep import GROUP, Subject
from core.errors import ConfigError, UnknownName
from core.model import MICROS_PER_UNIT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Swept = Callable[[Sequence[Piece], Sequence[Point]], Iterable[Sequence[Row]]]
"""The rows of combinations over each of these pieces, in their order."""

POOLED = ("sharpe", "sortino", "return")
"""Figures that the daily returns of several pieces have together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How history is cut: ``tests`` of ``groups`` are judged at a time. ``purge_ms``: how long
    after it an observation still bears on what follows; what bears on a test group, is borne on by
    it, or begins within ``embargo_ms`` after that, is not fitted on.

    ``held_out`` instruments are traded in the test groups and never fitted on; the others the
    reverse.
    """

    groups: int = 6
    tests: int = 2
    purge_ms: int = 0
    embargo_ms: int = 0
    metric: str = "sharpe"
    held_out: tuple[str, ...] = ()

    @property
    def lengths(self) -> dict[str, float]:
        """The numbers, as the parameters of the search that they are."""
        names = ("groups", "tests", "purge_ms", "embargo_ms")
        return {name: float(getattr(self, name)) for name in names}

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One split: the groups it judges, and the pieces it is fitted on."""

    tests: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Every group as it is traded, every split, and ``paths``, shape (paths, groups): the split
    that judges a group on a path."""

    groups: tuple[Stretch, ...]
    cuts: tuple[Cut, ...]
    paths: Ints

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Every piece that some split is fitted on, once."""
        return tuple(sorted({piece for cut in self.cuts for piece in cut.pieces}))


def plan_of(subject: Subject, terms: Terms) -> Plan:
    """The cuts of these histories by event time. A group is warmed over the one before it.

    ConfigError when history is too short, or purge and embargo leave a split nothing to fit on.
    """
    if terms.metric not in POOLED:
        raise UnknownName("metric over several pieces of history", terms.metric, POOLED)
    parted(subject, terms.held_out)
    bars = [history.bars for history in subject.histories.values()]
    opens = np.concatenate([each["ts_event"] for each in bars])
    known = np.concatenate([each["ts_known"] for each in bars])
    found = combinatorial(
        Spans(opens, known + terms.purge_ms),
        groups=terms.groups,
        tests=terms.tests,
        embargo_ms=terms.embargo_ms,
    )
    members = [found.groups == g for g in range(terms.groups)]
    if min(len(np.unique(known[mine])) for mine in members) < 2:
        raise ConfigError(f"{terms.groups} groups leave some with less than two bars: take fewer")
    begins = [int(opens[mine].min()) for mine in members]
    return Plan(
        groups=tuple(
            Stretch(warm_ms=warm, begin_ms=begin, end_ms=end)
            for warm, begin, end in zip(
                [begins[0], *begins[:-1]], begins, [*begins[1:], int(known.max())], strict=True
            )
        ),
        cuts=tuple(_cut(found, place, opens, known) for place in range(len(found.tested))),
        paths=found.paths,
    )


def _cut(found: Combinatorial, place: int, opens: Ints, known: Ints) -> Cut:
    tests, train = found.tested[place], found.split(place).train
    mine, pieces = found.groups[train], []
    for first, last in _runs(range(len(found.paths[0])), tests):
        kept = train[(mine >= first) & (mine <= last)]
        if len(kept):
            pieces.append((int(opens[kept].min()), int(known[kept].max())))
    if not pieces:
        raise ConfigError("purge and embargo leave a split nothing to fit on: make them shorter")
    return Cut(tests=tests, pieces=tuple(pieces))


def _runs(groups: range, tests: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of every run of neighbours that are not tested."""
    for tested, run in groupby(groups, lambda group: group in tests):
        if not tested:
            neighbours = list(run)
            yield neighbours[0], neighbours[-1]


def pooled(days: Sequence[Floats]) -> dict[str, float | None]:
    """Figures of the daily returns of several pieces, taken one after the other; each began with
    the whole equity."""
    every = np.concatenate(days)
    left = np.maximum(1.0 + np.nan_to_num(every), 0.0)
    return {
        "sharpe": sharpe(every),
        "sortino": sortino(every),
        "return": math.prod(left.tolist()) - 1.0,
    }


def swept_here(
    subject: Subject,
    terms: Terms,
    rows_of: Callable[[Subject, Sequence[Point]], Iterable[Row]],
) -> Swept:
    """Sweeps one piece after the other; ``rows_of`` sweeps what a fit may see."""
    names, _ = parted(subject, terms.held_out)

    def swept(pieces: Sequence[Piece], points: Sequence[Point]) -> Iterator[Sequence[Row]]:
        for piece in pieces:
            yield list(rows_of(within(subject, *piece, names), points))

    return swept


def fits_of(
    subject: Subject, terms: Terms, plan: Plan, points: Sequence[Point], swept: Swept
) -> list[Row | None]:
    """The best combination of each split, by its daily returns over all pieces of the split.

    A piece that several splits share is swept once. None where no combination's figure is defined.
    """
    best: list[Row | None] = [None] * len(plan.cuts)
    for at in range(0, len(points), GROUP):
        some = points[at : at + GROUP]
        rows_of = dict(zip(plan.pieces, swept(plan.pieces, some), strict=True))
        for place, cut in enumerate(plan.cuts):
            parts = zip(*(rows_of[piece] for piece in cut.pieces), strict=True)
            rows = [_pool(at + k, each, subject.setup.equity) for k, each in enumerate(parts)]
            known = best[place]
            best[place] = best_of(rows if known is None else [known, *rows], terms.metric)
    return best


def _pool(place: int, parts: Sequence[Row], equity: float) -> Row:
    """Rows of one combination as one; of one that failed anywhere, without figures."""
    failed = next((row.error for row in parts if row.error is not None), None)
    if failed is not None:
        return Row(place=place, params=parts[0].params, error=failed)
    days = [returns_of(row.daily_micros / MICROS_PER_UNIT, equity) for row in parts]
    trades = sum(row.metrics["trades"] or 0 for row in parts)
    return Row(place=place, params=parts[0].params, metrics={**pooled(days), "trades": trades})


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """The groups one after the other, each with what its split was fitted to; fewer ``runs`` than
    there are groups when the equity was gone before the last."""

    runs: tuple[Run, ...]

    @cached_property
    def whole(self) -> Run:
        """The path as one run, for what is read off its equity."""
        return stitched(self.runs)

    @cached_property
    def figures(self) -> dict[str, float | None]:
        """Figures of the whole path."""
        return figures_of(self.whole)


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossValidation:
    """A cross-validation that is done. ``fits`` are one a split, None where nothing was traded."""

    terms: Terms
    plan: Plan
    fits: tuple[Row | None, ...]
    paths: tuple[Path, ...]

    @cached_property
    def outside(self) -> tuple[dict[str, float | None], ...]:
        """Figures of every split over its test groups, pooled as those of its fit are; empty where
        equity was gone before one of them."""
        found = []
        for place, cut in enumerate(self.plan.cuts):
            # a split judges each of its groups on one path
            at = [(int((self.plan.paths[:, g] == place).argmax()), g) for g in cut.tests]
            known = [self.paths[p].runs[g] for p, g in at if g < len(self.paths[p].runs)]
            whole = len(known) == len(at)
            found.append(pooled([daily_returns(run) for run in known]) if whole else {})
        return tuple(found)

    @property
    def pairs(self) -> list[tuple[float, float, int]]:
        """The metric inside and outside of every split where both are defined, and which split."""
        metric, found = self.terms.metric, []
        for place, (fit, outside) in enumerate(zip(self.fits, self.outside, strict=True)):
            inside = None if fit is None else fit.metrics.get(metric)
            judged = outside.get(metric)
            if inside is not None and judged is not None:
                found.append((inside, judged, place))
        return found

    def spread(self, name: str) -> tuple[float, float, float] | None:
        """Lowest, median and highest of a figure over the paths; None when one has none."""
        known = [value for path in self.paths if (value := path.figures[name]) is not None]
        if len(known) < len(self.paths):
            return None
        return min(known), float(np.median(known)), max(known)

    @property
    def row(self) -> Row:
        """All of it as one trial: an account divided equally over the paths."""
        each = [np.round(daily_equity(path.whole) * MICROS_PER_UNIT) for path in self.paths]
        days = max(map(len, each))
        # a path that ended early stays where it ended
        held = [np.pad(daily, (0, days - len(daily)), mode="edge") for daily in each]
        shared: Ints = np.round(np.stack(held).mean(axis=0)).astype(np.int64)
        return Row(
            place=0,
            params=self.terms.lengths,
            decisions_hash=self.decisions_hash,
            daily_micros=shared,
        )

    @property
    def decisions_hash(self) -> str:
        """Hex digest over every group of every path."""
        return hash_of(run for path in self.paths for run in path.runs)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        names = ("lowest", "median", "highest")
        spreads = {name: self.spread(name) for name in ("sharpe", "return", "max_drawdown")}
        return {
            "terms": self.terms.plain(),
            "splits": [self._told(place) for place in range(len(self.plan.cuts))],
            "paths": [
                {**path.figures, "splits": self.plan.paths[k].tolist()}
                for k, path in enumerate(self.paths)
            ],
            "spread": {
                name: None if found is None else dict(zip(names, found, strict=True))
                for name, found in spreads.items()
            },
            "ruined": sum(len(path.runs) < len(self.plan.groups) for path in self.paths),
            "decisions_hash": self.decisions_hash,
        }

    def _told(self, place: int) -> dict[str, Any]:
        cut, fit = self.plan.cuts[place], self.fits[place]
        return {
            "tests": list(cut.tests),
            "pieces": [list(piece) for piece in cut.pieces],
            "params": None if fit is None else dict(fit.params),
            "in_sample": None if fit is None else dict(fit.metrics),
            "out_of_sample": self.outside[place],
        }


def cross_validate(
    subject: Subject, terms: Terms, plan: Plan, fits: Sequence[Row | None]
) -> CrossValidation:
    """Trade every group of every path with what was fitted for it, ``fits`` one a split."""
    return CrossValidation(
        terms=terms,
        plan=plan,
        fits=tuple(fits),
        paths=tuple(
            Path(runs=tuple(_walked(subject, terms, plan, [fits[k] for k in splits])))
            for splits in plan.paths.tolist()
        ),
    )


def _walked(
    subject: Subject, terms: Terms, plan: Plan, fits: Sequence[Row | None]
) -> Iterator[Run]:
    """The groups of a path, each with what the last one left."""
    _, names = parted(subject, terms.held_out)
    equity = subject.setup.equity
    for stretch, fit in zip(plan.groups, fits, strict=True):
        if equity <= 0:
            return
        run = trade(subject, names, stretch, None if fit is None else fit.params, equity)
        equity = float(run.equity[-1])
        yield run
