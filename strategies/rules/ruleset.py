"""Rules as JSON: the schema, what is assumed where it is silent, and the strategy they make.

``entry`` conditions must all hold, one of ``exit`` is enough; ``short_entry`` and ``short_exit``
mirror them. A parameter is a number, or ``{"value", "low", "high"}`` where a search may move it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ConfigError
from core.strategy import PROGRAM_VALUES, Param, Strategy
from strategies.rules.expression import (
    Condition,
    Expression,
    Parameter,
    Series,
    describe,
    join,
    leaves,
    spell,
)
from strategies.rules.grammar import parse_condition
from strategies.rules.machine import SECTIONS, Assembler, Reason, decide
from strategies.rules.names import meaning

DEFAULT_RULES: dict[str, Any] = {
    "conditions": {
        "entry": ["price > ma_20", "volume > volume_ma"],
        "exit": ["price < ma_20", "drawdown > max_drawdown"],
    },
    "parameters": {
        "take_profit": 0.1,
        "stop_loss": 0.05,
        "order_size": 0.001,
        "max_orders": 3,
    },
}
"""The rules a proposer falls back on."""

STANDARD: dict[str, Param] = {
    "max_orders": Param(3, 1, 5, "orders a position may be built from"),
    "order_size": Param(0.001, 0.0005, 0.005, "fraction of equity an order is worth"),
    "take_profit": Param(0.1, 0.05, 0.3, "fraction of the entry, 0 for none"),
    "stop_loss": Param(0.05, 0.02, 0.15, "fraction of the entry, 0 for none"),
    "trailing_stop": Param(0.0, 0.0, 0.15, "fraction of the best price, 0 for none"),
}
"""Parameters every rule set has, in this order, with the values they take when not given."""

ASSUMED: dict[str, Param] = {
    "max_drawdown": Param(0.03, 0.01, 0.1, "fall of the price from its best since the entry"),
}
"""Parameters a rule may name without giving them. ``max_drawdown`` lies below the default stop, so
that an exit on it protects a gain before the stop cuts a loss."""

HARD_BOUNDS = {
    "max_orders": (1, 100),
    "order_size": (0, 1),
    "take_profit": (0, 100),
    "stop_loss": (0, 1),
    "trailing_stop": (0, 1),
}
TEXT_MAX, RULES_MAX = 65_536, 16

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
RuleName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
ParameterName = Annotated[str, Field(pattern=r"^[a-z](?:_?[a-z0-9])*$", max_length=40)]
RuleTexts = Annotated[tuple[str, ...], Field(max_length=RULES_MAX)]


class Bounded(BaseModel):
    """A parameter that a search may move between two bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: Finite
    low: Finite
    high: Finite


class Conditions(BaseModel):
    """When to enter and to leave."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    entry: RuleTexts = ()
    exit: RuleTexts = ()
    short_entry: RuleTexts = ()
    short_exit: RuleTexts = ()


class RulesDocument(BaseModel):
    """The JSON a person or a language model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: RuleName | None = None
    conditions: Conditions
    parameters: dict[ParameterName, Finite | Bounded] = {}


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules read and checked: a condition a section in canonical form, and all parameters."""

    name: str | None
    conditions: Mapping[str, Condition]
    params: Mapping[str, Param]

    @property
    def canonical(self) -> str:
        """One text for all spellings of these rules, their numbers included, their name not."""
        lines = [f"{section}: {spell(rule)}" for section, rule in self.conditions.items()]
        lines += [f"{name} = {float(self.params[name].default)!r}" for name in sorted(self.params)]
        return "\n".join(lines)

    @property
    def digest(self) -> str:
        """Hex digest of the canonical text: the key of a trial."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def series(self) -> tuple[Series, ...]:
        """Every series read, the close first."""
        read = (leaf for rule in self.conditions.values() for leaf in leaves(rule))
        return tuple(dict.fromkeys([Series("close"), *(s for s in read if isinstance(s, Series))]))

    def strategy(self) -> Strategy:
        """The strategy they make; all share one compiled ``decide``."""
        if max(len(self.series), len(self.params)) > PROGRAM_VALUES:
            raise ConfigError(
                f"rules read {len(self.series)} series and {len(self.params)} parameters, "
                f"at most {PROGRAM_VALUES} of each are allowed"
            )
        places = {series: place for place, series in enumerate(self.series)}
        return Strategy(
            name=self.name or f"rules-{self.digest[:8]}",
            about=self.canonical,
            decide=decide,
            reasons=Reason,
            features={describe(series.source): series.source for series in self.series},
            params=self.params,
            program=Assembler(places, tuple(self.params)).program(self.conditions),
        )


def load_rules(rules: str | Mapping[str, Any]) -> Strategy:
    """The strategy of a JSON text or mapping. Raises ConfigError for anything it does not know."""
    return parse_rules(rules).strategy()


def parse_rules(rules: str | Mapping[str, Any]) -> RuleSet:
    """Rules read and checked, not yet a strategy."""
    document = _document(rules)
    if not (document.conditions.entry or document.conditions.short_entry):
        raise ConfigError("rules need at least one entry or short_entry condition")
    params = _params(document)
    values = {name: param.default for name, param in {**ASSUMED, **params}.items()}
    conditions: dict[str, Condition] = {}
    for section in SECTIONS:
        texts: tuple[str, ...] = getattr(document.conditions, section)
        if texts:
            parsed = tuple(parse_condition(text, values) for text in texts)
            conditions[section] = join("and" if section.endswith("entry") else "or", parsed)
    return RuleSet(document.name, conditions, {**params, **_assumed(conditions, params)})


def full_size(values: Mapping[str, float]) -> float:
    """Fraction of equity of a full target: an order's share times the orders it is built from."""
    return values["order_size"] * int(values["max_orders"])


def _document(rules: str | Mapping[str, Any]) -> RulesDocument:
    if isinstance(rules, str) and len(rules) > TEXT_MAX:
        raise ConfigError(f"rules of {len(rules)} characters, at most {TEXT_MAX} are allowed")
    try:
        return RulesDocument.model_validate(json.loads(rules) if isinstance(rules, str) else rules)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "rules"
        raise ConfigError(f"rules: {place}: {first['msg']}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"rules are not JSON: {error}") from error


def _params(document: RulesDocument) -> dict[str, Param]:
    params = dict(STANDARD)
    for name, given in document.parameters.items():
        if name not in STANDARD and meaning(name, ()) is not None:
            raise ConfigError(f"rules: the parameter {name} has the name of something else")
        params[name] = _param(name, given)
        low, high = HARD_BOUNDS.get(name, (params[name].default, params[name].default))
        if not low <= params[name].default <= high:
            raise ConfigError(f"rules: {name} must lie in [{low}, {high}], got {given}")
    return params


def _param(name: str, given: float | Bounded) -> Param:
    known = STANDARD.get(name) or ASSUMED.get(name)
    if isinstance(given, Bounded):
        if not given.low <= given.value <= given.high:
            raise ConfigError(f"rules: {name} must lie between its bounds")
        return Param(given.value, given.low, given.high, known.about if known else "")
    if known:
        return Param(given, min(known.low, given), max(known.high, given), known.about)
    low, high = sorted((given / 2, given * 2))
    return Param(given, low, high)


def _assumed(conditions: Mapping[str, Expression], given: Mapping[str, Param]) -> dict[str, Param]:
    read = {leaf for rule in conditions.values() for leaf in leaves(rule)}
    return {n: p for n, p in ASSUMED.items() if Parameter(n) in read and n not in given}


__all__ = ["DEFAULT_RULES", "RuleSet", "full_size", "load_rules", "parse_rules"]
