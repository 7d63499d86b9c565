"""Bytecode for conditions, and the one compiled ``decide`` that all rule strategies share.

The machine is compiled once, so a new rule starts in microseconds and a thousand of them cost no
compiler time. It keeps its stack in seven local variables, without memory of its own: with the
harder side evaluated first, a tree needs more than seven only beyond 64 leaves.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from core.compiled import compiled
from core.errors import ConfigError
from core.strategy import Decision, PositionView
from strategies.rules.expression import (
    Arithmetic,
    Comparison,
    Condition,
    Expression,
    Held,
    Junction,
    Negative,
    Not,
    Number,
    Parameter,
    Series,
)

WORDS_MAX, CONSTANTS_MAX, REGISTERS = 128, 32, 7
SECTIONS = ("entry", "exit", "short_entry", "short_exit")
PROGRAM = np.dtype(
    [*((section, "i8", (WORDS_MAX,)) for section in SECTIONS), ("constants", "f8", CONSTANTS_MAX)]
)
"""A section is words of ``operation + 32 * operand``, ended by END; an empty one never holds."""

Words: TypeAlias = NDArray[np.int64]


class Reason(IntEnum):
    """Why the rules want what they want. FLAT: no entry, or both sides' entries at once."""

    FLAT = 1
    ENTRY = 2
    ADD = 3
    EXIT = 4
    SHORT_ENTRY = 5
    SHORT_ADD = 6
    SHORT_EXIT = 7
    HOLD = 8


# Compiled code cannot turn a member of an enum into the integer a decision carries.
_FLAT, _ENTRY, _ADD, _EXIT, _SHORT_ENTRY, _SHORT_ADD, _SHORT_EXIT, _HOLD = (
    int(reason) for reason in Reason
)

# Operations: the first five push a value, two change the top, the others join the top two.
END, CONSTANT, PARAMETER, VALUE, HELD = range(5)
NEGATIVE, NOT = 5, 6
ADD, SUBTRACT, SUBTRACT_FROM, MULTIPLY, DIVIDE, DIVIDE_INTO = range(7, 13)
LESS, LESS_EQUAL, MORE, MORE_EQUAL, EQUAL, UNEQUAL, AND, OR = range(13, 21)
OPERAND_BITS = 5
OPERAND = 1 << OPERAND_BITS

# How two operands are joined when the left, or the right, was evaluated first.
FORWARD = dict(
    zip(
        ("+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!="),
        (ADD, SUBTRACT, MULTIPLY, DIVIDE, LESS, LESS_EQUAL, MORE, MORE_EQUAL, EQUAL, UNEQUAL),
        strict=True,
    )
)
SWAPPED = {"-": SUBTRACT_FROM, "/": DIVIDE_INTO}
BACKWARD = {**FORWARD, **SWAPPED, "<": MORE, "<=": MORE_EQUAL, ">": LESS, ">=": LESS_EQUAL}
HOLDINGS = {"gain": 0, "bars_held": 1, "drawdown": 2}


def registers(expression: Expression) -> int:
    """Registers it needs when the harder side goes first."""
    match expression:
        case Number() | Parameter() | Series() | Held():
            return 1
        case Negative(operand) | Not(operand):
            return registers(operand)
        case Arithmetic(_, left, right) | Comparison(_, left, right):
            return _joined([registers(left), registers(right)])
        case Junction(_, terms):
            return _joined([registers(term) for term in terms])
        case _:
            assert_never(expression)


def _joined(needs: Iterable[int]) -> int:
    first, *others = sorted(needs, reverse=True)
    return max([first, *(need + 1 for need in others)])


class Assembler:
    """Turns conditions into words, with places for the features and parameters they read."""

    def __init__(self, values: Mapping[Series, int], parameters: Sequence[str]) -> None:
        self.values = values
        self.parameters = {name: place for place, name in enumerate(parameters)}
        self.constants: dict[str, int] = {}

    def section(self, condition: Condition | None) -> Words:
        """Words of one condition; none never holds."""
        words = np.zeros(WORDS_MAX, np.int64)
        if condition is None:
            return words
        found = list(self.words(condition))
        if len(found) >= WORDS_MAX or registers(condition) > REGISTERS:
            raise ConfigError(f"rules of one kind take {len(found)} steps, at most {WORDS_MAX - 1}")
        words[: len(found)] = found
        return words

    def words(self, expression: Expression) -> Iterable[int]:
        match expression:
            case Number(value):
                yield CONSTANT + OPERAND * self.constants.setdefault(
                    repr(value), len(self.constants)
                )
            case Parameter(name):
                yield PARAMETER + OPERAND * self.parameters[name]
            case Series():
                yield VALUE + OPERAND * self.values[expression]
            case Held(what):
                yield HELD + OPERAND * HOLDINGS[what]
            case Negative(operand):
                yield from self.words(operand)
                yield NEGATIVE
            case Not(operand):
                yield from self.words(operand)
                yield NOT
            case Arithmetic(sign, left, right) | Comparison(sign, left, right):
                forward = registers(left) >= registers(right)
                for side in (left, right) if forward else (right, left):
                    yield from self.words(side)
                yield FORWARD[sign] if forward else BACKWARD[sign]
            case Junction(word, terms):
                for place, term in enumerate(sorted(terms, key=registers, reverse=True)):
                    yield from self.words(term)
                    if place:
                        yield AND if word == "and" else OR
            case _:
                assert_never(expression)

    def program(self, conditions: Mapping[str, Condition | None]) -> Any:
        """One PROGRAM record."""
        program = np.zeros(1, PROGRAM)
        for section in SECTIONS:
            program[section] = self.section(conditions.get(section))
        if len(self.constants) > CONSTANTS_MAX:
            raise ConfigError(f"rules name more than {CONSTANTS_MAX} different numbers")
        program["constants"][0, : len(self.constants)] = [float(text) for text in self.constants]
        return program


