"""The accounts are exact: two roads to equity meet to the micro, whatever the fills were."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import SHELF, shelf_run

from core.compiled import Row
from core.ledger import (
    book_fee,
    book_fill,
    book_funding,
    equity_micros,
    mark,
    micros,
    to_lots,
)
from core.model import ACCOUNT, POSITION, Kind, Result

LOT = 0.001
START = 10_000_000_000


def plain(function: Any) -> Any:
    """The Python function under the compiler's."""
    return getattr(function, "py_func", function)


class Books:
    """An account with two books, driven by hand."""

    def __init__(self) -> None:
        self.raw = np.zeros(1, ACCOUNT)
        self.account = Row(self.raw[0])
        self.account.start_micros = self.account.cash_micros = START
        self.positions = [Row(row) for row in np.zeros(2, POSITION)]

    def fill(self, which: int, quantity: float, price: float) -> None:
        position = self.positions[which]
        held = position.quantity
        if held * quantity < 0 and abs(quantity) > abs(held):
            quantity = -held
        plain(book_fill)(self.account, position, plain(to_lots)(quantity, LOT), price, LOT)

    def meet(self, price: float) -> None:
        """Both roads, at one price for both books."""
        value = 0
        for position in self.positions:
            plain(mark)(self.account, position, price)
            value += plain(micros)(position.quantity * price)
        assert self.account.cash_micros + value == plain(equity_micros)(self.account)


steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(-5_000, 5_000).filter(bool).map(lambda n: n * LOT),
        st.floats(0.01, 100_000.0),
        st.integers(-1_000_000, 5_000_000),
        st.integers(0, 1_000_000),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps)
def test_equity_change_is_realised_plus_unrealised_less_fees_less_funding(steps: Any) -> None:
    books = Books()
    for which, quantity, price, funding, fee in steps:
        books.fill(which, quantity, price)
        plain(book_funding)(books.account, books.positions[which], funding)
        plain(book_fee)(books.account, books.positions[which], fee)
        books.meet(price)
    for name in ("realised_micros", "fees_micros", "funding_micros", "unrealised_micros"):
        assert getattr(books.account, name) == sum(getattr(p, name) for p in books.positions)


@settings(max_examples=100, deadline=None)
@given(steps=steps)
def test_a_flat_book_has_no_cost_and_no_unrealised(steps: Any) -> None:
    books = Books()
    for which, quantity, price, *_ in steps:
        books.fill(which, quantity, price)
    for which, position in enumerate(books.positions):
        if position.quantity != 0.0:
            books.fill(which, -position.quantity, 123.456)
    books.meet(123.456)
    for position in books.positions:
        assert (position.quantity, position.cost_micros, position.entry) == (0.0, 0, 0.0)
    assert books.account.cash_micros == START + books.account.realised_micros


def test_a_partial_close_releases_its_share_of_the_cost() -> None:
    books = Books()
    books.fill(0, 3.0, 10.0)
    books.fill(0, -1.0, 12.0)
    position = books.positions[0]
    assert (position.realised_micros, position.cost_micros, position.entry) == (
        2_000_000,
        20_000_000,
        10.0,
    )


@given(lots=st.integers(-(10**9), 10**9), others=st.integers(-(10**9), 10**9))
def test_equal_lots_are_equal_floats(lots: int, others: int) -> None:
    near = plain(to_lots)(lots * LOT + others * LOT, LOT)
    assert near == (lots + others) * LOT


@pytest.mark.parametrize("name", SHELF)
def test_the_two_roads_meet_at_the_end_of_every_run(name: str) -> None:
    run = shelf_run(name, 1_500)
    fills, funding = run.of(Result.FILL), run.of(Result.FUNDING)
    paid = sum(plain(micros)(q * p) for q, p in zip(fills["quantity"], fills["price"], strict=True))
    costs = int(fills["fee_micros"].sum() + funding["amount_micros"].sum())
    cash = START - paid - costs
    value = unrealised = 0
    for b, book in enumerate(run.books):
        mine = fills[fills["book"] == b]
        held = mine["position"][-1] if len(mine) else 0.0
        bars = run.block[run.block["instrument"] == run.instruments.index(book.instrument)]
        close = bars[bars["kind"] == Kind.BAR]["close"][-1]
        worth = plain(micros)(held * close)
        spent = sum(
            plain(micros)(q * p) for q, p in zip(mine["quantity"], mine["price"], strict=True)
        )
        value += worth
        # what is held cost what was spent on it and has not been realised since
        unrealised += worth - (spent + int(mine["amount_micros"].sum()))
    realised = int(fills["amount_micros"].sum())
    equity = int(run.track["equity_micros"][-1])
    assert equity == cash + value
    assert equity == START + realised + unrealised - costs
