"""Walk forward: choose parameters on the past, trade them on what follows, again and again.

Each window is fitted by a sweep that sees nothing after its training, then replayed by the very
loop that trades live. The replay begins where the training begins, so that features are warm, but
the gate is told to let positions only shrink until the window begins; one bar before its end every
book is closed, at its costs. So a window starts and ends flat, and the windows' equity, each
starting with what the last one left, is one curve.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.replay import Source, replay_block
from backtest.run import Run, beyond
from backtest.splits import Spans, walk_forward
from backtest.statistics import daily_equity, daily_returns, max_drawdown, sharpe, sortino
from backtest.sweep.rows import Row, rank_key
from backtest.sweep.sweep import Subject
from core.errors import ConfigError, DataError, UnknownName
from core.model import EVENT, MICROS_PER_UNIT, OUTCOME, TRACK, Command, Kind, Records, joined
from markets.history import History, crop, in_order, make_events, merge, stack

Ints = NDArray[np.int64]


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

    def plain(self) -> dict[str, int]:
        """As plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def cuts_of(subject: Subject, terms: Terms) -> list[Cut]:
    """The windows of a walk over these histories; what is not known yet does not move them.

    ConfigError when history is too short for one, or an embargo leaves nothing to fit on.
    """
    rank_key(terms.metric)
    parted(subject, terms)
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


def parted(subject: Subject, terms: Terms) -> tuple[frozenset[str], frozenset[str]]:
    """Instruments to fit on, and to trade; ConfigError when one of them has none."""
    traded = {e.book.instrument for e in subject.setup.books if e.book.name in subject.books}
    for name in terms.held_out:
        if name not in traded:
            raise UnknownName("instrument to hold out", name, traded)
    kept = frozenset(traded.difference(terms.held_out))
    if not kept:
        raise ConfigError("holding these instruments out leaves none to fit on")
    return kept, frozenset(terms.held_out) or kept


def within(subject: Subject, begin_ms: int, end_ms: int, names: Collection[str]) -> Subject:
    """The subject on these instruments and this stretch, without those that have no bar in it.

    DataError when none has.
    """
    histories: dict[str, History] = {}
    missing: DataError | None = None
    for name in (instrument.name for instrument in subject.setup.instruments):
        if name in names:
            try:
                histories[name] = crop(subject.histories[name], begin_ms, end_ms)
            except DataError as error:
                missing = error
    if not histories:
        raise missing or DataError("no instrument is left")
    books = tuple(e for e in subject.setup.books if e.book.instrument in histories)
    terms = tuple(i for i in subject.setup.instruments if i.name in histories)
    return replace(
        subject,
        setup=replace(subject.setup, instruments=terms, books=books),
        books=frozenset(entry.book.name for entry in books) & subject.books,
        histories=histories,
    )


def fitted_on(subject: Subject, cut: Cut, terms: Terms) -> Subject:
    """What the fit of a window sees."""
    names, _ = parted(subject, terms)
    return within(subject, cut.train_begin_ms, cut.train_end_ms, names)


def best_of(rows: Iterable[Row], metric: str) -> Row | None:
    """The best row, the earlier of equals; None when the figure is undefined for every one."""
    key = rank_key(metric)
    best = min(rows, key=key, default=None)
    return None if best is None or best.metrics.get(metric) is None else best


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
        return bool(self.run.track["notional_micros"][-1] == 0)

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
        """The windows as one run: its events, its track, its outcomes. Numbers of decisions begin
        anew in every window, so only what is read off the equity holds across them."""
        runs = [window.run for window in self.windows]
        return replace(
            runs[0],
            block=joined([run.block for run in runs], EVENT),
            track=joined([run.track for run in runs], TRACK),
            outcomes=joined([run.outcomes for run in runs], OUTCOME),
        )

    @property
    def decisions_hash(self) -> str:
        """Hex digest over every window's."""
        text = "".join(window.run.decisions_hash for window in self.windows)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

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


def figures_of(run: Run) -> dict[str, float | None]:
    """What is read off a run's equity, and how many trades ended in it."""
    returns, last = daily_returns(run), float(run.equity[-1])
    return {
        "return": last / run.equity_start - 1.0,
        "net_pnl": last - run.equity_start,
        "sharpe": sharpe(returns),
        "sortino": sortino(returns),
        "max_drawdown": max_drawdown(run),
        "trades": len(run.trades),
    }


def walk(subject: Subject, terms: Terms, cuts: Sequence[Cut], fits: Iterable[Row | None]) -> Walk:
    """Trade each window with what was fitted for it; ``fits`` come in the order of ``cuts``."""
    windows: list[Window] = []
    equity = subject.setup.equity
    for cut, fit in zip(cuts, fits, strict=True):
        if equity <= 0:
            return Walk(terms=terms, windows=tuple(windows), ruined=True)
        windows.append(_trade(subject, terms, cut, fit, equity))
        equity = float(windows[-1].run.equity[-1])
    return Walk(terms=terms, windows=tuple(windows), ruined=False)


def _trade(subject: Subject, terms: Terms, cut: Cut, fit: Row | None, equity: float) -> Window:
    _, names = parted(subject, terms)
    seen = within(subject, cut.train_begin_ms, cut.end_ms, names)
    setup = replace(seen.at({} if fit is None else fit.params), equity=equity)
    histories = [seen.histories[instrument.name] for instrument in setup.instruments]
    places = [
        (b, [i.name for i in setup.instruments].index(entry.book.instrument))
        for b, entry in enumerate(setup.books)
    ]
    run = replay_block(
        setup,
        staged(merge(histories), cut, places, trades=fit is not None),
        {name: history.fields for name, history in seen.histories.items()},
        Source(digests={name: history.digest for name, history in seen.histories.items()}),
    )
    judged = beyond(run, cut.begin_ms)
    if judged is None:
        raise DataError("a window without an event cannot be traded")
    return Window(cut=cut, fit=fit, run=judged)


def staged(
    block: Records, cut: Cut, places: Sequence[tuple[int, int]], *, trades: bool = True
) -> Records:
    """The events of a window's replay with an operator's words among them: only shrink, resume when
    the window begins, and close every book (place of the book, of its instrument) in time for its
    last bar. Without ``trades`` the word to resume is never said."""
    known = block["ts_known"]
    bars = known[(block["kind"] == Kind.BAR) & (known > cut.begin_ms)]
    # said before a bar is seen, a word takes effect at the open of the next one: the last
    closing = int(np.unique(bars)[:-1].max(initial=cut.begin_ms))
    said = [
        _said(int(known[0]) - 1, Command.REDUCE_ONLY),
        *([_said(cut.begin_ms, Command.RESUME)] if trades else []),
        _said(closing, Command.REDUCE_ONLY),
        *(_said(closing, Command.CLOSE, book, instrument) for book, instrument in places),
    ]
    return in_order(stack([block, *said]))


def _said(ts: int, word: Command, book: int = 0, instrument: int = 0) -> Records:
    event = make_events(Kind.COMMAND, [ts], command=[float(word)], book=[float(book)])
    event["instrument"] = instrument
    return event


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
