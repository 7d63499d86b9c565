"""Rule sets: the JSON they come as, the strategy they make, and what it decides."""

import json

import numpy as np
import pytest
from rule_drive import decision, position

from core.compiled import compile_error
from core.errors import ConfigError, UnknownName
from core.model import POSITION
from strategies.rules import DEFAULT_RULES, full_size, load_rules, parse_rules
from strategies.rules.machine import Reason

MA, VOLUME_MA = "sma(close, window=20.0)", "volume_mean(volume, window=20.0)"


def rules(entry=("close > 1",), leave=(), parameters=None, **other):
    conditions = {"entry": list(entry), "exit": list(leave), **other}
    return {"conditions": conditions, "parameters": parameters or {}}


def market(close=100.0, ma=90.0, volume=2.0, volume_ma=1.0):
    return {"close": close, MA: ma, "volume": volume, VOLUME_MA: volume_ma}


def long(orders=1, of=3, gain=0.01, best=100.0, **fields):
    return position(target=orders / of, quantity=1.0, gain=gain, best=best, **fields)


FLAT = position()


def test_the_default_rules_run_exactly_as_given():
    strategy = load_rules(DEFAULT_RULES)
    assert set(strategy.features) == {"close", MA, "volume", VOLUME_MA}
    assert decision(strategy, FLAT, **market()) == (1 / 3, "ENTRY")
    assert decision(strategy, FLAT, **market(volume=0.5)) == (0.0, "FLAT")
    assert decision(strategy, FLAT, **market(ma=110.0)) == (0.0, "FLAT")
    assert decision(strategy, long(), **market(ma=110.0)) == (0.0, "EXIT")
    assert decision(strategy, long(), **market(volume=0.5)) == (1 / 3, "HOLD")


def test_the_default_exit_on_drawdown_looks_at_the_best_price_of_the_position():
    strategy = load_rules(DEFAULT_RULES)
    assert strategy.values()["max_drawdown"] == 0.03
    assert decision(strategy, long(best=103.0), **market(volume=0.5)) == (1 / 3, "HOLD")
    assert decision(strategy, long(best=103.2), **market(volume=0.5)) == (0.0, "EXIT")
    assert decision(strategy, position(best=200.0), **market()) == (1 / 3, "ENTRY")


def test_parameters_are_protective_exits_and_sizes():
    values = load_rules(DEFAULT_RULES).values()
    assert (values["take_profit"], values["stop_loss"], values["trailing_stop"]) == (0.1, 0.05, 0)
    assert full_size(values) == pytest.approx(0.003)
    assert full_size({**values, "max_orders": 2.0}) == 0.002


def test_a_position_is_built_from_orders_and_never_grows_while_it_loses():
    strategy = load_rules(DEFAULT_RULES)
    assert decision(strategy, long(1), **market()) == (2 / 3, "ADD")
    assert decision(strategy, long(2), **market()) == (1.0, "ADD")
    assert decision(strategy, long(3), **market()) == (1.0, "HOLD")
    assert decision(strategy, long(1, gain=-0.001), **market()) == (1 / 3, "HOLD")
    waiting = position(target=1 / 3)
    assert decision(strategy, waiting, **market()) == (1 / 3, "HOLD")


@pytest.mark.parametrize("orders", [1, 2, 3, 4, 5, 7, 100])
def test_every_number_of_orders_reaches_exactly_one(orders):
    strategy = load_rules(rules(parameters={"max_orders": orders}))
    target, steps = decision(strategy, FLAT, close=2.0)[0], 1
    while target < 1.0:
        target = decision(strategy, position(target=target, quantity=1.0), close=2.0)[0]
        steps += 1
    assert (target, steps) == (1.0, orders)


def test_nothing_is_entered_while_an_exit_holds():
    strategy = load_rules(rules(["close > 1"], ["close > 2"]))
    assert decision(strategy, FLAT, close=1.5) == (1 / 3, "ENTRY")
    assert decision(strategy, FLAT, close=2.5) == (0.0, "FLAT")


