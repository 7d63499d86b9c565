"""Rule text to expression, by a whitelist: what is not named here is refused, and nothing runs.

Rules come from language models and strangers. The text is cut into tokens by our own pattern, put
under limits, parsed by Python's parser for its precedence alone, and translated node by node. No
text is ever evaluated, compiled or used as a name of anything in Python.
"""

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from core.errors import ConfigError, UnknownName
from core.strategy import Feature, Source, Use
from strategies.features import lag
from strategies.rules.expression import (
    Arithmetic,
    Comparison,
    Condition,
    Expression,
    Held,
    Junction,
    Leaf,
    Negative,
    Not,
    Number,
    Numeric,
    Operator,
    Parameter,
    Relation,
    Series,
    is_condition,
    spell,
)
from strategies.rules.names import FUNCTIONS, known_names, meaning

LENGTH_MAX, DEPTH_MAX, NODES_MAX = 512, 24, 128
WARMUP_BARS_MAX = 10_000

TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?![\w.])"
    r"|(?P<name>[a-z]\w*(?:\.[a-z]\w*)*)"
    r"|(?P<sign><=|>=|==|!=|(?!\*\*|//)[-+*/<>(),=]))",
    re.ASCII,
)

OPERATORS: dict[type[ast.operator], Operator] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
}
RELATIONS: dict[type[ast.cmpop], Relation] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
CROSSES = ("crosses_above", "crosses_below")


def parse_condition(text: str, parameters: Mapping[str, float]) -> Condition:
    """The condition a rule states. Raises ConfigError that says what is wrong with it."""
    rule = _Rule(text, parameters)
    expression = rule.translate(_parse(text), 0)
    if not is_condition(expression):
        raise rule.refusal("it is a number, not a condition: compare it with something")
    return cast("Condition", expression)


def _refusal(text: str, why: str) -> ConfigError:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return ConfigError(f"rule {shown!r}: {why}")


def _tokens(text: str) -> list[str]:
    """Its tokens in lower case; a name keeps its dots."""
    lowered, at, found = text.lower().rstrip(), 0, []
    while at < len(lowered):
        match = TOKEN.match(lowered, at)
        if match is None:
            bad = lowered[at:].split(maxsplit=1)[0][:20]
            raise _refusal(text, f"{bad!r} is not part of the rule language")
        if match["number"] and not math.isfinite(float(match["number"])):
            raise _refusal(text, f"the number {match['number'][:20]} is too large")
        if "__" in match[0]:
            raise _refusal(text, f"{match[0].strip()!r} is not a name")
        found.append(match[0].strip())
        at = match.end()
    return found


def _nesting(tokens: Sequence[str]) -> int:
    deepest = depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        deepest = max(deepest, depth)
    return deepest


