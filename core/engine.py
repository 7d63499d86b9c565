"""The engine: lays out the state for a set of books, and drives the compiled step over blocks."""

from bisect import bisect_left, bisect_right
from collections import namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from core.advance import advance
from core.compiled import address_of, compile_error, plain_address
from core.correlation import PAIR, pairs
from core.errors import ConfigError, LockstepError, MissingInput, StrategyError
from core.exposure import BOOKS_PER_GROUP
from core.instrument import Instrument
from core.model import (
    ACCOUNT,
    BOOK,
    DESK,
    EVENT,
    EXECUTION,
    INSTRUMENT,
    INTENT,
    LEGS,
    MARKET,
    MARKET_FIELDS,
    MICROS_PER_UNIT,
    NODE,
    ORDER,
    OUTCOME,
    POSITION,
    TRACK,
    Mode,
    OrderStatus,
    OrderStyle,
    Records,
    Result,
)
from core.outcomes import outcome_rows_min
from core.ports import Asked
from core.state import ARRAYS, STATE, Ports
from core.step import ALWAYS, FAILED_UNKNOWN_ORDER
from core.strategy import VISIBLE, Source, Strategy, Use

OUTCOMES_PER_CALL = TRACK_ROWS = 65_536
DECIDE_SHAPE = "RRR:d"
UPDATE_SHAPE = "RfFR:f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Which model a book asks, by which prompt, and what an answer must be to count.

    With ``consent`` an entry waits for an answer of its own side with at least ``confidence_min``.
    ``consult_ms`` above zero asks that often whatever the strategy says; the answer becomes the
    fields ``opinion`` and ``probability`` of the instrument. An answer later than
    ``answer_ms_max`` counts for nothing. As an ``agent`` the model writes code that decides.
    """

    model: str
    prompt: str = "ai_gate"
    agent: bool = False
    consent: bool = True
    consult_ms: int = 0
    confidence_min: float = 0.6
    answer_ms_max: int = 60_000

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence_min <= 1.0:
            raise ConfigError(f"advice: confidence_min lies in [0, 1], got {self.confidence_min}")
        if self.answer_ms_max <= 0 or self.consult_ms < 0:
            raise ConfigError("advice: answer_ms_max must be above zero, consult_ms zero or above")
        if not self.consent and self.consult_ms == 0:
            raise ConfigError("advice: neither consent nor consult_ms, so nothing would be asked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """One strategy on one instrument: its parameters, and how its orders are placed.

    ``offset``: how far an IOC may pay, or a limit order asks for, as a fraction of the price
    (price units for a binary); ``ttl_bars``: how many bars a limit order rests; ``advice``: the
    model it asks, if any.
    """

    name: str
    strategy: Strategy
    instrument: str
    params: Mapping[str, float] = field(default_factory=dict)
    style: OrderStyle = OrderStyle.IOC
    offset: float = 0.01
    ttl_bars: int = 1
    advice: Advice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the composition root hands in: compiled ports, limits and sizing a book, extra features.

    ``limits`` holds one record a book and the account's own last; ``sizing`` one a book. Both in
    the order of ``books``, as is what follows. ``flatten``: whether a halt closes the book.
    ``correlation``: above it an instrument counts as one with the book's own, None where the gate
    does not ask; ``correlation_bars``: the span of its estimate, 0 for none.
    """

    ports: Ports
    limits: Records
    sizing: Records
    regime: Use
    volatility: Sequence[Use | None]
    atr: Sequence[Use | None]
    flatten: Sequence[bool]
    correlation: Sequence[float | None]
    correlation_bars: int


class Step(NamedTuple):
    """What one call of the step did: where it stopped, and what came of it.

    ``outcomes`` are a view that the next call overwrites. ``track`` has a row for every event
    folded. ``questions`` are those of the last event: nothing was folded after them.
    """

    at: int
    outcomes: Records
    track: Records
    questions: Sequence[Asked]


def _array(length: int, dtype: Any) -> Records:
    return np.zeros(max(length, 1), dtype)


