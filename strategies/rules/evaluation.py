"""Two plain readings of a rule: one bar at a time, and a whole history at once.

The first is the oracle of the property tests: as slow and as obvious as can be. The second screens
many rules over known columns without compiling anything. The machine must agree with both.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from strategies.rules.expression import (
    Arithmetic,
    Comparison,
    Condition,
    Held,
    Junction,
    Negative,
    Not,
    Number,
    Numeric,
    Parameter,
    Series,
)

Column: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}

Scalars: TypeAlias = Mapping[Parameter | Series | Held, float]
Columns: TypeAlias = Mapping[Parameter | Series | Held, Column | float]


def number_at(number: Numeric, known: Scalars) -> float:
    """Its value, given the value of every name in it."""
    match number:
        case Number(value):
            return value
        case Parameter() | Series() | Held():
            return float(known[number])
        case Negative(operand):
            return -number_at(operand, known)
        case Arithmetic("/", left, right):
            below = number_at(right, known)
            return number_at(left, known) / below if below != 0.0 else math.nan
        case Arithmetic(sign, left, right):
            return float(COMBINE[sign](number_at(left, known), number_at(right, known)))
        case _:
            assert_never(number)


def holds_at(condition: Condition, known: Scalars) -> bool:
    """Whether it holds, given the value of every name in it."""
    match condition:
        case Comparison(relation, left, right):
            a, b = number_at(left, known), number_at(right, known)
            return not (math.isnan(a) or math.isnan(b)) and bool(COMPARE[relation](a, b))
        case Junction("and", terms):
            return all(holds_at(term, known) for term in terms)
        case Junction(_, terms):
            return any(holds_at(term, known) for term in terms)
        case Not(operand):
            return not holds_at(operand, known)
        case _:
            assert_never(condition)


def number_over(number: Numeric, known: Columns) -> Column:
    """Its values over a history, given a column (or one value) for every name in it."""
    match number:
        case Number(value):
            return np.asarray(value, np.float64)
        case Parameter() | Series() | Held():
            return np.asarray(known[number], np.float64)
        case Negative(operand):
            return np.negative(number_over(operand, known))
        case Arithmetic("/", left, right):
            above, below = number_over(left, known), number_over(right, known)
            return np.where(below != 0.0, above / below, math.nan)
        case Arithmetic(sign, left, right):
            return np.asarray(COMBINE[sign](number_over(left, known), number_over(right, known)))
        case _:
            assert_never(number)


def _holds_over(condition: Condition, known: Columns) -> Mask:
    match condition:
        case Comparison("!=", left, right):
            a, b = number_over(left, known), number_over(right, known)
            return (a < b) | (a > b)
        case Comparison(relation, left, right):
            answer = COMPARE[relation](number_over(left, known), number_over(right, known))
            return np.asarray(answer, np.bool_)
        case Junction(word, terms):
            join = np.logical_and if word == "and" else np.logical_or
            return np.asarray(
                join.reduce(np.broadcast_arrays(*(_holds_over(t, known) for t in terms)))
            )
        case Not(operand):
            return np.logical_not(_holds_over(operand, known))
        case _:
            assert_never(condition)


def holds_over(condition: Condition, known: Columns) -> Mask:
    """Where it holds over a history, given a column (or one value) for every name in it."""
    with np.errstate(all="ignore"):
        return _holds_over(condition, known)