def test_entries_are_joined_by_and_and_exits_by_or():
    strategy = load_rules(rules(["close > 1", "open > 1"], ["low < 1", "high > 9"]))
    names = dict(zip(["close", "open", "low", "high"], [2.0, 2.0, 2.0, 2.0], strict=True))
    assert decision(strategy, FLAT, **names)[1] == "ENTRY"
    assert decision(strategy, FLAT, **{**names, "open": 0.0})[1] == "FLAT"
    assert decision(strategy, long(), **{**names, "low": 0.0})[1] == "EXIT"
    assert decision(strategy, long(), **{**names, "high": 10.0})[1] == "EXIT"


BOTH = rules(
    ["close > 10"],
    ["close < 9"],
    {"max_orders": 2},
    short_entry=["close < 5"],
    short_exit=["close > 6"],
)


def test_shorts_mirror_longs():
    strategy = load_rules(BOTH)
    short = position(target=-0.5, quantity=-1.0, gain=0.1, best=4.0)
    assert decision(strategy, FLAT, close=11.0) == (0.5, "ENTRY")
    assert decision(strategy, FLAT, close=4.0) == (-0.5, "SHORT_ENTRY")
    assert decision(strategy, FLAT, close=7.0) == (0.0, "FLAT")
    assert decision(strategy, short, close=4.0) == (-1.0, "SHORT_ADD")
    assert decision(strategy, short, close=5.5) == (-0.5, "HOLD")
    assert decision(strategy, short, close=6.5) == (0.0, "SHORT_EXIT")


def test_the_other_sides_entry_reverses_where_no_exit_is_given():
    turning = rules(["close > 10"], parameters={"max_orders": 2}, short_entry=["close < 5"])
    strategy = load_rules(turning)
    short = position(target=-0.5, quantity=-1.0)
    assert decision(strategy, long(1, 2), close=4.0) == (-0.5, "SHORT_ENTRY")
    assert decision(strategy, short, close=11.0) == (0.5, "ENTRY")


def test_entries_of_both_sides_at_once_mean_nothing():
    strategy = load_rules(rules(["close > 1"], short_entry=["close > 1"]))
    assert decision(strategy, FLAT, close=2.0) == (0.0, "FLAT")
    assert decision(strategy, long(), close=2.0) == (2 / 3, "ADD")


def test_drawdown_of_a_short_is_a_rise_from_its_lowest_price():
    strategy = load_rules(
        {"conditions": {"short_entry": ["close > 0"], "short_exit": ["drawdown > 0.1"]}}
    )
    short = position(target=-1 / 3, quantity=-1.0, best=10.0, gain=-1.0)
    assert decision(strategy, short, close=10.9)[1] == "HOLD"
    assert decision(strategy, short, close=11.1)[1] == "SHORT_EXIT"
    assert decision(strategy, short, close=9.0)[1] == "HOLD"


def test_gain_and_bars_held_are_those_of_the_position():
    strategy = load_rules(rules(leave=["bars_held >= 3 and gain < 0.02"]))
    assert decision(strategy, long(bars_held=3.0), close=0.0)[1] == "EXIT"
    assert decision(strategy, long(bars_held=2.0), close=0.0)[1] == "HOLD"
    assert decision(strategy, long(bars_held=3.0, gain=0.03), close=0.0)[1] == "HOLD"


def test_parameters_can_be_chosen_anew_without_new_rules():
    strategy = load_rules(rules(["sma(close, fast) > level"], [], {"fast": 5, "level": 2}))
    chosen = strategy.values({"fast": 9, "level": 3})
    use = strategy.sources(chosen)["sma(close, window=fast)"]
    assert dict(use.params) == {"window": 9.0}
    assert strategy.params_record(chosen)["values"][0][:7].tolist()[-2:] == [9.0, 3.0]


def test_all_rule_strategies_share_one_decide_and_it_compiles():
    one, other = load_rules(DEFAULT_RULES), load_rules(BOTH)
    assert one.decide is other.decide
    assert one.params_layout == other.params_layout
    shape = (one.features_layout, POSITION, one.params_layout)
    assert compile_error(one.decide, "RRR:d", *shape) is None


def test_every_reason_can_be_explained():
    strategy = load_rules(DEFAULT_RULES)
    assert [strategy.explain(code) for code in Reason][:3] == ["flat", "entry", "add"]


