"""Walk forward: choose parameters on the past, trade them on what follows, again and again.

Each window is fitted by a sweep that sees nothing after its training, then traded as a stretch of
its own, warm since its training began, by the very loop that trades live.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from backtest.run import Run
from backtest.splits import Spans, walk_forward
from backtest.statistics import daily_equity
from backtest.stretches import (
    Stretch,
    best_of,
    ended_flat,
    figures_of,
    hash_of,
    parted,
    stitched,
    trade,
    within,
)
from backtest.sweep.rows import Row, rank_key
from backtest.sweep.sweep import Subject
from core.errors import ConfigError
from core.model import MICROS_PER_UNIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a walk goes. ``purge_ms``: how long after it an observation still bears on what follows;
    what bears on the ``embargo_ms`` before a window, or on the window, is not fitted on.

    ``held_out`` instruments are traded in the windows and never fitted on; the others the reverse.
    """

    train_ms: int
    test_ms: int
    anchored: bool = False
    purge_ms: int = 0
    embargo_ms: int = 0
    metric: str = "sharpe"
    held_out: tuple[str, ...] = ()

    @property
    def lengths(self) -> dict[str, float]:
        """The lengths, as the parameters of the walk that they are."""
        names = ("train_ms", "test_ms", "purge_ms", "embargo_ms")
        return {name: float(getattr(self, name)) for name in names}

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Fit on what was known in (train_begin_ms, train_end_ms], trade in (begin_ms, end_ms]; unix
    ms."""

    train_begin_ms: int
    train_end_ms: int
    begin_ms: int
    end_ms: int

    @property
    def stretch(self) -> Stretch:
        """What is traded."""
        return Stretch(warm_ms=self.train_begin_ms, begin_ms=self.begin_ms, end_ms=self.end_ms)

    def plain(self) -> dict[str, int]:
        """As plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def cuts_of(subject: Subject, terms: Terms) -> list[Cut]:
    """The windows of a walk over these histories; what is not known yet does not move them.

    ConfigError when history is too short for one, or an embargo leaves nothing to fit on.
    """
    rank_key(terms.metric)
    parted(subject, terms.held_out)
    bars = [history.bars for history in subject.histories.values()]
    opens = np.concatenate([each["ts_event"] for each in bars])
    known = np.concatenate([each["ts_known"] for each in bars])
    spans = Spans(opens, known + terms.purge_ms)
    steps = walk_forward(
        spans,
        train_ms=terms.train_ms,
        test_ms=terms.test_ms,
        anchored=terms.anchored,
        embargo_ms=terms.embargo_ms,
    )
    found: list[Cut] = []
    for step in steps:
        fitted, judged = known[step.split.train], known[step.split.test]
        if len(fitted) and len(np.unique(judged)) > 1:
            last = int(fitted.max())
            found.append(
                Cut(
                    train_begin_ms=step.train_begin_ms,
                    train_end_ms=last,
                    begin_ms=step.begin_ms,
                    end_ms=step.end_ms,
                )
            )
    if not found:
        raise ConfigError(
            "no window has bars both to fit on and to trade: the history is too short"
        )
    return found


def fitted_on(subject: Subject, cut: Cut, terms: Terms) -> Subject:
    """What the fit of a window sees."""
    names, _ = parted(subject, terms.held_out)
    return within(subject, cut.train_begin_ms, cut.train_end_ms, names)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A window that was traded. ``fit`` is the row it was traded with, None when no row's figure
    was defined: then nothing was traded. ``run`` is the part of its replay after ``begin_ms``."""

    cut: Cut
    fit: Row | None
    run: Run

    @property
    def figures(self) -> dict[str, float | None]:
        """Figures out of sample, as those of a sweep's rows."""
        return figures_of(self.run)

    @property
    def flat(self) -> bool:
        """Whether it ended without a position; else what was left is marked, not closed."""
        return ended_flat(self.run)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **self.cut.plain(),
            "params": None if self.fit is None else dict(self.fit.params),
            "in_sample": None if self.fit is None else dict(self.fit.metrics),
            "out_of_sample": self.figures,
            "flat": self.flat,
            "decisions_hash": self.run.decisions_hash,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Walk:
    """A walk that is done. ``ruined`` when equity was gone before its last window."""

    terms: Terms
    windows: tuple[Window, ...]
    ruined: bool

    @cached_property
    def stitched(self) -> Run:
        """The windows as one run, for what is read off its equity."""
        return stitched([window.run for window in self.windows])

    @property
    def decisions_hash(self) -> str:
        """Hex digest over every window's."""
        return hash_of(window.run for window in self.windows)

    @property
    def row(self) -> Row:
        """The walk as one trial: what all of it gave out of sample."""
        daily = np.round(daily_equity(self.stitched) * MICROS_PER_UNIT).astype(np.int64)
        return Row(
            place=0,
            params=self.terms.lengths,
            metrics=figures_of(self.stitched),
            decisions_hash=self.decisions_hash,
            daily_micros=daily,
        )

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "terms": self.terms.plain(),
            "windows": [window.plain() for window in self.windows],
            "out_of_sample": figures_of(self.stitched),
            "ruined": self.ruined,
            "decisions_hash": self.decisions_hash,
        }


def walk(subject: Subject, terms: Terms, cuts: Sequence[Cut], fits: Iterable[Row | None]) -> Walk:
    """Trade each window with what was fitted for it; ``fits`` come in the order of ``cuts``."""
    windows: list[Window] = []
    equity = subject.setup.equity
    _, names = parted(subject, terms.held_out)
    for cut, fit in zip(cuts, fits, strict=True):
        if equity <= 0:
            return Walk(terms=terms, windows=tuple(windows), ruined=True)
        params = None if fit is None else fit.params
        run = trade(subject, names, cut.stretch, params, equity)
        windows.append(Window(cut=cut, fit=fit, run=run))
        equity = float(run.equity[-1])
    return Walk(terms=terms, windows=tuple(windows), ruined=False)


def fits_here(
    subject: Subject,
    terms: Terms,
    cuts: Sequence[Cut],
    rows_of: Callable[[Subject], Iterable[Row]],
) -> Iterator[Row | None]:
    """The fit of each window, one after the other; ``rows_of`` sweeps what a fit may see."""
    for cut in cuts:
        yield best_of(rows_of(fitted_on(subject, cut, terms)), terms.metric)


def stability(windows: Sequence[Window]) -> Mapping[str, list[float | None]]:
    """Values of every parameter, one a window."""
    names = dict.fromkeys(name for w in windows if w.fit is not None for name in w.fit.params)
    return {
        name: [None if w.fit is None else float(w.fit.params[name]) for w in windows]
        for name in names
    }
