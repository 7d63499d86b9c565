"""Sizing by worked examples, never rounded up, never on a missing number."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.model import DESK, INSTRUMENT, INTENT, InstrumentKind
from risk.limits import Limits, Sizing, SizingRule, sizing_records
from risk.sizing import kelly_binary, kelly_returns, size


def sized(sizing: Sizing, limits: Limits | None = None, **changes: float) -> float:
    intent, desk, terms = (np.zeros(1, layout)[0] for layout in (INTENT, DESK, INSTRUMENT))
    values = {"target": 1.0, "price": 100.0, "equity": 10_000.0, "lot": 0.01, **changes}
    for name, value in values.items():
        for record in (intent, desk, terms):
            if name in (record.dtype.names or ()):
                record[name] = value
    row = sizing_records([(sizing, limits or Limits())])[0]
    return float(size(intent, terms, desk, row))


@pytest.mark.parametrize(
    ("rule", "value", "changes", "expected"),
    [
        (SizingRule.NOTIONAL, 505.0, {}, 5.05),
        (SizingRule.NOTIONAL, 505.0, {"target": -0.5}, -2.52),
        (SizingRule.QUANTITY, 7.0, {}, 7.0),
        (SizingRule.EQUITY, 0.5, {}, 50.0),
        (SizingRule.EQUITY, 3.0, {}, 100.0),  # capped at the equity
        (SizingRule.ATR_RISK, 0.01, {"atr": 2.0}, 25.0),  # 1 % of 10,000 lost at 2 ATR
        (SizingRule.VOLATILITY, 0.001, {"volatility": 0.002}, 50.0),
    ],
)
def test_one_full_target_is_what_its_rule_says(
    rule: SizingRule, value: float, changes: dict[str, float], expected: float
) -> None:
    assert sized(Sizing(rule=rule, value=value), **changes) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("missing", [{"atr": math.nan}, {"atr": 0.0}, {"price": math.nan}])
def test_a_missing_input_gives_no_size(missing: dict[str, float]) -> None:
    assert sized(Sizing(rule=SizingRule.ATR_RISK, value=0.01), **missing) == 0.0


def test_size_is_halved_beyond_a_soft_limit() -> None:
    rule = Sizing(rule=SizingRule.EQUITY, value=0.5)
    assert sized(rule, day_return=-0.02) == 25.0
    assert sized(rule, day_return=-0.019) == 50.0
    assert sized(rule, drawdown=0.10) == 25.0
    assert sized(rule, drawdown=0.099) == 50.0


def test_kelly_on_a_binary_stakes_the_edge_over_what_can_be_won() -> None:
    assert kelly_binary(0.6, 0.5, 1.0) == pytest.approx(0.2)
    assert kelly_binary(0.4, 0.5, -1.0) == pytest.approx(0.2)
    assert kelly_binary(0.5, 0.5, 1.0) == 0.0
    stake = sized(
        Sizing(rule=SizingRule.KELLY, value=0.5),
        kind=InstrumentKind.BINARY,
        price=0.5,
        probability=0.6,
        lot=1.0,
    )
    assert stake == 2_000.0  # half of 20 % of 10,000, at 0.50 a contract


def test_kelly_on_returns_shrinks_for_error_and_waits_for_evidence() -> None:
    mean, deviation, trades = 0.01, 0.05, 100
    sharpe2 = (mean / deviation) ** 2
    expected = mean / deviation**2 * sharpe2 / (sharpe2 + 1 / trades)
    assert kelly_returns(mean, deviation**2, trades) == pytest.approx(expected)
    assert kelly_returns(mean, deviation**2, 19) == 0.0
    assert kelly_returns(-mean, deviation**2, trades) == 0.0


@given(
    value=st.floats(1.0, 1e6),
    price=st.floats(0.01, 1e5),
    lot=st.sampled_from([1e-6, 0.001, 0.1, 1.0]),
    target=st.floats(-1.0, 1.0),
)
def test_size_is_never_rounded_up(value: float, price: float, lot: float, target: float) -> None:
    quantity = sized(
        Sizing(rule=SizingRule.NOTIONAL, value=value), price=price, lot=lot, target=target
    )
    most = min(value, 10_000.0) * abs(target) / price
    assert abs(quantity) <= most + 1e-8 * lot + 1e-12 * most
    assert most - abs(quantity) < lot * (1 + 1e-6) + 1e-9 * most


@pytest.mark.parametrize(
    "wrong", [{"value": 0.0}, {"cap": -1.0}, {"rule": SizingRule.KELLY, "value": 1.5}]
)
def test_terms_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sizing"):
        Sizing(**wrong)


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="cooldown_ms"):
        Limits(cooldown_ms=-1.0)
    with pytest.raises(ConfigError, match="daily_loss_soft"):
        Limits(daily_loss_soft=0.1, daily_loss=0.05)
