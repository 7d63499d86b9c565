"""The sweep: groups of combinations through the field, each row kept before the next group begins.

A group is so small that its accounts fit in memory however many combinations there are, and so
large that the columns all of them share are folded rarely.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from backtest.assemble import BookSetup, Setup
from backtest.run import config_hash
from backtest.statistics import span_of
from backtest.sweep.field import Field
from backtest.sweep.rows import Row, hash_of, metrics_of
from backtest.sweep.space import Point
from backtest.sweep.store import Store, params_key
from core.compiled import source_digest
from core.errors import DataError
from core.model import Kind
from core.strategy import Strategy
from markets.history import History, merge
from risk.limits import Sizing

GROUP = 1024
"""Combinations that run side by side."""

Progress = Callable[[int], None]
Sizer = Callable[[Strategy, Mapping[str, float]], Sizing]


class Trials(Protocol):
    """Whoever counts trials, a group at a time: told of it before any of its results is known, of
    its results before they are kept, and of rows that an earlier run had kept."""

    def on_trials_begin(self, points: Sequence[Mapping[str, float]]) -> None: ...
    def on_trials_end(self, rows: Sequence[Row]) -> None: ...
    def on_rows_found(self, rows: Sequence[Row]) -> None: ...


class Uncounted:
    """Nobody counts."""

    def on_trials_begin(self, points: Sequence[Mapping[str, float]]) -> None:
        """These combinations are about to run."""

    def on_trials_end(self, rows: Sequence[Row]) -> None:
        """They have run, or failed."""

    def on_rows_found(self, rows: Sequence[Row]) -> None:
        """These ran before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is swept: a setup, the books whose parameters change, and the histories they run over.

    ``sizer`` answers the sizing of a strategy whose parameters decide it, such as rules;
    ``plugin`` is the digest of the file the strategy came from, None when it ships.
    """

    setup: Setup
    books: frozenset[str]
    histories: Mapping[str, History]
    sizer: Sizer | None = None
    plugin: str | None = None

    @property
    def strategy(self) -> Strategy:
        """The one whose parameters are searched."""
        return next(e.book.strategy for e in self.setup.books if e.book.name in self.books)

    @property
    def events(self) -> int:
        """How many events a combination runs over."""
        return sum(len(history.events) for history in self.histories.values())

    def at(self, point: Mapping[str, float]) -> Setup:
        """The setup with these parameters."""
        return replace(self.setup, books=tuple(self._book(e, point) for e in self.setup.books))

    def _book(self, entry: BookSetup, point: Mapping[str, float]) -> BookSetup:
        if entry.book.name not in self.books:
            return entry
        params = {**entry.book.params, **point}
        book = replace(entry.book, params=params)
        sizing = self.sizer(book.strategy, params) if self.sizer is not None else entry.sizing
        return replace(entry, book=book, sizing=sizing)

    def key(self, search: Mapping[str, Any]) -> str:
        """What a sweep is known by: twelve hex digits over all that decides its rows."""
        causes = {**self.causes(), "search": dict(search)}
        return hashlib.sha256(json.dumps(causes, sort_keys=True).encode()).hexdigest()[:12]

    def causes(self) -> dict[str, Any]:
        """Everything beside the combinations that decides a row."""
        return {
            "code": source_digest()[:16],
            "plugin": self.plugin,
            "config": config_hash(self.setup, tell_all=False)[0],
            "books": sorted(self.books),
            "data": {name: history.digest for name, history in sorted(self.histories.items())},
        }


class Sweep:
    """Runs combinations of one subject; ``run`` as often as there are batches of them.

    With a ``store`` every group of rows is on disk before the next begins, and rows that are there
    already are not run again. ``progress`` is told how many bars of how many combinations passed.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        threads: int,
        group: int = GROUP,
        store: Store | None = None,
        search: Mapping[str, Any] | None = None,
        resume: bool = False,
        trials: Trials | None = None,
        progress: Progress | None = None,
    ) -> None:
        names = [instrument.name for instrument in subject.setup.instruments]
        missing = [name for name in names if name not in subject.histories]
        if missing:
            raise DataError(f"no data for instrument {', '.join(missing)}")
        self.subject, self.threads, self._size = subject, threads, group
        self._carried = {name: subject.histories[name].fields for name in names}
        self.block = merge([subject.histories[name] for name in names])
        self._bars = int((self.block["kind"] == Kind.BAR).sum())
        start, end = span_of(self.block)
        self._span_ms = end - start
        self._store, self._trials = store, trials or Uncounted()
        self._progress = progress or (lambda _: None)
        causes = {**subject.causes(), "search": dict(search or {})}
        self.key = subject.key(search or {})
        self.resumed = store.begin(self.key, causes, resume=resume) if store is not None else 0

    def run(self, points: Sequence[Point], first: int = 0) -> Iterator[Row]:
        """The rows of these combinations in order, each group as soon as it is kept; ``first`` is
        the place of the first one."""
        for start in range(0, len(points), self._size):
            yield from self._group(points[start : start + self._size], first + start)

    def _group(self, points: Sequence[Point], first: int) -> list[Row]:
        keys = [params_key(point) for point in points]
        known = self._store.find(self.key, keys) if self._store is not None else {}
        fresh = {key: k for k, key in enumerate(keys) if key not in known}
        if known:
            self._trials.on_rows_found(list(known.values()))
        places = [first + k for k in fresh.values()]
        made = self._run_fresh([points[k] for k in fresh.values()], places) if fresh else []
        self._progress((len(points) - len(fresh)) * len(self.block))
        known.update(zip(fresh, made, strict=True))
        return [replace(known[key], place=first + k) for k, key in enumerate(keys)]

    def _run_fresh(self, points: Sequence[Point], places: Sequence[int]) -> list[Row]:
        """Run and count these. They are kept last: killed in between, they run once more and are
        told with the same result, while a row kept but not told would never be counted."""
        self._trials.on_trials_begin(points)
        made = self._fold(points, places)
        self._trials.on_trials_end(made)
        if self._store is not None:
            self._store.keep(self.key, made)
        return made

    def _fold(self, points: Sequence[Point], places: Sequence[int]) -> list[Row]:
        field = Field([self.subject.at(p) for p in points], self._carried, threads=self.threads)
        field.run(self.block, lambda events: self._progress(events * len(points)))
        return [self._row(field, c, points[c], places[c]) for c in range(len(points))]

    def _row(self, field: Field, c: int, point: Point, place: int) -> Row:
        error, daily = field.failure(c), field.daily[c]
        if error is not None:
            return Row(place=place, params=point, error=error)
        start = int(field.accounts.of("account")[c, 0]["start_micros"])
        return Row(
            place=place,
            params=point,
            metrics=metrics_of(field.tallies[c], daily, start, self._bars, self._span_ms),
            decisions_hash=hash_of(field.accounts.of("positions")[c], field.tallies[c]),
            daily_micros=daily,
        )