class Layout:
    """Gathers the flat arrays while nodes and books are added."""

    def __init__(self) -> None:
        self.values = 0
        self.memory = 0
        self.params: list[float] = []
        self.nodes: list[tuple[int, int, int, int, int]] = []
        self.rows: dict[tuple[int, Use], int] = {}

    def add_instrument(self) -> int:
        """Room for one MARKET; answers where it starts in ``values``."""
        at = self.values
        self.values += len(MARKET_FIELDS)
        return at

    def add_params(self, record: Records) -> int:
        """Room for one record of parameters; answers where it starts in ``params``."""
        at = len(self.params)
        self.params.extend(np.frombuffer(record.tobytes(), "f8"))
        return at

    def row(self, market_at: int, source: Source) -> int:
        """Row of ``values`` where a source answers, its nodes added before it when they are new."""
        if isinstance(source, str):
            return self.field(market_at, source)
        key = (market_at, source)
        if key not in self.rows:
            read = market_at if source.source is None else self.row(market_at, source.source)
            self.rows[key] = self._add_node(source, read)
        return self.rows[key]

    def field(self, market_at: int, name: str) -> int:
        """Row of ``values`` where a market field stands."""
        return market_at + MARKET_FIELDS.index(name)

    def _add_node(self, use: Use, read: int) -> int:
        feature, params = use.feature, {name: float(value) for name, value in use.params}
        record = np.zeros(1, feature.layout)
        for name, value in params.items():
            record[name] = value
        update = address_of(feature.update, UPDATE_SHAPE, MARKET, feature.layout)
        answer = self.values
        self.values += 1
        self.nodes.append((update, read, answer, self.memory, self.add_params(record)))
        self.memory += max(feature.memory(params), 1)
        return answer