def _parse(text: str) -> ast.expr:
    if len(text) > LENGTH_MAX:
        raise _refusal(text, f"it has {len(text)} characters, at most {LENGTH_MAX} are allowed")
    tokens = _tokens(text)
    if not tokens:
        raise _refusal(text, "it is empty")
    if _nesting(tokens) > DEPTH_MAX:
        raise _refusal(text, f"it is nested deeper than {DEPTH_MAX}")
    try:
        tree = ast.parse(" ".join(tokens), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise _refusal(text, f"it cannot be read: {getattr(error, 'msg', error)}") from error
    if sum(isinstance(node, ast.expr) for node in ast.walk(tree)) > NODES_MAX:
        raise _refusal(text, f"it has more than {NODES_MAX} parts")
    return tree


def _dotted(node: ast.expr) -> str | None:
    """``a.b`` as it was written, if that is all it is."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else None
    return None


def _one_bar_ago(number: Numeric) -> Numeric | None:
    """The same number as of the bar before, or None where that is not known."""
    match number:
        case Series(source):
            return Series(lag(source, window=1))
        case Negative(operand):
            inner = _one_bar_ago(operand)
            return Negative(inner) if inner else None
        case Arithmetic(operator, left, right):
            first, second = _one_bar_ago(left), _one_bar_ago(right)
            return Arithmetic(operator, first, second) if first and second else None
        case Held():
            return None
        case _:
            return number


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule's text, for messages, and the parameters it may name."""

    text: str
    parameters: Mapping[str, float]

    def refusal(self, why: str) -> ConfigError:
        return _refusal(self.text, why)

    def translate(self, node: ast.expr, depth: int) -> Expression:
        """One node and all below it."""
        if depth > DEPTH_MAX:
            raise self.refusal(f"it is nested deeper than {DEPTH_MAX}")
        match node:
            case ast.BoolOp(op, values):
                word = "and" if isinstance(op, ast.And) else "or"
                terms = tuple(self.condition(value, depth, word) for value in values)
                return Junction("and" if word == "and" else "or", terms)
            case ast.UnaryOp(ast.Not(), operand):
                return Not(self.condition(operand, depth, "not"))
            case ast.UnaryOp(ast.USub(), operand):
                return Negative(self.number(operand, depth, "-"))
            case ast.BinOp(left, op, right) if type(op) in OPERATORS:
                sign = OPERATORS[type(op)]
                sides = self.number(left, depth, sign), self.number(right, depth, sign)
                return Arithmetic(sign, *sides)
            case ast.Compare(left, ops, comparators):
                return self.comparison(left, ops, comparators, depth)
            case ast.Call():
                return self.call(node, depth)
            case _:
                return self.leaf(node)

    def number(self, node: ast.expr, depth: int, around: str) -> Numeric:
        expression = self.translate(node, depth + 1)
        if is_condition(expression):
            raise self.refusal(f"'{around}' needs numbers, got the condition {spell(expression)}")
        return cast("Numeric", expression)

    def condition(self, node: ast.expr, depth: int, around: str) -> Condition:
        expression = self.translate(node, depth + 1)
        if not is_condition(expression):
            raise self.refusal(f"'{around}' needs conditions, got the number {spell(expression)}")
        return cast("Condition", expression)

    def comparison(
        self, left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr], depth: int
    ) -> Comparison:
        if len(ops) > 1:
            raise self.refusal("one comparison at a time: write 'a < b and b < c'")
        relation = RELATIONS.get(type(ops[0]))
        if relation is None:
            raise self.refusal(f"{type(ops[0]).__name__} is not part of the rule language")
        sides = self.number(left, depth, relation), self.number(comparators[0], depth, relation)
        return Comparison(relation, *sides)

    def leaf(self, node: ast.expr) -> Leaf:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return Number(float(cast("float", node.value)))
        name = _dotted(node)
        if name is None:
            raise self.refusal(f"{type(node).__name__} is not part of the rule language")
        found = meaning(name, self.parameters)
        if found is None:
            raise UnknownName("name", name, known_names(self.parameters))
        if isinstance(found, Series):
            self.check(found.source)
        return found

    def call(self, node: ast.Call, depth: int) -> Expression:
        name = _dotted(node.func)
        if name in CROSSES:
            return self.crossing(node, name, depth)
        if name not in FUNCTIONS:
            raise UnknownName("function", name or "?", [*FUNCTIONS, *CROSSES])
        return Series(self.feature(FUNCTIONS[name], node, depth))

    def crossing(self, node: ast.Call, name: str, depth: int) -> Junction:
        """Above now, and not above one bar ago; below is the same with the sides changed."""
        if len(node.args) != 2 or node.keywords:
            raise self.refusal(f"{name} takes two numbers: {name}(a, b)")
        sides = [self.number(arg, depth, name) for arg in node.args]
        above, below = sides if name == "crosses_above" else reversed(sides)
        above_before, below_before = _one_bar_ago(above), _one_bar_ago(below)
        if above_before is None or below_before is None:
            raise self.refusal(f"{name} cannot look back at the position")
        crossed = Comparison(">", above, below), Comparison("<=", above_before, below_before)
        return Junction("and", crossed)

    def feature(self, feature: Feature, node: ast.Call, depth: int) -> Use:
        """A feature with its arguments: a series first where it reads one, then its parameters."""
        args = list(node.args)
        source = self.source(args[0], depth) if args else None
        if source is not None:
            if feature.source is None:
                raise self.refusal(f"{feature.name} reads the market itself and takes no series")
            args = args[1:]
        if len(args) > len(feature.params):
            raise self.refusal(f"{feature.name} takes {', '.join(feature.params) or 'no numbers'}")
        given = dict(zip(feature.params, map(self.argument, args), strict=False))
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in given:
                raise self.refusal(f"{feature.name} is given {keyword.arg} twice")
            given[keyword.arg] = self.argument(keyword.value)
        use = feature(source, **given)
        self.check(use)
        return use

    def source(self, node: ast.expr, depth: int) -> Source | None:
        """The series a first argument names, or None when it is a number or a parameter."""
        if isinstance(node, ast.Constant | ast.UnaryOp) or _dotted(node) in self.parameters:
            return None
        series = self.number(node, depth, "a feature")
        if not isinstance(series, Series):
            raise self.refusal(f"a feature is taken of a series, got {spell(series)}")
        return series.source

    def argument(self, node: ast.expr) -> str | float:
        """A number, or the name of a parameter."""
        negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        inner = cast("ast.UnaryOp", node).operand if negative else node
        leaf = self.leaf(inner)
        if isinstance(leaf, Number):
            return -leaf.value if negative else leaf.value
        if isinstance(leaf, Parameter) and not negative:
            return leaf.name
        raise self.refusal(f"an argument is a number or a parameter, got {spell(leaf)}")

    def check(self, source: Source) -> None:
        """Refuse lengths that are no lengths, or that no run could be long enough for."""
        if isinstance(source, str):
            return
        resolved = source.resolve(self.parameters)
        if resolved.warmup() > WARMUP_BARS_MAX:
            raise self.refusal(f"it needs more than {WARMUP_BARS_MAX} bars of history")
