"""Four readings of a rule agree: as written, canonical, over columns, and in the machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rule_drive
from rule_drive import (
    PARAMS,
    SERIES,
    answers,
    condition,
    holds_by_machine,
    long_position,
    rows,
)

from core.errors import ConfigError
from strategies.rules.evaluation import holds_at, holds_over
from strategies.rules.expression import (
    Arithmetic,
    Comparison,
    Held,
    Junction,
    Number,
    Parameter,
    Series,
    canonical,
    spell,
)
from strategies.rules.grammar import LENGTH_MAX, parse_condition
from strategies.rules.machine import REGISTERS, registers

ROOT = Path(__file__).parents[2]
DEFAULTS = {name: param.default for name, param in PARAMS.items()}


def holdings(held, close):
    """What the three words about the position should be, from the record alone."""
    row = held[0]
    fall = np.zeros_like(close)
    if row["best"] > 0:
        fall = (row["best"] - close) / row["best"]
        fall = np.where(fall > 0, fall, 0.0)
    return {
        Held("gain"): np.full_like(close, row["gain"]),
        Held("bars_held"): np.full_like(close, row["bars_held"]),
        Held("drawdown"): fall,
    }


@pytest.mark.parametrize("seed", range(8))
def test_four_readings_agree_on_random_rules(seed):
    chance = np.random.default_rng(seed)
    held_true = 0
    for _ in range(300):
        rule, values, held = condition(chance, 4), rows(chance, 8), long_position(chance)
        values[Series("close")] = np.nan_to_num(values[Series("close")], posinf=9, neginf=-9)
        columns = {**values, **holdings(held, values[Series("close")])}
        columns |= {Parameter(name): value for name, value in DEFAULTS.items()}
        short = canonical(rule)
        for k in range(8):
            known = {
                leaf: np.asarray(value).ravel()[k % np.size(value)]
                for leaf, value in columns.items()
            }
            wanted = holds_at(rule, known)
            held_true += wanted
            assert holds_at(short, known) == wanted, spell(rule)
            assert np.broadcast_to(holds_over(rule, columns), 8)[k] == wanted, spell(rule)
        wanted_all = np.broadcast_to(holds_over(rule, columns), 8)
        np.testing.assert_array_equal(holds_by_machine(rule, values, held), wanted_all, spell(rule))
        np.testing.assert_array_equal(
            holds_by_machine(short, values, held), wanted_all, spell(short)
        )
        assert canonical(short) == short
    assert 300 < held_true < 2100


def test_what_is_spelled_is_read_back():
    chance = np.random.default_rng(5)
    count = 0
    for _ in range(500):
        rule = condition(chance, 4)
        if len(spell(rule)) <= LENGTH_MAX and spell(rule).count("(") < 60:
            assert parse_condition(spell(rule), DEFAULTS) == rule
            count += 1
    assert count > 100


def test_compiled_and_interpreted_machine_agree():
    interpreted = subprocess.run(
        [sys.executable, "-W", "error", rule_drive.__file__],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert interpreted.returncode == 0, interpreted.stderr
    assert interpreted.stdout == answers(200)


def balanced(depth):
    if depth == 0:
        return SERIES[0]
    return Arithmetic("-", balanced(depth - 1), balanced(depth - 1))


def leaning(depth, right):
    tree = SERIES[0]
    for _ in range(depth):
        sides = (Number(2.0), tree) if right else (tree, Number(2.0))
        tree = Arithmetic("-", *sides)
    return tree


def test_a_leaning_tree_needs_two_registers_and_a_balanced_one_all():
    assert registers(leaning(50, right=False)) == 2
    assert registers(leaning(50, right=True)) == 2
    assert registers(balanced(REGISTERS - 1)) == REGISTERS


def test_the_last_register_is_used_rightly():
    # 32 leaves on each side of the comparison: all seven registers are in use at once.
    rule = Comparison("<", balanced(5), Arithmetic("+", balanced(5), Number(1.0)))
    values = {series: np.full(1, 7.0) for series in SERIES}
    held = long_position(np.random.default_rng(0))
    with pytest.raises(ConfigError, match="127"):
        holds_by_machine(rule, values, held)
    rule = Comparison("<", balanced(5), Number(1.0))
    assert holds_by_machine(rule, values, held).all()
    numbers = iter(float(k * k % 37) for k in range(64))

    def numbered(depth):
        if depth == 0:
            return Parameter(("fast", "edge")[int(next(numbers)) % 2])
        return Arithmetic("-/*"[depth % 3], numbered(depth - 1), numbered(depth - 1))

    deep = Comparison("<", numbered(5), numbered(4))
    known = {Parameter(name): value for name, value in DEFAULTS.items()}
    assert holds_by_machine(deep, values, held).all() == holds_at(deep, known)


def test_too_long_a_rule_is_refused():
    terms = tuple(Comparison("<", SERIES[0], Number(float(k))) for k in range(60))
    with pytest.raises(ConfigError, match="at most 127"):
        holds_by_machine(Junction("or", terms), {s: np.zeros(1) for s in SERIES}, None)


def test_too_many_numbers_are_refused():
    total = SERIES[0]
    for k in range(33):
        total = Arithmetic("+", total, Number(float(k)))
    rule = Comparison("<", total, SERIES[1])
    with pytest.raises(ConfigError, match="more than 32 different numbers"):
        holds_by_machine(rule, {s: np.zeros(1) for s in SERIES}, None)
