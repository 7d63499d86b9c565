"""The simulated venue, by hand-worked examples: every cost, and the worse reading of every bar."""

import math
from typing import Any

import numpy as np
import pytest
from worlds import FREE, MINUTE, SCRIPT, START, one_book, play, scripted

from core.events import make_events
from core.instrument import Instrument, binary
from core.model import ExitReason, Kind, OrderStyle, Result
from execution.simulated import liquidation_price

ANY_PRICE = {"offset": 9.0}


def fills(run: Any) -> list[tuple[float, float]]:
    rows = run.of(Result.FILL)
    return [(float(row["quantity"]), round(float(row["price"]), 6)) for row in rows]


def exits(run: Any) -> list[str]:
    return [ExitReason(code).name for code in run.trades["exit"]]


def test_an_order_fills_at_the_open_of_the_next_bar_never_on_its_own() -> None:
    run = play(
        scripted([1, 1, 0, 0], [10, 20, 30, 40], [11, 21, 31, 41]), one_book(SCRIPT, book=ANY_PRICE)
    )
    assert fills(run) == [(1.0, 20.0), (-1.0, 40.0)]
    opened, closed = run.of(Result.FILL)["ts"]
    assert (opened, closed) == (START + 2 * MINUTE, START + 4 * MINUTE)


def test_a_taker_pays_half_the_spread_the_slippage_and_the_fee() -> None:
    costs = {"half_spread_bps": 10.0, "slippage_bps": 5.0, "fee_rate": 0.001}
    run = play(scripted([1, 0, 0], [100] * 3, [100] * 3), one_book(SCRIPT, **costs))
    assert fills(run) == [(1.0, 100.15), (-1.0, 99.85)]
    fees, spread, slip = (
        run.of(Result.FILL)[name].tolist()
        for name in ("fee_micros", "spread_micros", "slippage_micros")
    )
    assert (fees, spread, slip) == ([100_150, 99_850], [100_000] * 2, [50_000] * 2)
    assert run.trades["amount_micros"].tolist() == [-300_000 - 200_000]


def test_a_wider_quoted_spread_is_paid_instead_of_the_terms() -> None:
    quote = make_events(Kind.QUOTE, [START + 1], bid=[99.0], ask=[101.0])
    history = scripted([1, 0, 0], [100] * 3, [100] * 3, extra=[quote])
    assert fills(play(history, one_book(SCRIPT, half_spread_bps=1.0)))[0] == (1.0, 101.0)


def test_impact_grows_with_the_root_of_the_share_of_volume() -> None:
    bars = {"highs": [104] * 3, "lows": [100] * 3, "volume": 4.0}
    run = play(scripted([1, 0, 0], [100] * 3, [100] * 3, **bars), one_book(SCRIPT, impact=0.5))
    assert fills(run)[0] == (1.0, 101.0)  # 0.5 * range 4 * sqrt(1 / 4)


def test_participation_caps_a_fill_and_the_rest_is_asked_for_again() -> None:
    history = scripted([1, 1, 1, 1], [10] * 4, [10] * 4, volume=4.0)
    run = play(history, one_book(SCRIPT, participation=0.1, lot=0.1))
    assert fills(run) == [(0.4, 10.0), (0.4, 10.0), (0.2, 10.0)]
    assert len(run.of(Result.CANCELLED)) == 2


def test_an_ioc_beyond_its_collar_is_cancelled_and_within_it_fills() -> None:
    jump = scripted([1, 1], [10, 10.2], [10, 10.2])
    assert fills(play(jump, one_book(SCRIPT, book={"offset": 0.01}))) == []
    assert fills(play(jump, one_book(SCRIPT, book={"offset": 0.03}))) == [(1.0, 10.2)]


def resting(lows: list[float], ttl: int = 2) -> Any:
    history = scripted([1] * 4, [10] * 4, [10] * 4, lows=lows, highs=[10] * 4)
    book = {"style": OrderStyle.LIMIT, "offset": 0.01, "ttl_bars": ttl}
    return play(history, one_book(SCRIPT, book=book, fee_rate_maker=0.001))


def test_a_limit_order_fills_when_traded_through_at_the_makers_fee() -> None:
    run = resting([10, 9.9, 9.89, 10])
    assert fills(run) == [(1.0, 9.9)]
    assert run.of(Result.FILL)["fee_micros"].tolist() == [9_900]


def test_a_limit_order_only_touched_does_not_fill_and_expires() -> None:
    run = resting([10, 9.9, 9.9, 9.9])
    assert fills(run) == []
    assert len(run.of(Result.CANCELLED)) == 1


def guarded(highs: list[float], lows: list[float], **params: float) -> Any:
    opens = [100.0] * len(highs)
    history = scripted([1] * len(highs), opens, opens, highs=highs, lows=lows)
    return play(history, one_book(SCRIPT, params=params))


def test_a_stop_and_a_target_in_one_bar_is_the_stop() -> None:
    run = guarded([100, 100, 110], [100, 100, 90], take_profit=0.05, stop_loss=0.05)
    assert (exits(run), fills(run)[1]) == (["STOP_LOSS"], (-1.0, 95.0))


def test_a_target_alone_is_taken_and_a_touch_is_not() -> None:
    assert exits(guarded([100, 100, 105.1], [100] * 3, take_profit=0.05)) == ["TAKE_PROFIT"]
    assert exits(guarded([100, 100, 105.0], [100] * 3, take_profit=0.05)) == []


def test_a_gap_through_the_stop_fills_at_the_open() -> None:
    history = scripted([1] * 4, [100, 100, 90, 90], [100, 100, 90, 90])
    run = play(history, one_book(SCRIPT, params={"stop_loss": 0.05}))
    assert fills(run) == [(1.0, 100.0), (-1.0, 90.0)]


