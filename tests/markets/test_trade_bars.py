"""Bars from trades: one at a time and over arrays are the same bars."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from markets.bars import TradeBar, TradeBars, bars_from_trades

TRADE = st.tuples(
    st.integers(0, 95),
    st.sampled_from([1.0, 1.1, 2.5, 7.3, 0.0, np.nan]),
    st.sampled_from([0.1, 0.2, 0.7, 3.0, -1.0, np.inf]),
)


def pushed(trades: list[tuple[int, float, float]], fill: bool) -> tuple[list[TradeBar], TradeBars]:
    bars = TradeBars(10, fill_empty=fill)
    return [bar for trade in trades for bar in bars.push(*trade)] + bars.flush(), bars


@given(st.lists(TRADE, max_size=40), st.booleans())
def test_both_aggregators_agree(trades: list[tuple[int, float, float]], fill: bool) -> None:
    singly, bars = pushed(trades, fill)
    columns = np.array(trades).reshape(-1, 3).T
    ts = columns[0].astype(np.int64)
    built = bars_from_trades(ts, columns[1], columns[2], 10, fill_empty=fill)
    names = ("ts_event", "open", "high", "low", "close", "volume")
    assert [tuple(bar[name] for name in names) for bar in built.bars] == singly
    assert (built.late, built.refused) == (bars.late, bars.refused)


def test_a_bar_closes_when_a_trade_of_the_next_comes() -> None:
    bars = TradeBars(10)
    assert bars.push(11, 5.0, 1.0) == []
    assert bars.push(19, 7.0, 2.0) == []
    assert bars.push(20, 6.0, 1.0) == [TradeBar(10, 5.0, 7.0, 5.0, 7.0, 3.0)]


def test_within_the_open_bar_the_earliest_opens_and_the_latest_closes() -> None:
    bars, _ = pushed([(15, 5.0, 1.0), (19, 6.0, 1.0), (11, 4.0, 1.0), (17, 9.0, 1.0)], fill=False)
    assert bars == [TradeBar(10, 4.0, 9.0, 4.0, 6.0, 4.0)]


def test_a_trade_older_than_the_open_bar_is_late_and_one_inside_is_not() -> None:
    bars = TradeBars(10)
    bars.push(21, 5.0, 1.0)
    bars.push(20, 5.0, 1.0)
    assert bars.late == 0
    bars.push(19, 5.0, 1.0)
    assert bars.late == 1


def test_time_closes_a_bar_that_no_trade_ends_and_what_comes_after_is_late() -> None:
    bars = TradeBars(10)
    bars.push(11, 5.0, 1.0)
    assert bars.advance(19) == []
    assert len(bars.advance(20)) == 1
    assert bars.push(15, 5.0, 1.0) == []
    assert bars.late == 1


def test_empty_intervals_are_filled_flat_only_when_asked() -> None:
    trades = [(5, 3.0, 1.0), (35, 4.0, 1.0)]
    filled, _ = pushed(trades, fill=True)
    assert filled[1:3] == [TradeBar(at, 3.0, 3.0, 3.0, 3.0, 0.0) for at in (10, 20)]
    assert [bar.open_ms for bar in pushed(trades, fill=False)[0]] == [0, 30]


def test_time_alone_fills_too_once_there_was_a_price() -> None:
    bars = TradeBars(10, fill_empty=True)
    assert bars.advance(100) == []
    bars.push(105, 3.0, 1.0)
    assert [bar.open_ms for bar in bars.advance(130)] == [100, 110, 120]
    assert [bar.open_ms for bar in bars.advance(140)] == [130]


@pytest.mark.parametrize(("price", "size"), [(0.0, 1.0), (1.0, 0.0), (np.nan, 1.0), (1.0, np.inf)])
def test_an_impossible_trade_is_refused_and_a_possible_one_is_not(
    price: float, size: float
) -> None:
    bars = TradeBars(10)
    bars.push(1, price, size)
    assert (bars.refused, bars.flush()) == (1, [])
    bars.push(1, 1.0, 1.0)
    assert (bars.refused, len(bars.flush())) == (1, 1)