class Engine:
    """A run's state and the one way to move it: ``advance``.

    Raises MissingInput when a strategy needs a field its instrument's data lacks, and StrategyError
    from ``advance`` when a strategy fails.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        books: Sequence[Book],
        terms: Terms,
        *,
        equity: float,
        carried: Mapping[str, frozenset[str]],
        tell_all: bool = False,
    ) -> None:
        order = {instrument.name: place for place, instrument in enumerate(instruments)}
        ranked = sorted(range(len(books)), key=lambda k: order[books[k].instrument])
        self.instruments = tuple(instruments)
        self.books = tuple(books[k] for k in ranked)
        self.strategies = tuple(dict.fromkeys(book.strategy.name for book in self.books))
        self.tell_all = tell_all
        self._external = any(instrument.external for instrument in instruments)
        self.advised = any(book.advice is not None for book in self.books)
        self.plain: dict[str, str] = {}
        self._track, self._track_at = np.zeros(0, TRACK), 0
        self._failure: BaseException | None = None
        self._callbacks: list[Any] = []
        told = _told_by_advisors(self.books)
        for book in self.books:
            _check_inputs(book, carried[book.instrument] | told.get(book.instrument, frozenset()))
        self.arrays = self._build(terms, ranked, order, equity)
        self.state = self._point(terms)
        self._state_at = int(self.state.ctypes.data)
        # views, for a field of a record is slow to reach
        self._written, self._asked = self.state["written"], self.state["asked"]
        self._failed = self.arrays["account"]["failed"]
        told = self.arrays["outcomes"]
        self._kinds = told["kind"]
        self._columns = [told[name] for name in ("order", "ts", "book", "target", "price")]
        self._shown = [self._features_of(b) for b in range(len(self.books))]
        for b, book in enumerate(self.books):
            self._wire_strategy(b, book)

    def _build(
        self, terms: Terms, ranked: list[int], order: dict[str, int], equity: float
    ) -> dict[str, Any]:
        layout = Layout()
        instruments = _array(len(self.instruments), INSTRUMENT)
        books = _array(len(self.books), BOOK)
        homes = [order[book.instrument] for book in self.books]
        inputs: list[int] = []
        features = 0
        clusters = {
            name: k for k, name in enumerate({i.cluster or i.name: 0 for i in self.instruments})
        }
        for i, instrument in enumerate(self.instruments):
            row = instruments[i]
            for name in INSTRUMENT.names or ():
                if hasattr(instrument, name) and name != "cluster":
                    row[name] = getattr(instrument, name)
            row["cluster"] = clusters[instrument.cluster or instrument.name]
            row["open"] = 1
            row["linked"] = 1
            row["values_at"] = market_at = layout.add_instrument()
            row["nodes_at"] = len(layout.nodes)
            layout.row(market_at, terms.regime)
            row["books_at"], row["books_end"] = bisect_left(homes, i), bisect_right(homes, i)
            for b in range(row["books_at"], row["books_end"]):
                features = self._lay_book(b, books[b], layout, market_at, inputs, features, i)
                for column, uses in (("volatility_at", terms.volatility), ("atr_at", terms.atr)):
                    use = uses[ranked[b]]
                    books[b][column] = -1 if use is None else layout.row(market_at, use)
                books[b]["flatten"] = terms.flatten[ranked[b]]
                books[b]["correlation"] = terms.correlation[ranked[b]]
            row["nodes_end"] = len(layout.nodes)
        nodes = _array(len(layout.nodes), NODE)
        for k, node in enumerate(layout.nodes):
            nodes[k] = node
        positions = _array(len(self.books), POSITION)
        account = _array(1, ACCOUNT)
        start = round(equity * MICROS_PER_UNIT)
        account["alarm_micros"] = ALWAYS
        for name in ("start_micros", "cash_micros", "day_start_micros", "peak_micros"):
            account[name] = start
        kept = [*ranked, len(self.books)]
        paired = pairs(len(self.instruments)) if terms.correlation_bars else 0
        room = outcome_rows_min(len(self.books))
        return {
            "account": account,
            "instruments": instruments,
            "books": books,
            "positions": positions,
            "orders": _array(4 * len(self.books), ORDER),
            "nodes": nodes,
            "inputs": np.array(inputs or [0], np.int64),
            "values": np.full(layout.values, np.nan),
            "memory": np.zeros(max(layout.memory, 1)),
            "params": np.array(layout.params or [0.0]),
            "features": np.zeros(max(features, 1)),
            "limits": np.array(terms.limits[kept]),
            "sizing": np.array(terms.sizing[ranked]),
            "decision": np.zeros(3),
            "desk": _array(1, DESK),
            "intent": _array(1, INTENT),
            "legs": _array(1, LEGS),
            "execution": _array(1, EXECUTION),
            "outcomes": _array(max(OUTCOMES_PER_CALL, room), OUTCOME),
            "busy": np.zeros(len(self.books) // BOOKS_PER_GROUP + 1, np.int64),
            "pairs": _array(paired, PAIR),
        }

    def _point(self, terms: Terms) -> Records:
        """The record of addresses through which compiled code finds the arrays."""
        state = _array(1, STATE)
        for name in ARRAYS:
            state[name] = self.arrays[name].ctypes.data
        state["markets"] = state["values"]
        state["books_n"] = len(self.books)
        state["instruments_n"] = len(self.instruments)
        state["correlation_bars"] = terms.correlation_bars
        state["limits_size"] = self.arrays["limits"].itemsize
        state["sizing_size"] = self.arrays["sizing"].itemsize
        state["tell_all"] = self.tell_all
        for name, place in terms.ports._asdict().items():
            state[name] = place
        return state

    def _lay_book(
        self,
        b: int,
        row: Any,
        layout: Layout,
        market_at: int,
        inputs: list[int],
        features: int,
        i: int,
    ) -> int:
        book = self.books[b]
        strategy, values = book.strategy, book.strategy.values(book.params)
        row["instrument"] = i
        row["strategy"] = self.strategies.index(strategy.name)
        row["inputs_at"] = len(inputs)
        inputs.extend(layout.row(market_at, use) for use in strategy.sources(values).values())
        row["inputs_end"] = len(inputs)
        row["features_at"] = features
        row["params_at"] = layout.add_params(strategy.params_record(values))
        row["style"], row["offset"], row["ttl_bars"] = book.style, book.offset, book.ttl_bars
        for name in ("take_profit", "stop_loss", "trailing_stop"):
            row[name] = values.get(name, 0.0)
        if book.advice is not None:
            for name in ("consent", "consult_ms", "answer_ms_max", "confidence_min"):
                row[name] = getattr(book.advice, name)
        return features + strategy.features_layout.itemsize // 8

    def _wire_strategy(self, b: int, book: Book) -> None:
        strategy, row = book.strategy, self.arrays["books"][b]
        shape = (strategy.features_layout, POSITION, strategy.params_layout)
        reason: str | None = "its author asked for it"
        if strategy.compiled:
            reason = compile_error(strategy.decide, DECIDE_SHAPE, *shape)
        if reason is None:
            row["decide"] = address_of(strategy.decide, DECIDE_SHAPE, *shape)
            return
        if strategy.program is not None:
            raise StrategyError(f"strategy {strategy.name} cannot be compiled: {reason}")
        self.plain[strategy.name] = reason
        row["plain"] = 1
        callback = self._plain_callback(b, book)
        self._callbacks.append(callback)
        row["decide"] = plain_address(callback)

    def _plain_callback(self, b: int, book: Book) -> Any:
        """A callback that shows the strategy tuples of plain floats and keeps what it raises."""
        strategy, arrays = book.strategy, self.arrays
        values = strategy.values(book.params)
        shown = _tuple_type("Features", strategy.features)
        seen = _tuple_type("Position", VISIBLE)
        params = _tuple_type("Params", values)(*values.values())
        at = 8 * int(arrays["books"][b]["features_at"])
        features, positions = _bytes(arrays["features"]), _bytes(arrays["positions"])
        position_at = b * POSITION.itemsize
        read_features = Struct(f"{len(strategy.features)}d").unpack_from
        read_position = Struct(f"{len(VISIBLE)}d").unpack_from
        decision, write = _bytes(arrays["decision"]), Struct("3d").pack_into
        decide, make_features, make_position = strategy.decide, shown._make, seen._make

        def callback() -> None:
            try:
                answer = decide(
                    make_features(read_features(features, at)),
                    make_position(read_position(positions, position_at)),
                    params,
                )
                write(decision, 0, *answer)
            except BaseException as error:  # noqa: BLE001 - it cannot cross compiled code
                self._failure = error
                write(decision, 0, float("nan"), 0.0, 0.0)

        return callback

    def advance(self, block: Records, at: int) -> Step:
        """Fold ``block[at:]`` as far as the step goes."""
        assert block.dtype == EVENT, "records of another layout"
        assert block.flags.c_contiguous, "rows must lie end to end"
        length = len(block)
        if len(self._track) < length - at:
            self._track = np.zeros(max(length - at, TRACK_ROWS), TRACK)
            self._track_at = self._track.ctypes.data
        end = advance(
            self._state_at, block.ctypes.data, length, at, self._track_at, len(self._kinds)
        )
        if failed := self._failed.item():
            raise self._error(failed)
        track, self._track = self._track[: end - at], self._track[end - at :]
        self._track_at += track.nbytes
        written = self._written.item()
        outcomes = self.arrays["outcomes"][:written]
        return Step(end, outcomes, track, self._questions(written) if self._asked.item() else ())

    def _questions(self, written: int) -> list[Asked]:
        rows = enumerate(self._kinds[:written].tolist())
        asked = [k for k, kind in rows if kind == Result.QUESTION]
        return [Asked._make([column.item(k) for column in self._columns]) for k in asked]

    def warm(self, block: Records) -> None:
        """Load (or, once, build) the compiled step without folding anything."""
        self.advance(block[:0], 0)

    def outside(self, outcomes: Records) -> Records:
        """The orders approved in these that an outside venue must be given, in their order."""
        if not self._external:
            return self.arrays["orders"][:0]
        approved = outcomes["order"][outcomes["kind"] == Result.APPROVED]
        sent = self.sent()
        return sent[np.isin(sent["id"], approved)]

    def sent(self) -> Records:
        """The orders an outside venue has not ended yet (a copy), in the order of their ids."""
        orders = self.arrays["orders"]
        sent = orders[orders["status"] == OrderStatus.SENT]
        return sent[np.argsort(sent["id"])]

    def halts(self, outcomes: Records) -> bool:
        """Whether an outside venue must hear that the latch fell to HALTED in these."""
        if not self._external:
            return False
        moved = outcomes["kind"] == Result.MODE
        return bool((outcomes["reason"][moved] == Mode.HALTED).any())

    def shown(self, b: int) -> dict[str, float]:
        """What the strategy of book ``b`` was last shown, by name."""
        return dict(zip(self.books[b].strategy.features, self._shown[b].tolist(), strict=True))

    def _features_of(self, b: int) -> Any:
        at = int(self.arrays["books"][b]["features_at"])
        return self.arrays["features"][at : at + len(self.books[b].strategy.features)]

    def _error(self, failed: int) -> LockstepError:
        if failed == FAILED_UNKNOWN_ORDER:
            return LockstepError(
                "a venue reported a fill of an order we never sent: reconcile first"
            )
        book = self.books[failed - 1]
        when = np.datetime64(int(self.arrays["account"][0]["now"]), "ms")
        where = f"strategy {book.strategy.name} on {book.instrument} at {when}"
        if self._failure is not None:
            if not isinstance(self._failure, Exception):
                raise self._failure  # a Ctrl-C inside a strategy stays one
            error = StrategyError(f"{where} raised {type(self._failure).__name__}: {self._failure}")
            error.__cause__ = self._failure
            return error
        return StrategyError(f"{where}: target must lie in [-1, 1] and confidence in [0, 1]")

    @property
    def digests(self) -> list[int]:
        """Running digest of every decision, a book."""
        return [int(value) for value in self.arrays["positions"]["digest"][: len(self.books)]]


def _told_by_advisors(books: Sequence[Book]) -> dict[str, frozenset[str]]:
    """The market fields that scheduled questions fill, by instrument; one book an instrument asks,
    for two answers would overwrite each other."""
    asking = [book for book in books if book.advice is not None and book.advice.consult_ms > 0]
    told = {book.instrument: frozenset({"opinion", "probability"}) for book in asking}
    if len(told) < len(asking):
        names = ", ".join(book.name for book in asking)
        raise ConfigError(f"two books consult on one instrument ({names}): let one of them ask")
    return told


def _check_inputs(book: Book, carried: frozenset[str]) -> None:
    missing = sorted(book.strategy.fields - carried)
    if missing:
        raise MissingInput(
            f"strategy {book.strategy.name} needs {', '.join(missing)}, which the data of "
            f"{book.instrument} does not carry"
        )


def _bytes(array: Any) -> memoryview:
    return memoryview(array.view("u1")).cast("B")


def _tuple_type(name: str, fields: Any) -> Any:
    return namedtuple(name, list(fields))