def test_a_trail_arms_beyond_its_distance_and_follows_earlier_bars_only() -> None:
    # the high of 106 arms it; within that same bar it does not trigger
    run = guarded([100, 100, 106, 106], [100, 100, 100, 100.0], trailing_stop=0.05)
    assert (exits(run), fills(run)[1]) == (["TRAILING_STOP"], (-1.0, 100.0))
    assert exits(guarded([100, 100, 104, 104], [100, 100, 98, 98], trailing_stop=0.05)) == []


def test_after_a_protective_exit_the_same_target_is_not_entered_again() -> None:
    targets = [1, 1, 1, 1, 0, 1, 1]
    flat = [100.0] * 7
    history = scripted(targets, flat, flat, lows=[100, 100, 94, 100, 100, 100, 100], highs=flat)
    run = play(history, one_book(SCRIPT, params={"stop_loss": 0.05}))
    assert [quantity for quantity, _ in fills(run)] == [1.0, -1.0, 1.0]


def test_the_liquidation_price_of_the_worked_example() -> None:
    terms = Instrument(name="X", leverage=10.0, maintenance=0.05)
    price = getattr(liquidation_price, "py_func", liquidation_price)
    assert price(terms, 100.0, 1.0) == pytest.approx(94.7368, abs=5e-5)
    assert price(terms, 100.0, -1.0) == pytest.approx(104.7619, abs=5e-5)


@pytest.mark.parametrize(("low", "expected"), [(94.8, []), (94.7, ["LIQUIDATION"])])
def test_liquidation_comes_where_the_bar_reaches_its_price(low: float, expected: list[str]) -> None:
    history = scripted([1] * 3, [100] * 3, [100] * 3, lows=[100, 100, low], highs=[100] * 3)
    run = play(history, one_book(SCRIPT, leverage=10.0, maintenance=0.05))
    assert exits(run) == expected


def test_liquidation_comes_before_the_stop() -> None:
    history = scripted([1] * 3, [100] * 3, [100] * 3, lows=[100, 100, 50], highs=[100] * 3)
    setup = one_book(SCRIPT, params={"stop_loss": 0.01}, leverage=10.0, maintenance=0.05)
    assert exits(play(history, setup)) == ["LIQUIDATION"]


def test_a_gap_beyond_the_margin_loses_the_margin_and_no_more() -> None:
    history = scripted([1] * 3, [100, 100, 50], [100, 100, 50])
    run = play(history, one_book(SCRIPT, leverage=10.0, maintenance=0.05))
    assert run.trades["amount_micros"].tolist() == [-10_000_000]


def test_funding_is_paid_at_its_stamp_on_what_is_held_then() -> None:
    stamps = [START + MINUTE, START + 2 * MINUTE + 1, START + 4 * MINUTE + 1]
    funding = make_events(
        Kind.FUNDING, stamps, rate=[0.01] * 3, interval_hours=[8.0] * 3, settle_price=[np.nan] * 3
    )
    history = scripted([1, 1, 0, 0, 0], [100] * 5, [100] * 5, extra=[funding])
    run = play(history, one_book(SCRIPT))
    assert run.of(Result.FUNDING)["amount_micros"].tolist() == [1_000_000]
    short = scripted([-1, -1, 0, 0, 0], [100] * 5, [100] * 5, extra=[funding])
    assert play(short, one_book(SCRIPT)).of(Result.FUNDING)["amount_micros"].tolist() == [
        -1_000_000
    ]


def settled(value: float, target: float) -> Any:
    from worlds import NO_LIMITS

    from backtest.assemble import BookSetup, Setup
    from core.engine import Book
    from risk.limits import Sizing, SizingRule

    end = make_events(Kind.RESOLUTION, [START + 4 * MINUTE], value=[value])
    history = scripted([target] * 3, [0.4] * 3, [0.4] * 3, extra=[end])
    book = Book(name="b", strategy=SCRIPT, instrument="X", offset=0.5)
    sizing = Sizing(rule=SizingRule.QUANTITY, value=100.0)
    setup = Setup(
        instruments=(binary("X"),),
        books=(BookSetup(book=book, sizing=sizing, limits=NO_LIMITS),),
        limits=NO_LIMITS,
    )
    return play(history, setup)


@pytest.mark.parametrize(
    ("value", "target", "earned"),
    # 100 YES at 0.41 cost 41.00 and a fee of ceil(0.07 * 100 * 0.41 * 0.59) = 1.70;
    # 100 NO are sold YES at 0.39, fee ceil(0.07 * 100 * 0.39 * 0.61) = 1.67
    [(1.0, 1.0, 57.30), (0.0, 1.0, -42.70), (1.0, -1.0, -62.67), (0.0, -1.0, 37.33)],
)
def test_a_binary_settles_at_one_or_nothing(value: float, target: float, earned: float) -> None:
    run = settled(value, target)
    assert exits(run) == ["SETTLEMENT"]
    assert run.trades["amount_micros"].tolist() == [round(earned * 1e6)]
    assert math.isclose(run.equity[-1], 10_000 + earned)


def test_a_settled_binary_trades_no_more() -> None:
    end = make_events(Kind.RESOLUTION, [START + 2 * MINUTE + 1], value=[1.0])
    history = scripted([0, 0, 1, 1], [0.4] * 4, [0.4] * 4, extra=[end])
    run = play(history, one_book(SCRIPT))
    assert fills(run) == []
    assert FREE["fee_rate"] == 0.0