@compiled
def combine(operation: int, a: float, b: float) -> float:
    """Join two numbers."""
    if operation == ADD:
        return a + b
    if operation == SUBTRACT:
        return a - b
    if operation == SUBTRACT_FROM:
        return b - a
    if operation == MULTIPLY:
        return a * b
    if operation == DIVIDE:
        return a / b if b != 0.0 else math.nan
    return b / a if a != 0.0 else math.nan


@compiled
def compare(operation: int, a: float, b: float) -> bool:
    """Compare two numbers, or join two truths; NaN compares false, also by UNEQUAL."""
    if operation == LESS:
        return a < b
    if operation == LESS_EQUAL:
        return a <= b
    if operation == MORE:
        return a > b
    if operation == MORE_EQUAL:
        return a >= b
    if operation == EQUAL:
        return a == b
    if operation == UNEQUAL:
        return a < b or a > b
    if operation == AND:
        return a != 0.0 and b != 0.0
    return a != 0.0 or b != 0.0


@compiled
def holding(what: int, f: Any, position: Any) -> float:
    """Something about the open position, 0 without one. The first feature is the close."""
    if position.quantity == 0.0:
        return 0.0
    if what == 0:
        return float(position.gain)
    if what == 1:
        return float(position.bars_held)
    best, price = float(position.best), float(f.values[0])
    fall = best - price if position.quantity > 0.0 else price - best
    return fall / best if best > 0.0 and fall > 0.0 else 0.0


@compiled
def holds(words: Any, f: Any, position: Any, p: Any) -> bool:
    """Run one section."""
    top, a, b, c, d, e, g = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    at = 0
    while True:
        word = words[at]
        operation, operand = word & (OPERAND - 1), word >> OPERAND_BITS
        at += 1
        if operation == END:
            return top != 0.0
        if operation == NEGATIVE:
            top = -top
        elif operation == NOT:
            top = 1.0 if top == 0.0 else 0.0
        elif operation > NOT:
            if operation < LESS:
                top = combine(operation, a, top)
            else:
                top = 1.0 if compare(operation, a, top) else 0.0
            a, b, c, d, e = b, c, d, e, g
        else:
            a, b, c, d, e, g = top, a, b, c, d, e
            if operation == VALUE:
                top = float(f.values[operand])
            elif operation == PARAMETER:
                top = float(p.values[operand])
            elif operation == CONSTANT:
                top = float(p.constants[operand])
            else:
                top = holding(operand, f, position)


@compiled
def step_up(position: Any, p: Any) -> float:
    """Share of the full size with one more order; the number of orders is the first parameter."""
    orders = max(float(int(p.values[0])), 1.0)
    done = float(int(abs(position.target) * orders + 0.5))
    return min((done + 1.0) / orders, 1.0)


@compiled
def while_long(f: Any, position: Any, p: Any) -> tuple[float, float, int]:
    """Leave, reverse, add or hold."""
    if holds(p.exit, f, position, p):
        return 0.0, 1.0, _EXIT
    again = holds(p.entry, f, position, p)
    if not again and holds(p.short_entry, f, position, p):
        return -1.0 / max(float(int(p.values[0])), 1.0), 1.0, _SHORT_ENTRY
    target = step_up(position, p)
    if again and position.quantity > 0.0 and position.gain >= 0.0 and target > position.target:
        return target, 1.0, _ADD
    return float(position.target), 1.0, _HOLD


@compiled
def while_short(f: Any, position: Any, p: Any) -> tuple[float, float, int]:
    """The same with the sides changed."""
    if holds(p.short_exit, f, position, p):
        return 0.0, 1.0, _SHORT_EXIT
    again = holds(p.short_entry, f, position, p)
    if not again and holds(p.entry, f, position, p):
        return 1.0 / max(float(int(p.values[0])), 1.0), 1.0, _ENTRY
    target = -step_up(position, p)
    if again and position.quantity < 0.0 and position.gain >= 0.0 and target < position.target:
        return target, 1.0, _SHORT_ADD
    return float(position.target), 1.0, _HOLD


def decide(f: Any, position: PositionView, p: Any) -> Decision:
    """Enter by one order at a time, add only to what is not losing, leave at once and wholly."""
    if position.target > 0.0:
        return while_long(f, position, p)
    if position.target < 0.0:
        return while_short(f, position, p)
    share = 1.0 / max(float(int(p.values[0])), 1.0)
    long = holds(p.entry, f, position, p) and not holds(p.exit, f, position, p)
    short = holds(p.short_entry, f, position, p) and not holds(p.short_exit, f, position, p)
    if long and not short:
        return share, 1.0, _ENTRY
    if short and not long:
        return -share, 1.0, _SHORT_ENTRY
    return 0.0, 1.0, _FLAT
