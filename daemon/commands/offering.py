"""Shards offered in the journal and waited for: what every command that asks for workers shares."""

import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backtest.shards import Shard, Shards, State
from core.errors import ConfigError
from daemon.commands.choices import Choices
from daemon.console import write
from daemon.journal.patience import patiently

if TYPE_CHECKING:
    from sqlalchemy import Engine

POLL_S = 0.2
_PATHS = ("config", "runs")


class Unfit(ConfigError):
    """This worker has other code, settings or data than the one who asked."""


def typed(choices: Choices) -> dict[str, Any]:
    """What was typed, as plain data."""
    told = asdict(choices)
    return {k: str(v) if isinstance(v, Path) else v for k, v in told.items()}


def untyped(told: Mapping[str, Any]) -> Choices:
    """What was typed, from plain data."""
    return Choices(**{**told, **{k: Path(told[k]) for k in _PATHS if told[k]}})


def shard_of(study: str, place: int, kind: str, payload: Mapping[str, Any]) -> Shard:
    """A shard whose payload is as it comes back from the table, or its hash would be another."""
    return Shard(study=study, place=place, kind=kind, payload=json.loads(json.dumps(payload)))


def packed(values: NDArray[Any]) -> str:
    """Numbers of eight bytes as text. Not compressed: two machines may do that differently, and a
    result must be the same to the letter."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def unpacked(text: str, kind: str) -> NDArray[Any]:
    """The numbers again, ``kind`` as in ``<i8``; one dimension."""
    found = np.frombuffer(base64.b64decode(text), kind)
    return found.astype(found.dtype.newbyteorder("="))


@dataclass(frozen=True, slots=True)
class Board:
    """Where shards are offered to whatever workers there are; an outage is waited for."""

    database: "Engine"
    table: Shards
    offered: list[Shard] = field(default_factory=list)

    @property
    def shared(self) -> bool:
        """Whether other machines reach the database."""
        return self.database.dialect.name == "postgresql"

    def offer(self, shards: Sequence[Shard]) -> Sequence[Shard]:
        """Offer these; answers them."""
        patiently(lambda: self.table.enqueue(shards))
        self.offered.extend(shards)
        return shards

    def results(self, shards: Sequence[Shard]) -> Iterator[Any]:
        """The result of each in order, once it is done; JournalError for one that failed."""
        for shard in shards:
            while self._state(shard) not in {State.DONE, State.FAILED}:
                time.sleep(POLL_S)
            yield patiently(partial(self.table.result, shard))

    def _state(self, shard: Shard) -> State:
        state = patiently(lambda: self.table.states([shard])).get(shard.id)
        if state is None:  # another who waited for the same has used it, and taken it off
            patiently(lambda: self.table.enqueue([shard]))
        return state or State.WAITING


@contextmanager
def board_at(url: str) -> Iterator[Board]:
    """The board in the journal at ``url``. Shards whose results were used are taken off it; after a
    failure they stay, and whoever asks again finds what is done."""
    from sqlalchemy import make_url

    from daemon.journal import open_journal
    from daemon.journal.trials import shard_table

    database = open_journal(url)
    try:
        shown = make_url(url).render_as_string(hide_password=True)
        board = Board(database, shard_table(database))
        write(f"waiting for workers: lockstep worker --journal {shown}", to_error=True)
        yield board
        patiently(lambda: board.table.forget(board.offered))
    finally:
        database.dispose()
