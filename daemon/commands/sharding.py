"""A search cut into shards: what a worker is told, what it does, and how its rows come back.

A shard names files and settings by the flags that were typed, so workers run in a folder where
these lead to the same; a hash over data, settings and code says whether they do.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from backtest.shards import Shard
from backtest.stretches import Piece, best_of, parted, within
from backtest.sweep.counting import LedgerTrials
from backtest.sweep.rows import Row
from backtest.sweep.space import Point
from backtest.sweep.sweep import Progress, Subject, Sweep
from backtest.validation.ledger import Ledger
from backtest.walk_forward import Cut, Terms
from core.errors import LockstepError
from daemon.commands.aiming import aim
from daemon.commands.choices import Choices
from daemon.commands.counted import trials_of
from daemon.commands.offering import (
    Board,
    Unfit,
    board_at,
    packed,
    shard_of,
    typed,
    unpacked,
    untyped,
)

ROWS_PER_SHARD = 128
Seen = tuple[int, int, list[str]]
"""What a fit may see: what was known in (begin_ms, end_ms], and of which instruments."""
ROWS_OF_A_BATCH = 8
"""A batch of Optuna's is small, and the next one waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A sweep that shards are cut from: what was typed, and what it came to."""

    choices: Choices
    timerange: str | None
    search: Mapping[str, Any]
    rows_per_shard: int = ROWS_PER_SHARD

    def shards(
        self,
        study: str,
        subject: Subject,
        points: Sequence[Point],
        *,
        seen: Seen | None = None,
        daily: bool = True,
        first: int = 0,
    ) -> list[Shard]:
        """The combinations in shares, ``first`` the place of the first one; ``seen`` is what a fit
        may see, None for everything. Without ``daily`` the rows come back without their equity."""
        told = {
            "choices": typed(self.choices),
            "timerange": self.timerange,
            "search": dict(self.search),
            "key": subject.key(self.search),
            "seen": seen,
        }
        kind, step = "sweep" if daily else "fit", self.rows_per_shard
        return [
            shard_of(
                study,
                first + at,
                kind,
                {**told, "place": first + at, "points": points[at : at + step]},
            )
            for at in range(0, len(points), step)
        ]


def work(shard: Shard, ledger: Ledger, *, threads: int) -> dict[str, Any]:
    """The rows of a shard, every combination told to the ledger. Unfit when they would be
    others."""
    payload = shard.payload
    subject = _subject(json.dumps([payload["choices"], payload["timerange"]]))
    if payload["seen"] is not None:
        subject = within(subject, *payload["seen"])
    if subject.key(payload["search"]) != payload["key"]:
        raise Unfit(f"shard of {shard.study}: this worker has other code, settings or data")
    sweep = Sweep(
        subject,
        threads=threads,
        search=payload["search"],
        trials=trials_of(ledger, subject, shard.study),
    )
    rows = sweep.run(payload["points"], payload["place"])
    return {"rows": [_told(row, shard.kind) for row in rows]}


@lru_cache(maxsize=1)
def _subject(text: str) -> Subject:
    """What was typed, read here; a worker that cannot is unfit, whatever the reason."""
    choices, timerange = json.loads(text)
    try:
        return aim(untyped(choices), timerange).subject
    except LockstepError as error:
        raise Unfit(f"this worker cannot read what the search is of: {error}") from error


def _told(row: Row, kind: str) -> dict[str, Any]:
    return row.plain() if kind == "fit" else {**row.plain(), "daily": packed(row.daily_micros)}


def _row(told: Mapping[str, Any]) -> Row:
    rest = {k: v for k, v in told.items() if k != "daily"}
    return Row(**rest, daily_micros=unpacked(told.get("daily", ""), "<i8"))


@dataclass(frozen=True, slots=True)
class Offer:
    """Shards of one job on the board."""

    board: Board
    job: Job

    def rows(
        self,
        trials: LedgerTrials,
        subject: Subject,
        points: Sequence[Point],
        progress: Progress,
        first: int = 0,
    ) -> Iterator[Row]:
        """The rows of a sweep in order, each found in the ledger as the worker told it."""
        shards = self.board.offer(self.job.shards(trials.study, subject, points, first=first))
        progress(0)
        for rows in self._await(shards):
            trials.on_rows_found(rows)
            progress(len(rows) * subject.events)
            yield from rows

    def fits(
        self, subject: Subject, terms: Terms, cuts: Sequence[Cut], points: Sequence[Point]
    ) -> Iterator[Row | None]:
        """The fit of each window, all of them offered at once."""
        names, _ = parted(subject, terms.held_out)
        pieces = [(cut.train_begin_ms, cut.train_end_ms) for cut in cuts]
        for rows in self.pieces(subject, names, pieces, points, daily=False):
            yield best_of(rows, terms.metric)

    def pieces(
        self,
        subject: Subject,
        names: Iterable[str],
        pieces: Sequence[Piece],
        points: Sequence[Point],
        *,
        daily: bool = True,
    ) -> Iterator[list[Row]]:
        """The rows over each piece of history, on these instruments; all are offered at once."""
        shards = []
        for begin, end in pieces:
            seen = (begin, end, sorted(names))
            fitted = within(subject, *seen)
            study = f"fit-{fitted.key(self.job.search)}"
            shards.append(
                self.board.offer(self.job.shards(study, fitted, points, seen=seen, daily=daily))
            )
        for mine in shards:
            yield [row for rows in self._await(mine) for row in rows]

    def _await(self, shards: Sequence[Shard]) -> Iterator[list[Row]]:
        for result in self.board.results(shards):
            yield [_row(told) for told in result["rows"]]


@contextmanager
def offering(url: str, job: Job, *, wished: bool) -> Iterator[Offer | None]:
    """An offer of this job in the journal at ``url``, where it is wished for."""
    if not wished:
        yield None
        return
    with board_at(url) as board:
        yield Offer(board, job)
