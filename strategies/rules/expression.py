"""What a rule means, apart from how it was written: a small typed tree with one canonical form.

Two spellings of one condition have equal canonical text, so a ledger of trials does not count them
twice. Rewriting keeps the meaning exactly, NaN and rounding included: operands of ``+`` may change
places, but sums are never regrouped, and ``not a < b`` never becomes ``a >= b``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

from core.strategy import Source

Operator = Literal["+", "-", "*", "/"]
Relation = Literal["<", "<=", ">", ">=", "==", "!="]
Word = Literal["and", "or"]
Holding = Literal["gain", "bars_held", "drawdown"]


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class Parameter:
    """A named number of the rule set."""

    name: str


@dataclass(frozen=True, slots=True)
class Series:
    """A market field or feature at this bar."""

    source: Source


@dataclass(frozen=True, slots=True)
class Held:
    """Something about the open position."""

    what: Holding


@dataclass(frozen=True, slots=True)
class Negative:
    """Minus a number."""

    operand: "Numeric"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two numbers combined; a division by zero is NaN."""

    operator: Operator
    left: "Numeric"
    right: "Numeric"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two numbers compared; false when either is NaN."""

    relation: Relation
    left: "Numeric"
    right: "Numeric"


@dataclass(frozen=True, slots=True)
class Junction:
    """Conditions that must all hold, or of which one must."""

    word: Word
    terms: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a condition."""

    operand: "Condition"


Leaf: TypeAlias = Number | Parameter | Series | Held
Numeric: TypeAlias = Leaf | Negative | Arithmetic
Condition: TypeAlias = Comparison | Junction | Not
Expression: TypeAlias = Numeric | Condition


def is_condition(expression: Expression) -> bool:
    """Whether it is true or false, rather than a number."""
    return isinstance(expression, Comparison | Junction | Not)


def leaves(expression: Expression) -> Iterator[Leaf]:
    """Every leaf, from left to right, repeats included."""
    match expression:
        case Number() | Parameter() | Series() | Held():
            yield expression
        case Negative(operand) | Not(operand):
            yield from leaves(operand)
        case Arithmetic(_, left, right) | Comparison(_, left, right):
            yield from leaves(left)
            yield from leaves(right)
        case Junction(_, terms):
            for term in terms:
                yield from leaves(term)
        case _:
            assert_never(expression)


def describe(source: Source) -> str:
    """A source with all its arguments, as the rule language writes it."""
    if isinstance(source, str):
        return source
    first = [describe(source.source)] if source.source is not None else []
    named = [
        f"{name}={value if isinstance(value, str) else repr(float(value))}"
        for name, value in source.params
    ]
    return f"{source.feature.name}({', '.join(first + named)})"


def spell(expression: Expression) -> str:
    """Its text, fully bracketed; the rule language reads it back."""
    match expression:
        case Number(value):
            return repr(value)
        case Parameter(name) | Held(name):
            return name
        case Series(source):
            return describe(source)
        case Negative(operand):
            return f"(-{spell(operand)})"
        case Not(operand):
            return f"(not {spell(operand)})"
        case Arithmetic(sign, left, right) | Comparison(sign, left, right):
            return f"({spell(left)} {sign} {spell(right)})"
        case Junction(word, terms):
            return f"({f' {word} '.join(map(spell, terms))})"
        case _:
            assert_never(expression)


def canonical_number(number: Numeric) -> Numeric:
    """The same number in canonical form."""
    match number:
        case Negative(operand):
            return _negative(canonical_number(operand))
        case Arithmetic(operator, left, right):
            pair = (canonical_number(left), canonical_number(right))
            first, second = sorted(pair, key=spell) if operator in "+*" else pair
            return Arithmetic(operator, first, second)
        case _:
            return number


def _negative(operand: Numeric) -> Numeric:
    if isinstance(operand, Number):
        return Number(-operand.value)
    return operand.operand if isinstance(operand, Negative) else Negative(operand)


def canonical(condition: Condition) -> Condition:
    """The same condition in canonical form."""
    match condition:
        case Comparison():
            return _comparison(condition)
        case Junction(word, terms):
            return join(word, terms)
        case Not(Not(operand)):
            return canonical(operand)
        case Not(Junction(word, terms)):
            return join("or" if word == "and" else "and", tuple(Not(term) for term in terms))
        case Not(operand):
            return Not(canonical(operand))
        case _:
            assert_never(condition)


def _comparison(comparison: Comparison) -> Comparison:
    left, right = canonical_number(comparison.left), canonical_number(comparison.right)
    match comparison.relation:
        case ">":
            return Comparison("<", right, left)
        case ">=":
            return Comparison("<=", right, left)
        case "==" | "!=":
            first, second = sorted((left, right), key=spell)
            return Comparison(comparison.relation, first, second)
        case _:
            return Comparison(comparison.relation, left, right)


def join(word: Word, terms: tuple[Condition, ...]) -> Condition:
    """Canonical junction: nested ones of the same word lifted, repeats dropped, sorted by text."""
    flat: dict[str, Condition] = {}
    for term in map(canonical, terms):
        inner = term.terms if isinstance(term, Junction) and term.word == word else (term,)
        flat.update((spell(part), part) for part in inner)
    ordered = tuple(flat[text] for text in sorted(flat))
    return ordered[0] if len(ordered) == 1 else Junction(word, ordered)
