"""A stretch of history traded by itself: features warm before it begins, books flat at its edges.

What is judged must owe nothing to a position from before it, and leave none to what comes after.
The replay begins earlier, but the gate is told to let positions only shrink until the stretch
begins; one bar before its end every book is closed, at its costs. So the equity of stretches, each
starting with what the last one left, is one curve.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backtest.replay import Source, replay_block
from backtest.run import Run, beyond
from backtest.statistics import daily_returns, max_drawdown, sharpe, sortino
from backtest.sweep.rows import Row, rank_key
from backtest.sweep.sweep import Subject
from core.errors import ConfigError, DataError, UnknownName
from core.events import command_event
from core.model import EVENT, OUTCOME, TRACK, Command, Kind, Records, joined
from markets.history import History, crop, in_order, merge, stack

Piece = tuple[int, int]
"""A part of history without a gap: what was known in (begin_ms, end_ms], unix ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Replay what was known in (warm_ms, end_ms], trade in (begin_ms, end_ms]; unix ms."""

    warm_ms: int
    begin_ms: int
    end_ms: int


def parted(subject: Subject, held_out: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Instruments to fit on, and to trade; ConfigError when one of them has none."""
    traded = {e.book.instrument for e in subject.setup.books if e.book.name in subject.books}
    for name in held_out:
        if name not in traded:
            raise UnknownName("instrument to hold out", name, traded)
    kept = frozenset(traded.difference(held_out))
    if not kept:
        raise ConfigError("holding these instruments out leaves none to fit on")
    return kept, frozenset(held_out) or kept


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


def best_of(rows: Iterable[Row], metric: str) -> Row | None:
    """The best row, the earlier of equals; None when the figure is undefined for every one."""
    key = rank_key(metric)
    best = min(rows, key=key, default=None)
    return None if best is None or best.metrics.get(metric) is None else best


def trade(
    subject: Subject,
    names: Collection[str],
    stretch: Stretch,
    params: Mapping[str, float] | None,
    equity: float,
) -> Run:
    """The stretch on these instruments, from ``equity`` in quote; without ``params`` nothing is
    traded. Answers the part of its replay after ``begin_ms``."""
    seen = within(subject, stretch.warm_ms, stretch.end_ms, names)
    setup = replace(seen.at(params or {}), equity=equity)
    places = [instrument.name for instrument in setup.instruments]
    books = [(b, places.index(entry.book.instrument)) for b, entry in enumerate(setup.books)]
    histories = [seen.histories[name] for name in places]
    run = replay_block(
        setup,
        staged(merge(histories), stretch, books, trades=params is not None),
        {name: history.fields for name, history in seen.histories.items()},
        Source(digests={name: history.digest for name, history in seen.histories.items()}),
    )
    judged = beyond(run, stretch.begin_ms)
    if judged is None:
        raise DataError("a stretch without an event cannot be traded")
    return judged


def staged(
    block: Records, stretch: Stretch, places: Sequence[tuple[int, int]], *, trades: bool = True
) -> Records:
    """The events of a replay with an operator's words among them: only shrink, resume when the
    stretch begins, and close every book (place of the book, of its instrument) in time for its
    last bar. Without ``trades`` the word to resume is never said."""
    known = block["ts_known"]
    bars = known[(block["kind"] == Kind.BAR) & (known > stretch.begin_ms)]
    # said before a bar is seen, a word takes effect at the open of the next one: the last
    closing = int(np.unique(bars)[:-1].max(initial=stretch.begin_ms))
    said = [
        command_event(Command.REDUCE_ONLY, min(int(known[0]), stretch.begin_ms) - 1),
        *([command_event(Command.RESUME, stretch.begin_ms)] if trades else []),
        command_event(Command.REDUCE_ONLY, closing),
        *(command_event(Command.CLOSE, closing, book, instrument) for book, instrument in places),
    ]
    return in_order(stack([block, *said]))


def ended_flat(run: Run) -> bool:
    """Whether it ended without a position; else what was left is marked, not closed."""
    return bool(run.track["notional_micros"][-1] == 0)


def stitched(runs: Sequence[Run]) -> Run:
    """Runs of stretches as one: their events, track, outcomes. Numbers of decisions begin anew in
    every one, so only what is read off the equity holds across them."""
    return replace(
        runs[0],
        block=joined([run.block for run in runs], EVENT),
        track=joined([run.track for run in runs], TRACK),
        outcomes=joined([run.outcomes for run in runs], OUTCOME),
    )


def hash_of(runs: Iterable[Run]) -> str:
    """Hex digest over every run's ``decisions_hash``."""
    text = "".join(run.decisions_hash for run in runs)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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
