"""Runs rules without the engine: random expressions, and the compiled machine on rows of values.

As a program it writes the answers of many random rules, so that a test can compare the compiled
with the interpreted run.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.compiled import address_of, call_decide, compiled
from core.model import POSITION
from core.strategy import Param, Strategy
from strategies.features import macd_signal, rsi, sma
from strategies.rules.expression import (
    Arithmetic,
    Comparison,
    Held,
    Junction,
    Negative,
    Not,
    Number,
    Parameter,
    Series,
)
from strategies.rules.machine import Reason
from strategies.rules.ruleset import STANDARD, RuleSet

SOURCES = ("close", "volume", sma(), sma(window="fast"), rsi("volume", window=5), macd_signal())
SERIES = tuple(Series(source) for source in SOURCES)
PARAMS = {**STANDARD, "fast": Param(3.0, 1, 9), "edge": Param(-0.5, -1, 1)}
LEAVES = (
    *SERIES,
    *(Number(value) for value in (0.0, 1.0, 2.5, 30.0)),
    *(Parameter("fast"), Parameter("edge")),
    *(Held("gain"), Held("bars_held"), Held("drawdown")),
)
AWKWARD = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 2.5, 30.0, 1e308, 5e-324)


@compiled
def ask(callee: int, features: int, step: int, position: int, params: int, reasons: Any) -> None:
    """Decide once for every row of features."""
    for k in range(len(reasons)):
        reasons[k] = call_decide(callee, features + k * step, position, params)[2]


@compiled
def ask_one(callee: int, features: int, position: int, params: int) -> Any:
    """Decide once."""
    return call_decide(callee, features, position, params)


def wire(strategy: Strategy) -> tuple[int, Any]:
    shape = (strategy.features_layout, POSITION, strategy.params_layout)
    return address_of(strategy.decide, "RRR:d", *shape), strategy.params_record(strategy.values())


def position(**fields: float) -> Any:
    row = np.zeros(1, POSITION)
    for name, value in fields.items():
        row[name] = value
    return row


def decision(strategy: Strategy, held: Any, **values: float) -> tuple[float, str]:
    """Target and reason, given the values of its features by name."""
    callee, params = wire(strategy)
    features = np.zeros(1, strategy.features_layout)
    features["values"][0, : len(strategy.features)] = [values[n] for n in strategy.features]
    target, confidence, reason = ask_one(
        callee, features.ctypes.data, held.ctypes.data, params.ctypes.data
    )
    assert confidence == 1.0
    return target, Reason(reason).name


def holds_by_machine(condition: Any, values: Mapping[Series, Any], held: Any) -> Any:
    """Where the machine says that a condition holds, as the exit of a long position."""
    rules = RuleSet(None, {"exit": condition}, PARAMS)
    strategy = rules.strategy()
    callee, params = wire(strategy)
    rows = len(values[SERIES[0]])
    features = np.zeros(rows, strategy.features_layout)
    for place, series in enumerate(rules.series):
        features["values"][:, place] = values[series]
    reasons = np.zeros(rows, np.int64)
    ask(
        callee,
        features.ctypes.data,
        features.itemsize,
        held.ctypes.data,
        params.ctypes.data,
        reasons,
    )
    return reasons == Reason.EXIT


def number(chance: Any, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.3:
        return LEAVES[chance.integers(len(LEAVES))]
    if chance.random() < 0.15:
        return Negative(number(chance, depth - 1))
    sign = "+-*/"[chance.integers(4)]
    return Arithmetic(sign, number(chance, depth - 1), number(chance, depth - 1))


def condition(chance: Any, depth: int) -> Any:
    """A random condition, not canonical."""
    pick = chance.random()
    if depth <= 1 or pick < 0.35:
        relation = ("<", "<=", ">", ">=", "==", "!=")[chance.integers(6)]
        return Comparison(relation, number(chance, depth - 1), number(chance, depth - 1))
    if pick < 0.55:
        return Not(condition(chance, depth - 1))
    terms = tuple(condition(chance, depth - 1) for _ in range(chance.integers(2, 4)))
    return Junction("and" if chance.random() < 0.5 else "or", terms)


def rows(chance: Any, count: int) -> dict[Series, Any]:
    """Values of every series, half of them awkward."""
    return {
        series: np.where(
            chance.random(count) < 0.5, chance.choice(AWKWARD, count), chance.normal(0, 5, count)
        )
        for series in SERIES
    }


def long_position(chance: Any) -> Any:
    gain, best = chance.normal(0, 0.1), chance.choice([0.0, 1.0, 3.0])
    bars_held = chance.integers(0, 4)
    return position(target=1.0, quantity=2.0, gain=gain, best=best, bars_held=bars_held)


def answers(count: int) -> str:
    """What many random rules say, as one text."""
    chance = np.random.default_rng(11)
    found = []
    for _ in range(count):
        rule, values = condition(chance, 4), rows(chance, 8)
        found.extend(holds_by_machine(rule, values, long_position(chance)))
    return "".join("01"[int(one)] for one in found)


if __name__ == "__main__":
    sys.stdout.write(answers(200))
