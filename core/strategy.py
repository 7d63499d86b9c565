"""What an author writes: a feature as a small accumulator, a strategy as one function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any, Protocol, TypeAlias

import numpy as np

from core.errors import ConfigError, UnknownName
from core.model import MARKET_FIELDS, Records

PROGRAM_VALUES = 32
"""Most features, and most parameters, that a strategy with a program may have."""

Decision: TypeAlias = tuple[float, float, int]
"""Target in [-1, 1] as a share of the book's full size, confidence in [0, 1], reason code."""


class PositionView(Protocol):
    """What a strategy sees of its book.

    ``quantity`` signed; ``entry`` its average price; ``target`` what the book now aims at (return
    it to hold); ``gain`` the open return as a fraction of the entry; ``bars_held`` since the entry;
    ``best`` the most favourable price since the entry.
    """

    @property
    def quantity(self) -> float: ...
    @property
    def entry(self) -> float: ...
    @property
    def target(self) -> float: ...
    @property
    def gain(self) -> float: ...
    @property
    def bars_held(self) -> float: ...
    @property
    def best(self) -> float: ...


VISIBLE = ("quantity", "entry", "target", "gain", "bars_held", "best")
"""The first fields of ``core.model.POSITION``, in order: all that a strategy may read."""


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter: its default, the bounds a search may use, and what it means."""

    default: float
    low: float
    high: float
    about: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """An accumulator: O(1) amortised per bar, over one source series and the newest market.

    ``update(market, value, memory, params) -> float`` folds one bar and answers NaN until it is
    warm. ``market`` is a MARKET record, ``value`` the newest value of the source, ``memory`` that
    many zeroed floats, ``params`` a record of ``params``. ``reads`` names the market fields it
    needs beside its source; ``unit`` is the unit of its answer.
    """

    name: str
    update: Callable[..., float]
    unit: str
    params: Mapping[str, float] = field(default_factory=dict)
    source: str | None = "close"
    reads: tuple[str, ...] = ()
    memory: Callable[[Mapping[str, float]], int] = lambda _: 1
    warmup: Callable[[Mapping[str, float]], int] = lambda _: 1
    about: str = ""

    def __call__(self, source: "Source | None" = None, **params: "str | float") -> "Use":
        """This feature over ``source``; a string value names a parameter of the strategy."""
        for name in params:
            if name not in self.params:
                raise UnknownName(f"parameter of feature {self.name}", name, self.params)
        chosen = source if source is not None else self.source
        return Use(self, chosen, tuple({**self.params, **params}.items()))

    @property
    def layout(self) -> np.dtype[Any]:
        """Record type of its parameters (one unused field when it has none)."""
        return np.dtype([(name, "f8") for name in self.params] or [("none", "f8")])


@dataclass(frozen=True, slots=True)
class Use:
    """A feature with its source and parameters chosen."""

    feature: Feature
    source: "Source | None"
    params: tuple[tuple[str, str | float], ...]

    def resolve(self, values: Mapping[str, float]) -> "Use":
        """The same with every named parameter replaced by its value, sources included."""
        params = tuple((k, values[v] if isinstance(v, str) else float(v)) for k, v in self.params)
        source = self.source.resolve(values) if isinstance(self.source, Use) else self.source
        return Use(self.feature, source, params)

    @property
    def fields(self) -> frozenset[str]:
        """Every market field it reads, through all its sources."""
        own = frozenset(self.feature.reads)
        if isinstance(self.source, Use):
            return own | self.source.fields
        return own | {self.source} if self.source else own

    def warmup(self) -> int:
        """Bars until it answers with a number; call it on a resolved use."""
        values = {name: float(value) for name, value in self.params}
        before = self.source.warmup() - 1 if isinstance(self.source, Use) else 0
        return before + self.feature.warmup(values)


Source: TypeAlias = str | Use
"""A market field by name, or another feature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One idea: ``decide(features, position, params) -> (target, confidence, reason)``.

    ``decide`` is pure and reads what it declares here: ``features`` by name (market fields or
    features), ``params`` by name. It is called at every bar of its instrument once all of them are
    numbers. Parameters called ``take_profit``, ``stop_loss`` and ``trailing_stop`` (fractions of
    the entry, 0 for none) become protective exits at the venue. With ``compiled=False``, or when
    numba refuses it, it runs as plain Python through the same step. ``program`` (one record) is for
    interpreters such as the rule language: ``features`` and ``params`` then come as records with
    one array ``values`` in the order declared, the program's own fields beside the latter.
    """

    name: str
    decide: Callable[..., Decision]
    reasons: type[IntEnum] | type[IntFlag]
    features: Mapping[str, Source]
    params: Mapping[str, Param] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    about: str = ""
    compiled: bool = True
    program: np.ndarray[Any, Any] | None = None

    @property
    def features_layout(self) -> np.dtype[Any]:
        """Record type of the features as ``decide`` gets them."""
        if self.program is not None:
            return np.dtype([("values", "f8", (PROGRAM_VALUES,))])
        return np.dtype([(name, "f8") for name in self.features])

    @property
    def params_layout(self) -> np.dtype[Any]:
        """Record type of the parameters as ``decide`` gets them."""
        if self.program is not None:
            values = ("values", "f8", (PROGRAM_VALUES,))
            return np.dtype([values, *self.program.dtype.descr])
        return np.dtype([(name, "f8") for name in self.params] or [("none", "f8")])

    def params_record(self, values: Mapping[str, float]) -> Records:
        """One record of ``params_layout`` filled with these values, in the order declared."""
        record = np.zeros(1, self.params_layout)
        if self.program is None:
            for name in self.params:
                record[name] = values[name]
            return record
        record["values"][0, : len(self.params)] = [values[name] for name in self.params]
        for name in self.program.dtype.names or ():
            record[name] = self.program[name]
        return record

    def values(self, chosen: Mapping[str, float] | None = None) -> dict[str, float]:
        """All parameters with the chosen ones laid over the defaults."""
        known = {name: param.default for name, param in self.params.items()}
        for name, value in (chosen or {}).items():
            if name not in known:
                raise UnknownName(f"parameter of strategy {self.name}", name, known)
            if not np.isfinite(value):
                raise ConfigError(f"strategy {self.name}: {name} must be a number, got {value}")
            known[name] = float(value)
        return known

    def profile(self, name: str) -> Mapping[str, float]:
        """Parameters of a named profile."""
        if name not in self.profiles:
            raise UnknownName(f"profile of strategy {self.name}", name, self.profiles)
        return self.profiles[name]

    def sources(self, values: Mapping[str, float]) -> dict[str, Source]:
        """Its inputs with every parameter in place."""
        return {
            name: source.resolve(values) if isinstance(source, Use) else source
            for name, source in self.features.items()
        }

    @property
    def fields(self) -> frozenset[str]:
        """Every market field it needs; raises UnknownName for one that does not exist."""
        found: set[str] = set()
        for source in self.features.values():
            found |= source.fields if isinstance(source, Use) else {source}
        for name in found:
            if name not in MARKET_FIELDS:
                raise UnknownName("market field", name, MARKET_FIELDS)
        return frozenset(found)

    def explain(self, code: int) -> str:
        """The text of a reason code."""
        if issubclass(self.reasons, IntFlag):
            parts = [flag.name for flag in self.reasons if flag & code and flag.name]
        else:
            parts = [self.reasons(code).name]
        return ", ".join(part.lower().replace("_", " ") for part in parts) or "none"
