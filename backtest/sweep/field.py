"""The field: many accounts under the same events, each with its own parameters.

Every account has its own records, and nothing else: bars, markets and columns of features stand
once for all. A feature that two accounts ask for with equal parameters is one column.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.assemble import BookSetup, Setup, assemble, sizing_inputs
from backtest.breakdown import day_of
from core.engine import Engine, Layout
from core.errors import ConfigError
from core.model import MARKET, MARKET_FIELDS, NODE, OUTCOME, Kind, Records
from core.outcomes import outcome_rows_min
from core.state import STATE
from core.strategy import Source
from core.tally import TALLY
from core.tiles import (
    OWN,
    SCRATCH,
    TILE,
    close_tallies,
    fold_columns,
    learn_tile,
    respond_tile,
)
from risk.limits import sizing_records
from strategies.regimes import REGIME

CACHE_LINE = 64
EVENTS_PER_TILE_MIN, EVENTS_PER_TILE_MAX = 256, 2048
COLUMN_BYTES_MAX = 16_000_000
SHARES_PER_THREAD = 16
"""Work is cut into more shares than threads, so that none waits long for the slowest."""

MARKET_KINDS = [Kind.FUNDING, Kind.QUOTE, Kind.FORECAST, Kind.RESOLUTION, Kind.LINK, Kind.BAR]

Ints = NDArray[np.int64]
Advance = Callable[[int], None]
Work = Callable[[int, int, int, int], None]
"""What threads share: ``work(state_at, tile_at, first, last)``."""


class Columns(Layout):
    """Gives every market field and every distinct feature of an instrument a column of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.homes: list[int] = []
        self._fields: dict[tuple[int, str], int] = {}

    def row(self, market_at: int, source: Source) -> int:
        """Column of a source; ``market_at`` is the instrument."""
        column = super().row(market_at, source)
        self.homes += [market_at] * (len(self.nodes) - len(self.homes))
        return column

    def field(self, market_at: int, name: str) -> int:
        """Column of a market field."""
        key = (market_at, name)
        if key not in self._fields:
            self._fields[key] = len(self.nodes)
            self.nodes.append((0, MARKET_FIELDS.index(name), len(self.nodes), 0, 0))
            self.values += 1
        return self._fields[key]

    def levels(self) -> list[Ints]:
        """Nodes that can be folded side by side, what they read always in an earlier level."""
        depths: list[int] = []
        for update, source, answer, _, _ in self.nodes:
            depths.append(0 if update == 0 else 1 + (depths[source] if source < answer else 0))
        return [np.flatnonzero(np.array(depths) == depth) for depth in range(max(depths) + 1)]

    def records(self, events: int) -> Records:
        """The nodes, for columns that are ``events`` long."""
        nodes = np.array(self.nodes, NODE)
        nodes["answer"] *= events
        nodes["source"][nodes["update"] != 0] *= events
        return nodes


