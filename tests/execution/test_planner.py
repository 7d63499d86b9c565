"""The planner: what shrinks a book comes first and alone is reduce-only."""

from typing import Any

import numpy as np
import pytest

from core.model import BOOK, INSTRUMENT, LEGS, POSITION, InstrumentKind, OrderStyle
from execution.planner import limit_price, plan


def row(dtype: Any, **values: Any) -> Any:
    made = np.zeros(1, dtype)[0]
    for name, value in values.items():
        made[name] = value
    return made


@pytest.mark.parametrize(
    ("held", "wanted", "reduce", "increase"),
    [
        (0.0, 2.0, 0.0, 2.0),
        (2.0, 0.0, -2.0, 0.0),
        (2.0, -3.0, -2.0, -3.0),
        (2.0, 0.5, -1.5, 0.0),
        (-2.0, -3.0, 0.0, -1.0),
        (-2.0, -2.0, 0.0, 0.0),
    ],
)
def test_a_change_is_split_at_zero(
    held: float, wanted: float, reduce: float, increase: float
) -> None:
    legs = row(LEGS, wanted=wanted)
    instrument = row(INSTRUMENT, price=100.0, tick=0.5, lot=0.5)
    plan(row(POSITION, quantity=held), row(BOOK, offset=0.01), instrument, legs)
    assert (legs["reduce"], legs["increase"]) == (reduce, increase)


@pytest.mark.parametrize(
    ("quantity", "crossing", "expected"),
    [(1.0, True, 101.0), (-1.0, True, 99.0), (1.0, False, 99.0), (-1.0, False, 101.0)],
)
def test_a_limit_is_rounded_against_the_trader(
    quantity: float, crossing: bool, expected: float
) -> None:
    instrument = row(INSTRUMENT, price=100.0, tick=0.5)
    assert limit_price(instrument, quantity, 0.0101 if crossing else 0.0099, crossing) == (expected)


def test_the_offset_of_a_binary_is_in_price() -> None:
    instrument = row(INSTRUMENT, price=0.2, tick=0.01, kind=InstrumentKind.BINARY)
    assert limit_price(instrument, 1.0, 0.05, True) == pytest.approx(0.25)
    assert OrderStyle.IOC == 0
