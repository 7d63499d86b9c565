"""Reconciling: a lot's difference is told, less is not, and no instrument is overlooked."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution.reconcile import mismatches

LOTS = {"SOL": 0.01, "BTC": 1e-4}


@pytest.mark.parametrize(
    ("venue", "told"),
    [
        ("0.30", []),
        ("0.309999999", []),
        ("0.31", ["SOL: the books hold 0.30, the venue 0.31 (it has +0.01 more)"]),
        ("0.29", ["SOL: the books hold 0.30, the venue 0.29 (it has -0.01 more)"]),
        ("-0.30", ["SOL: the books hold 0.30, the venue -0.30 (it has -0.60 more)"]),
    ],
)
def test_a_lot_is_a_difference_and_less_is_not(venue: str, told: list[str]) -> None:
    # three floats whose sum is not 0.3
    books = [("SOL", 0.1), ("SOL", 0.2), ("BTC", 0.5), ("BTC", -0.5)]
    found = mismatches(books, {"SOL": Decimal(venue)}, LOTS)
    assert [str(one) for one in found] == told


def test_neither_side_may_hold_what_the_other_does_not() -> None:
    assert [m.instrument for m in mismatches([("SOL", 1.0)], {}, LOTS)] == ["SOL"]
    assert [m.instrument for m in mismatches([], {"SOL": Decimal(1)}, LOTS)] == ["SOL"]
    dust = Decimal("0.000000001")
    assert [m.instrument for m in mismatches([], {"ETH": dust}, LOTS)] == ["ETH"]
    assert mismatches([], {"SOL": dust, "ETH": Decimal(0)}, LOTS) == ()


def test_an_unsettled_instrument_is_left_for_the_next_time() -> None:
    venue = {"SOL": Decimal(1), "BTC": Decimal(1)}
    assert [m.instrument for m in mismatches([], venue, LOTS)] == ["BTC", "SOL"]
    assert [m.instrument for m in mismatches([], venue, LOTS, unsettled={"SOL"})] == ["BTC"]


@given(st.lists(st.integers(-(10**9), 10**9), max_size=6), st.integers(-3, 3))
def test_books_agree_with_the_venue_exactly_when_their_lots_add_up(
    held: list[int], off: int
) -> None:
    books = [("BTC", lots * 1e-4) for lots in held]
    venue = {"BTC": (sum(held) + off) * Decimal("0.0001")}
    assert bool(mismatches(books, venue, LOTS)) == (off != 0)