def test_equal_rules_have_equal_digests_whatever_they_are_called():
    one = parse_rules({**rules(["close > 1", "open > 2"]), "name": "one"})
    other = parse_rules(rules(["2.0 < open AND 1 < price"]))
    assert one.digest == other.digest
    assert (one.strategy().name, other.strategy().name) == ("one", f"rules-{other.digest[:8]}")
    assert one.digest != parse_rules(rules(["close > 1"])).digest
    assert one.digest != parse_rules(rules(["close > 1", "open > 2"], parameters={"x": 1})).digest


def test_text_and_mapping_give_the_same_strategy():
    one, other = load_rules(json.dumps(DEFAULT_RULES)), load_rules(DEFAULT_RULES)
    assert one.about == other.about
    np.testing.assert_array_equal(one.program, other.program)


def test_bounds_of_parameters_come_from_the_rules_or_from_what_is_usual():
    given = {"order_size": 0.05, "edge": {"value": 1, "low": 0, "high": 3}, "tilt": -2.0}
    params = parse_rules(rules(["close > edge * tilt"], parameters=given)).params
    assert (params["order_size"].low, params["order_size"].high) == (0.0005, 0.05)
    assert (params["edge"].default, params["edge"].low, params["edge"].high) == (1, 0, 3)
    assert (params["tilt"].low, params["tilt"].high) == (-4, -1)


WRONG = {
    "not JSON": ("{", "rules are not JSON"),
    "nested beyond reason": ("[" * 60_000, "rules are not JSON"),
    "too much text": (" " * 70_000, "at most 65536"),
    "a list": ([], "valid dictionary"),
    "no conditions": ({}, "conditions: Field required"),
    "nothing to enter on": (rules([]), "at least one entry or short_entry"),
    "an unknown key": ({**rules(), "code": "1"}, "code: Extra inputs are not permitted"),
    "an unknown section": (rules(enter=["close > 1"]), "conditions.enter: Extra inputs"),
    "a rule that is no text": (rules([1]), "conditions.entry.0: Input should be a valid string"),
    "too many rules": (rules(["close > 1"] * 17), "at most 16 items"),
    "a parameter of text": (rules(parameters={"x": "1"}), "parameters.x"),
    "a parameter of truth": (rules(parameters={"x": True}), "parameters.x"),
    "an infinite parameter": (rules(parameters={"x": float("inf")}), "parameters.x"),
    "a parameter that is not a name": (rules(parameters={"x y": 1}), "parameters.x y"),
    "a dunder parameter": (rules(parameters={"__class__": 1}), "parameters.__class__"),
    "a parameter called close": (rules(parameters={"close": 1}), "has the name of something else"),
    "a parameter called ma_20": (rules(parameters={"ma_20": 1}), "has the name of something else"),
    "bounds the wrong way": (
        rules(parameters={"x": {"value": 1, "low": 2, "high": 3}}),
        "x must lie between its bounds",
    ),
    "a stop beyond everything": (rules(parameters={"stop_loss": 1.5}), r"stop_loss must lie in"),
    "a negative size": (rules(parameters={"order_size": -0.1}), "order_size must lie in"),
    "no orders": (rules(parameters={"max_orders": 0}), "max_orders must lie in"),
    "too many parameters": (
        rules(parameters={f"x{k}": 1 for k in range(28)}),
        "1 series and 33 parameters, at most 32",
    ),
    "too many series": (
        rules([" or ".join(f"ma_{k} > 1" for k in range(j, j + 4)) for j in range(1, 33, 4)]),
        "33 series and 5 parameters, at most 32",
    ),
    "hostile": (rules(["().__class__ > 1"]), "is not part of the rule language"),
    "hostile name": ({**rules(), "name": "../x"}, "name: String should match"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_with_its_place(case):
    given, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        load_rules(given)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match="unknown name 'max_drawdwn': did you mean 'max_drawdow"):
        load_rules(rules(leave=["drawdown > max_drawdwn"]))


def test_ten_features_of_ten_parameters_fit():
    entry = [f"sma(close, w{k}) > ema(close, w{k})" for k in range(10)]
    strategy = load_rules(rules(entry, parameters={f"w{k}": k + 2 for k in range(10)}))
    assert len(strategy.features) == 21
    assert len(strategy.params) == 15
