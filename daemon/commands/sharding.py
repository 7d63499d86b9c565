"""A search cut into shards: what a worker is told, what it does, and how its rows come back.

A shard names files and settings by the flags that were typed, so workers run in a folder where
these lead to the same; a hash over data, settings and code says whether they do.
"""

import base64
import json
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from backtest.shards import Shard, Shards, State
from backtest.sweep.counting import LedgerTrials
from backtest.sweep.rows import Row
from backtest.sweep.space import Point
from backtest.sweep.sweep import Progress, Subject, Sweep
from backtest.validation.ledger import Ledger
from backtest.walk_forward import Cut, Terms, best_of, fitted_on
from core.errors import ConfigError, LockstepError
from daemon.commands.aiming import aim
from daemon.commands.choices import Choices
from daemon.commands.counted import trials_of
from daemon.console import write
from daemon.journal.patience import patiently

ROWS_PER_SHARD = 128
POLL_S = 0.2
_PATHS = ("config", "runs")


class Unfit(ConfigError):
    """This worker has other code, settings or data than the one who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A sweep that shards are cut from: what was typed, and what it came to."""

    choices: Choices
    timerange: str | None
    search: Mapping[str, Any]

    def shards(
        self,
        study: str,
        subject: Subject,
        points: Sequence[Point],
        fit: tuple[Terms, Cut] | None = None,
    ) -> list[Shard]:
        """The combinations in shares; of a fit, what it may see, and without daily equity."""
        told = {
            "choices": _plain(self.choices),
            "timerange": self.timerange,
            "search": dict(self.search),
            "key": subject.key(self.search),
            "terms": None if fit is None else fit[0].plain(),
            "cut": None if fit is None else fit[1].plain(),
        }
        return [
            Shard(
                study=study,
                place=place,
                kind="sweep" if fit is None else "fit",
                # as it comes back from the table, or the hash would be another one
                payload=json.loads(
                    json.dumps(
                        {**told, "place": place, "points": points[place : place + ROWS_PER_SHARD]}
                    )
                ),
            )
            for place in range(0, len(points), ROWS_PER_SHARD)
        ]


def _plain(choices: Choices) -> dict[str, Any]:
    told = asdict(choices)
    return {k: str(v) if isinstance(v, Path) else v for k, v in told.items()}


def work(shard: Shard, ledger: Ledger, *, threads: int) -> dict[str, Any]:
    """The rows of a shard, every combination told to the ledger. Unfit when they would be
    others."""
    payload = shard.payload
    subject = _subject(json.dumps([payload["choices"], payload["timerange"]]))
    if payload["cut"] is not None:
        subject = fitted_on(subject, Cut(**payload["cut"]), _terms(payload["terms"]))
    if subject.key(payload["search"]) != payload["key"]:
        raise Unfit(f"shard of {shard.study}: this worker has other code, settings or data")
    sweep = Sweep(
        subject,
        threads=threads,
        search=payload["search"],
        trials=trials_of(ledger, subject, shard.study),
    )
    rows = sweep.run(payload["points"])
    return {"rows": [_told(row, payload["place"], shard.kind) for row in rows]}


@lru_cache(maxsize=1)
def _subject(text: str) -> Subject:
    """What was typed, read here; a worker that cannot is unfit, whatever the reason."""
    typed, timerange = json.loads(text)
    paths = {k: Path(typed[k]) for k in _PATHS if typed[k]}
    try:
        return aim(Choices(**{**typed, **paths}), timerange).subject
    except LockstepError as error:
        raise Unfit(f"this worker cannot read what the search is of: {error}") from error


def _terms(plain: Mapping[str, Any]) -> Terms:
    return Terms(**{**plain, "held_out": tuple(plain["held_out"])})


def _told(row: Row, place: int, kind: str) -> dict[str, Any]:
    plain = {**row.plain(), "place": place + row.place}
    if kind == "fit":
        return plain
    daily = zlib.compress(row.daily_micros.astype("<i8").tobytes())
    return {**plain, "daily": base64.b64encode(daily).decode()}


def _row(told: Mapping[str, Any]) -> Row:
    daily = zlib.decompress(base64.b64decode(told["daily"])) if "daily" in told else b""
    rest = {k: v for k, v in told.items() if k != "daily"}
    return Row(**rest, daily_micros=np.frombuffer(daily, "<i8").astype(np.int64))


@dataclass(frozen=True, slots=True)
class Offer:
    """Shards of one job, offered to whatever workers there are; an outage is waited for."""

    table: Shards
    job: Job
    offered: list[Shard]

    def rows(
        self, trials: LedgerTrials, subject: Subject, points: Sequence[Point], progress: Progress
    ) -> Iterator[Row]:
        """The rows of a sweep in order, each found in the ledger as the worker told it."""
        shards = self._offer(self.job.shards(trials.study, subject, points))
        progress(0)
        for rows in self._await(shards):
            trials.on_rows_found(rows)
            progress(len(rows) * subject.events)
            yield from rows

    def fits(
        self, subject: Subject, terms: Terms, cuts: Sequence[Cut], points: Sequence[Point]
    ) -> Iterator[Row | None]:
        """The fit of each window, all of them offered at once."""
        shards = []
        for cut in cuts:
            fitted = fitted_on(subject, cut, terms)
            study = f"fit-{fitted.key(self.job.search)}"
            shards.append(self._offer(self.job.shards(study, fitted, points, (terms, cut))))
        for mine in shards:
            yield best_of((row for rows in self._await(mine) for row in rows), terms.metric)

    def _offer(self, shards: list[Shard]) -> list[Shard]:
        patiently(lambda: self.table.enqueue(shards))
        self.offered.extend(shards)
        return shards

    def _await(self, shards: Sequence[Shard]) -> Iterator[list[Row]]:
        """The rows of each in order, once it is done; JournalError for one that failed."""
        for shard in shards:
            while self._state(shard) not in {State.DONE, State.FAILED}:
                time.sleep(POLL_S)
            result = patiently(partial(self.table.result, shard))
            yield [_row(told) for told in result["rows"]]

    def _state(self, shard: Shard) -> State:
        state = patiently(lambda: self.table.states([shard])).get(shard.id)
        if state is None:  # another who waited for the same has used it, and taken it off
            patiently(lambda: self.table.enqueue([shard]))
        return state or State.WAITING


@contextmanager
def offering(url: str, job: Job, *, wished: bool) -> Iterator[Offer | None]:
    """An offer of this job in the journal at ``url``. Shards whose results were used are taken off
    the table; after a failure they stay, and whoever asks again finds what is done."""
    if not wished:
        yield None
        return
    from sqlalchemy import make_url

    from daemon.journal import open_journal
    from daemon.journal.trials import shard_table

    database = open_journal(url)
    try:
        shown = make_url(url).render_as_string(hide_password=True)
        offer = Offer(shard_table(database), job, [])
        write(f"waiting for workers: lockstep worker --journal {shown}", to_error=True)
        yield offer
        patiently(lambda: offer.table.forget(offer.offered))
    finally:
        database.dispose()
