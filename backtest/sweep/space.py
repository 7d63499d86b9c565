"""Which combinations a sweep tries: ranges of parameters, as a grid or by Sobol's sequence.

Both are fixed lists: equal ranges, number and seed give equal combinations in equal order, on any
machine and any number of threads.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from core.errors import ConfigError, UnknownName
from core.strategy import Param, Strategy

COMBINATIONS_MAX = 1_000_000
"""More than a person can mean; the trial count alone would sink every result."""

Point: TypeAlias = dict[str, float]
"""One combination: the values of the parameters that are searched, by name."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What one parameter may be: listed ``values``, or anything from ``low`` to ``high``.

    ``whole``: whole numbers only.
    """

    name: str
    low: float
    high: float
    whole: bool = False
    values: tuple[float, ...] = ()

    def at(self, share: float) -> float:
        """The value at a share in [0, 1) of the range."""
        if self.values:
            return self.values[int(share * len(self.values))]
        if self.whole:
            return self.low + math.floor(share * (self.high - self.low + 1))
        return self.low + share * (self.high - self.low)


def declared(name: str, param: Param) -> Axis:
    """The range a strategy declares. Bounds and default that are whole, and more than one apart,
    are those of a count, such as bars: only whole numbers are searched."""
    bounds = (param.low, param.high, param.default)
    whole = all(float(bound).is_integer() for bound in bounds) and param.high - param.low > 1
    return Axis(name, float(param.low), float(param.high), whole)


def parse_axis(strategy: Strategy, name: str, text: str) -> Axis:
    """A range as typed: ``5:50:5`` with its step, ``5:50`` without, or the values ``5,10,20``.

    ConfigError for what is none of them, UnknownName for a parameter the strategy lacks.
    """
    if name not in strategy.params:
        raise UnknownName(f"parameter of strategy {strategy.name}", name, strategy.params)
    try:
        if "," in text or ":" not in text:
            values = tuple(float(part) for part in text.split(","))
            return _listed(name, text, values)
        bounds = [float(part) for part in text.split(":")]
    except ValueError:
        bounds = []
    if len(bounds) not in {2, 3} or not all(map(math.isfinite, bounds)) or bounds[1] < bounds[0]:
        raise ConfigError(f"{name}={text}: write {name}=LOW:HIGH:STEP, LOW:HIGH or A,B,C")
    if len(bounds) == 2:
        whole = declared(name, strategy.params[name]).whole and all(b.is_integer() for b in bounds)
        return Axis(name, bounds[0], bounds[1], whole)
    return _stepped(name, text, *bounds)


def _listed(name: str, text: str, values: tuple[float, ...]) -> Axis:
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"{name}={text}: every value must be a number")
    distinct = tuple(dict.fromkeys(values))
    return Axis(name, min(distinct), max(distinct), values=distinct)


def _stepped(name: str, text: str, low: float, high: float, step: float) -> Axis:
    if step <= 0:
        raise ConfigError(f"{name}={text}: the step must be above zero")
    count = math.floor((high - low) / step + 1e-9) + 1
    if count > COMBINATIONS_MAX:
        raise ConfigError(f"{name}={text}: {count:,} values, at most {COMBINATIONS_MAX:,}")
    # rounded, or 0.1 + 2 * 0.1 would be another number than the 0.3 a person types
    return Axis(name, low, high, values=tuple(round(low + k * step, 12) for k in range(count)))


def grid(axes: Sequence[Axis]) -> list[Point]:
    """Every combination, the last axis changing fastest. ConfigError when a range has no step."""
    for axis in axes:
        if not axis.values:
            hint = f"{axis.name}={axis.low:g}:{axis.high:g}:STEP"
            raise ConfigError(f"a grid needs a step: write --set {hint}")
    count = math.prod(len(axis.values) for axis in axes) if axes else 0
    if count == 0:
        raise ConfigError("the grid is empty: give ranges, as in --set fast=5:50:5")
    _refuse_too_many(count)
    names = [axis.name for axis in axes]
    products = itertools.product(*(axis.values for axis in axes))
    return [dict(zip(names, values, strict=True)) for values in products]


def sobol(axes: Sequence[Axis], count: int, seed: int) -> list[Point]:
    """At most ``count`` combinations that fill the ranges evenly (scrambled Sobol sequence).

    Fewer where whole numbers make two of them the same.
    """
    from scipy.stats import qmc

    if not axes:
        raise ConfigError("nothing to search: no parameter has a range")
    _refuse_too_many(count)
    sequence = qmc.Sobol(len(axes), scramble=True, rng=seed)
    shares = sequence.random_base2(max(count - 1, 0).bit_length())[:count]
    return list(
        _distinct(
            {a.name: a.at(float(x)) for a, x in zip(axes, row, strict=True)} for row in shares
        )
    )


def _distinct(points: Iterable[Point]) -> Iterator[Point]:
    seen: set[tuple[float, ...]] = set()
    for point in points:
        key = tuple(point.values())
        if key not in seen:
            seen.add(key)
            yield point


def _refuse_too_many(count: int) -> None:
    if count > COMBINATIONS_MAX:
        raise ConfigError(f"{count:,} combinations are too many: at most {COMBINATIONS_MAX:,}")


def axes_of(strategy: Strategy, given: Mapping[str, str], fixed: Iterable[str]) -> list[Axis]:
    """The ranges given as text; without any, every declared range but those of ``fixed`` ones.

    A range with one value only is left out of the declared ones.
    """
    if given:
        return [parse_axis(strategy, name, text) for name, text in given.items()]
    kept = set(fixed)
    ranges = [declared(name, param) for name, param in strategy.params.items() if name not in kept]
    return [axis for axis in ranges if axis.high > axis.low]