class Accounts:
    """The accounts' own records, end to end, laid out like those of a template engine."""

    def __init__(self, template: Engine, setups: Sequence[Setup], columns: Columns) -> None:
        inputs, params = _wiring(template, setups, columns)
        arrays = {**template.arrays, "inputs": inputs[:1].ravel(), "params": params[:1].ravel()}
        self.offsets = np.zeros(len(OWN), np.int64)
        size = 0
        for place, name in enumerate(OWN):
            self.offsets[place] = size
            size += -(-arrays[name].nbytes // CACHE_LINE) * CACHE_LINE
        self.size = size + CACHE_LINE  # not a power of two, or all would meet in few cache sets
        self.memory = np.zeros((len(setups), self.size), np.uint8)
        for name in OWN:
            raw = np.ascontiguousarray(arrays[name]).view(np.uint8).reshape(-1)
            at = int(self.offsets[OWN.index(name)])
            self.memory[:, at : at + len(raw)] = raw
        self._arrays = arrays
        self.of("inputs")[:], self.of("params")[:] = inputs, params

    def of(self, name: str) -> Records:
        """One of the OWN arrays of every account, in place, shape (accounts, rows)."""
        array, at = self._arrays[name], int(self.offsets[OWN.index(name)])
        mine = self.memory[:, at : at + array.nbytes]
        view: Records = mine.view(array.dtype)
        return view


def _wiring(
    template: Engine, setups: Sequence[Setup], columns: Columns
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Columns that every account's books read, and their parameters end to end."""
    places = {instrument.name: i for i, instrument in enumerate(template.instruments)}
    inputs: list[list[int]] = []
    params: list[list[float]] = []
    for setup in setups:
        books = {entry.book.name: entry.book for entry in setup.books}
        read: list[int] = []
        told: list[float] = []
        for wired in template.books:
            book = books[wired.name]
            values = book.strategy.values(book.params)
            i = places[book.instrument]
            read += [columns.row(i, use) for use in book.strategy.sources(values).values()]
            told += np.frombuffer(book.strategy.params_record(values).tobytes(), "f8").tolist()
        inputs.append(read)
        params.append(told)
    return np.array(inputs, np.int64), np.array(params, np.float64)


class Field:
    """Accounts that take part in the same run, one a setup; ``run`` it once.

    The setups may differ in the parameters and the sizing of their books, and in nothing else.
    ``carried`` as for ``assemble``. Raises MissingInput, ConfigError.
    """

    def __init__(
        self, setups: Sequence[Setup], carried: Mapping[str, frozenset[str]], *, threads: int
    ) -> None:
        _check_alike(setups)
        self.setups, self.threads = setups, threads
        self.engine = assemble(setups[0], carried)
        if self.engine.advised:
            raise ConfigError("a book asks a language model: a sweep cannot, replay it instead")
        if self.engine.plain:
            name, reason = next(iter(self.engine.plain.items()))
            raise ConfigError(
                f"strategy {name} runs as plain Python ({reason}): a sweep needs a compiled one"
            )
        self._columns = Columns()
        regimes = [self._columns.row(i, REGIME()) for i in range(len(self.engine.instruments))]
        self.accounts = Accounts(self.engine, setups, self._columns)
        self._wire(regimes)
        self._lay_columns()
        self._tile = np.zeros(1, TILE)
        self.tallies = np.zeros(len(setups), TALLY)
        start = self.engine.arrays["account"][0]["start_micros"]
        self.tallies["peak_micros"] = self.tallies["trough_micros"] = start
        self.daily = np.zeros((len(setups), 0), np.int64)
        self._threads = [_Thread(self.engine, self._nodes) for _ in range(threads)]

    def _wire(self, regimes: list[int]) -> None:
        """Point every account's records at columns, and set what its parameters decide."""
        instruments, books = self.accounts.of("instruments"), self.accounts.of("books")
        instruments["values_at"] = 0
        instruments["nodes_at"][:] = regimes
        template = {entry.book.name: entry for entry in self.setups[0].books}
        params = 0
        for b, book in enumerate(self.engine.books):
            mine = [entry for setup in self.setups for entry in setup.books]
            mine = [entry for entry in mine if entry.book.name == book.name]
            books["params_at"][:, b] = params
            params += book.strategy.params_layout.itemsize // 8
            self._wire_exits(b, books, mine)
            self._wire_sizing(b, books, template[book.name], mine)

    def _wire_exits(self, b: int, books: Records, mine: list[BookSetup]) -> None:
        for name in ("take_profit", "stop_loss", "trailing_stop"):
            if name in mine[0].book.strategy.params:
                default = mine[0].book.strategy.params[name].default
                books[name][:, b] = [entry.book.params.get(name, default) for entry in mine]

    def _wire_sizing(self, b: int, books: Records, first: BookSetup, mine: list[BookSetup]) -> None:
        i = int(self.engine.arrays["books"][b]["instrument"])
        for name, use in zip(("volatility_at", "atr_at"), sizing_inputs(first), strict=True):
            books[name][:, b] = -1 if use is None else self._columns.row(i, use)
        if any(entry.sizing != first.sizing for entry in mine):
            records = sizing_records([(entry.sizing, entry.limits) for entry in mine])
            self.accounts.of("sizing")[:, b] = records

    def _lay_columns(self) -> None:
        """Columns for so many events that a tile stays near the processor."""
        columns = self._columns
        fitting = COLUMN_BYTES_MAX // (8 * columns.values)
        self.events_per_tile = min(max(fitting, EVENTS_PER_TILE_MIN), EVENTS_PER_TILE_MAX)
        self._levels, self._nodes = columns.levels(), columns.records(self.events_per_tile)
        self._homes = np.array(columns.homes, np.int64)
        self._values = np.full(columns.values * self.events_per_tile, np.nan)
        self._memory = np.zeros(max(columns.memory, 1))
        self._params = np.array(columns.params or [0.0])
        self._markets = np.zeros(self.events_per_tile, MARKET)
        self._latest = np.full(len(self.engine.instruments) * len(MARKET_FIELDS), np.nan)
        self.accounts.of("inputs")[:] *= self.events_per_tile
        for name in ("volatility_at", "atr_at"):
            rows = self.accounts.of("books")[name]
            rows[rows > 0] *= self.events_per_tile

    @property
    def columns(self) -> int:
        """How many columns all accounts share."""
        return self._columns.values

    def run(self, block: Records, on_tile: Advance | None = None) -> None:
        """Let every account respond to a block of events, tile by tile.

        ``on_tile`` is told how many events each tile had. Afterwards ``tallies`` and ``daily``
        (equity in micros at the end of every UTC day, shape (accounts, days)) hold the results.
        """
        if not np.isin(block["kind"], MARKET_KINDS).all():
            raise ConfigError("a sweep runs over market data: no commands and no fills of a venue")
        known = block["ts_known"]
        days = 1 + int(day_of(known[-1]) - day_of(known[0])) if len(block) else 0
        self.daily = np.zeros((len(self.setups), days), np.int64)
        self._point(block)
        with ThreadPoolExecutor(max(self.threads - 1, 1)) as pool:
            for start in range(0, len(block), self.events_per_tile):
                length = min(self.events_per_tile, len(block) - start)
                self._fold_tile(pool, block, start, length)
                if on_tile is not None:
                    on_tile(length)
            self._share(pool, close_tallies, len(self.setups))

    def failure(self, c: int) -> str | None:
        """Why account ``c`` stopped before the end, None when it did not."""
        account = self.accounts.of("account")[c, 0]
        if not account["failed"]:
            return None
        book = self.engine.books[account["failed"] - 1]
        when = np.datetime64(int(account["now"]), "ms")
        return f"{book.name} at {when}: target must lie in [-1, 1] and confidence in [0, 1]"

    def _point(self, block: Records) -> None:
        """The record of addresses through which compiled code finds everything."""
        tile = self._tile[0]
        for name, array in (
            ("markets", self._markets),
            ("values", self._values),
            ("memory", self._memory),
            ("params", self._params),
            ("nodes", self._nodes),
            ("latest", self._latest),
            ("accounts", self.accounts.memory),
            ("offsets", self.accounts.offsets),
            ("tallies", self.tallies),
        ):
            tile[name] = array.ctypes.data
        tile["account_size"] = self.accounts.size
        tile["days_n"] = self.daily.shape[1]
        days_at = self.daily.ctypes.data + self.daily.strides[0] * np.arange(len(self.setups))
        self.tallies["daily"] = days_at
        self.tallies["day_first"] = day_of(int(block["ts_known"][0])) if len(block) else 0
        tile["room"] = outcome_rows_min(len(self.engine.books))

    def _fold_tile(self, pool: ThreadPoolExecutor, block: Records, start: int, length: int) -> None:
        tile = self._tile
        tile["block"], tile["length"] = block.ctypes.data + start * block.itemsize, length
        learn_tile(self.engine.state.ctypes.data, tile.ctypes.data)
        for level in self._levels:
            self._share(pool, _Fold(self._homes, level), len(level))
        self._share(pool, respond_tile, len(self.setups))

    def _share(self, pool: ThreadPoolExecutor, work: Work, count: int) -> None:
        """Do ``work`` on 0 to ``count``, in shares side by side, this thread too; waits for all."""
        shares = min(count, self.threads * SHARES_PER_THREAD) if self.threads > 1 else 1
        cuts = [count * k // shares for k in range(shares + 1)]
        # the next share of one iterator goes to whoever asks first
        left = iter(list(pairwise(cuts)))
        tile_at = self._tile.ctypes.data

        def drain(thread: _Thread) -> None:
            for first, last in left:
                work(thread.state_at, tile_at, first, last)

        first, *others = self._threads
        waited = [pool.submit(drain, thread) for thread in others]
        drain(first)
        for one in waited:
            one.result()


class _Fold:
    """Folds the nodes of one level."""

    def __init__(self, homes: Ints, level: Ints) -> None:
        self._homes, self._level = homes, level

    def __call__(self, _state_at: int, tile_at: int, first: int, last: int) -> None:
        homes, level = self._homes.ctypes.data, self._level.ctypes.data
        fold_columns(tile_at, homes, level, first, last)


class _Thread:
    """What one thread needs for itself: a STATE to point at accounts, and scratch records."""

    def __init__(self, template: Engine, nodes: Records) -> None:
        self._kept = {name: template.arrays[name].copy() for name in SCRATCH if name != "outcomes"}
        # few enough to stay in the thread's cache
        self._kept["outcomes"] = np.zeros(outcome_rows_min(len(template.books)), OUTCOME)
        self._state = template.state.copy()
        for name, array in self._kept.items():
            self._state[name] = array.ctypes.data
        self._state["nodes"] = nodes.ctypes.data
        assert self._state.dtype == STATE
        self.state_at = int(self._state.ctypes.data)


def _check_alike(setups: Sequence[Setup]) -> None:
    """ConfigError when the setups differ in more than parameters and sizing."""
    if not setups:
        raise ConfigError("the sweep is empty: no combination of parameters is left")
    if any(instrument.external for instrument in setups[0].instruments):
        raise ConfigError("a sweep fills its orders itself: an instrument has an outside venue")
    wiring = _wired(setups[0])
    if any(_wired(setup) != wiring for setup in setups[1:]):
        raise ConfigError("the setups of a sweep may differ in parameters and sizing only")


def _wired(setup: Setup) -> list[Any]:
    """What every setup of a sweep must have in common."""
    wired: list[Any] = [setup.instruments, setup.limits, setup.equity]
    for entry in setup.books:
        book = entry.book
        wired += [book.name, id(book.strategy), book.instrument, book.style, book.offset]
        wired += [book.ttl_bars, entry.sizing.rule, entry.limits]
    return wired
