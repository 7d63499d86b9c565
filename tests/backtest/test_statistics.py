"""Figures against runs worked by hand, and tables that must sum to the totals to the micro."""

import json
from collections.abc import Sequence
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as draw
from worlds import NO_LIMITS, SCRIPT, START, one_book, play, scripted

from backtest.assemble import BookSetup, Setup
from backtest.breakdown import SUMMED, Breakdown, joined, net_of
from backtest.replay import replay
from backtest.run import Run
from backtest.statistics import (
    SINGLE_PATH,
    caveats,
    daily_equity,
    daily_returns,
    drawdowns,
    exposure_time,
    max_drawdown,
    sharpe,
    sortino,
    summary,
)
from core.engine import Book
from core.events import make_events
from core.instrument import Instrument
from core.model import Kind
from markets.history import History, Quality, assemble, make_bars, make_funding
from risk.limits import Sizing, SizingRule

HOUR = 3_600_000
DAY = 24 * HOUR
FLAT = [100.0] * 6
KEYS = [
    *("run_id", "bars", "events", "seconds", "events_per_second", "trades", "wins", "win_rate"),
    *("profit_factor", "fees", "spread", "slippage", "funding", "gross_pnl", "net_pnl", "return"),
    *("max_drawdown", "sharpe", "sortino", "calmar", "turnover", "capacity", "days_per_year"),
    *("exposure_time", "time_span", "decisions_hash", "refused", "regimes", "halted", "caveats"),
]


def paid_run() -> Run:
    """Long one unit over a rise from 100 to 110, paying 0.1 % fee and 10 bps of half spread."""
    opens = [100.0, 100.0, 100.0, 110.0, 110.0]
    history = scripted([1, 1, 0, 0, 0], opens, [100.0, 100.0, 110.0, 110.0, 110.0])
    return play(history, one_book(SCRIPT, fee_rate=0.001, half_spread_bps=10.0, lot=0.001))


def free_run(targets: Sequence[float], closes: Sequence[float], **more: Any) -> Run:
    """Free trades of one unit at bars that open at the close before."""
    opens = [closes[0], *closes[:-1]]
    return play(scripted(targets, opens, closes), one_book(SCRIPT, **more))


def wandering(seed: int, days: int, books: int, *, funded: bool = True) -> Run:
    """Two instruments with six bars a day, random targets, every cost, and funding at each bar."""
    rng = np.random.default_rng(seed)
    names = ("A", "B")
    histories = {name: _wandering_history(rng, 6 * days, funded=funded) for name in names}
    terms = {"lot": 0.01, "tick": 0.01, "impact": 0.1, "participation": 0.5, "leverage": 3.0}
    exits = {"take_profit": 0.05, "stop_loss": 0.03, "trailing_stop": 0.0}
    entries = [
        BookSetup(
            book=Book(name=f"book {k}", strategy=SCRIPT, instrument=names[k % 2], params=exits),
            sizing=Sizing(rule=SizingRule.NOTIONAL, value=1_500.0 + 400.0 * k),
            limits=NO_LIMITS,
        )
        for k in range(books)
    ]
    instruments = tuple(Instrument(name=name, **terms) for name in names)
    return replay(Setup(instruments=instruments, books=tuple(entries), limits=NO_LIMITS), histories)


def _wandering_history(rng: np.random.Generator, length: int, *, funded: bool) -> History:
    opens = START + 4 * HOUR * np.arange(length)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, length)))
    first = np.r_[100.0, closes[:-1]]
    reach = closes * np.abs(rng.normal(0, 0.01, length))
    prices = {
        "open": first,
        "high": np.maximum(first, closes) + reach,
        "low": np.minimum(first, closes) - reach,
        "close": closes,
        "volume": rng.uniform(20, 60, length),
    }
    targets = np.repeat(rng.integers(-1, 2, length), 3)[:length].astype(float)
    parts = [
        make_bars(opens, 4 * HOUR, **prices),
        make_events(Kind.QUOTE, opens + 4 * HOUR, open_interest=targets),
    ]
    if funded:
        parts.append(
            make_funding(
                opens + 4 * HOUR, rng.normal(0, 1e-3, length), 4.0, np.full(length, np.nan)
            )
        )
    quality = Quality(rows_read=length, rows_used=length).spanning(opens, 4 * HOUR)
    return assemble(parts, 4 * HOUR, quality)


runs = draw.builds(
    wandering,
    seed=draw.integers(0, 2**32),
    days=draw.integers(1, 9),
    books=draw.integers(1, 4),
    funded=draw.booleans(),
)


def test_a_hand_worked_trade_gives_its_exact_figures() -> None:
    run = paid_run()
    figures, total = summary(run), Breakdown(run).totals
    # in at 100 + 0.1, out at 110 - 0.11; fees 0.1001 and 0.10989
    assert total.realised_micros == 9_790_000
    assert total.fees_micros == 100_100 + 109_890
    assert figures["spread"] == 0.21
    assert figures["net_pnl"] == 9.58001
    assert figures["gross_pnl"] == 10.0
    assert (figures["trades"], figures["wins"], figures["win_rate"]) == (1, 1, 1.0)
    assert figures["profit_factor"] is None
    assert figures["return"] == pytest.approx(9.58001 / 10_000)
    # filled at the end of the second bar, flat at the end of the fourth, of five
    assert figures["exposure_time"] == pytest.approx(2 / 5)


def test_the_summary_is_plain_json_in_its_order() -> None:
    figures = summary(paid_run())
    assert list(figures) == KEYS
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_profit_factor_is_won_over_lost() -> None:
    run = free_run([1, 0, -1, 0, 0, 0], [100.0, 106.0, 106.0, 109.0, 109.0, 109.0])
    # long from 100: the order of bar 0 fills at bar 1's open and leaves at bar 2's
    assert [row.amount_micros for row in run.trades.view(np.recarray)] == [6_000_000, -3_000_000]
    assert summary(run)["profit_factor"] == 2.0
    assert summary(run)["win_rate"] == 0.5


def test_drawdown_counts_from_the_start_and_from_every_peak() -> None:
    falling = free_run([1, 1, 1, 1], [100.0, 90.0, 95.0, 80.0])
    assert max_drawdown(falling) == pytest.approx(20 / 10_000)
    rising = free_run([1, 1, 1, 1], [100.0, 150.0, 120.0, 140.0])
    assert max_drawdown(rising) == pytest.approx(30 / 10_050)


def test_a_day_ends_with_the_bar_that_closes_at_midnight() -> None:
    run = wandering(3, days=2, books=1)
    known, equity = run.block["ts_known"], run.equity
    ends = [equity[known <= START + day * DAY][-1] for day in (1, 2)]
    np.testing.assert_array_equal(daily_equity(run), ends)
    expected = [ends[0] / 10_000 - 1, ends[1] / ends[0] - 1]
    np.testing.assert_allclose(daily_returns(run), expected, rtol=1e-12)


def test_sharpe_and_sortino_are_the_textbook_formulas() -> None:
    returns = np.array([0.01, -0.02, 0.03, 0.0])
    assert sharpe(returns) == pytest.approx(np.mean(returns) / np.std(returns, ddof=1) * 365**0.5)
    downside = np.sqrt(0.02**2 / 4)
    assert sortino(returns) == pytest.approx(np.mean(returns) / downside * 365**0.5)


@pytest.mark.parametrize("returns", [[], [0.01], [0.0, 0.0], [0.01, 0.01, 0.01], [0.1, np.nan]])
def test_sharpe_is_none_rather_than_zero_where_it_does_not_exist(returns: list[float]) -> None:
    assert sharpe(np.array(returns)) is None


def test_sortino_is_none_when_no_day_lost() -> None:
    assert sortino(np.array([0.01, 0.02])) is None


def test_an_open_position_is_told_with_its_unrealised_profit() -> None:
    run = free_run([1, 1, 1], [100.0, 100.0, 107.0])
    parts = Breakdown(run)
    assert parts.totals.unrealised_micros == 7_000_000
    assert [row.name for row in parts.by_exit] == ["still_open"]
    assert any("1 position still open" in text and "+7.00" in text for text in caveats(run))


def test_a_trade_leads_back_to_its_decisions() -> None:
    run = paid_run()
    trip = Breakdown(run).trips[0]
    assert trip["decision"] < trip["decision_exit"]
    assert (trip["entry"], trip["bars_held"], trip["quantity"]) == (100.1, 2, 1.0)


def test_a_run_without_trades_has_no_rates() -> None:
    figures = summary(free_run([0] * 6, FLAT))
    for name in ("win_rate", "profit_factor", "sharpe", "sortino"):
        assert figures[name] is None
    assert figures["exposure_time"] == figures["max_drawdown"] == figures["net_pnl"] == 0
    assert any("No trade was finished" in text for text in figures["caveats"])


def test_one_bar_is_a_run_too() -> None:
    figures = summary(free_run([1], [100.0]))
    assert (figures["bars"], figures["trades"], figures["sharpe"]) == (1, 0, None)


def test_costs_that_are_off_are_the_first_caveat() -> None:
    assert caveats(free_run([0], [100.0]))[0].startswith(
        "COSTS WERE OFF (no fee or no spread on X)"
    )
    assert not any("COSTS" in text for text in caveats(paid_run()))


def test_a_halt_is_told_with_its_moment_and_cause() -> None:
    closes = [100.0, 100.0, 60.0, 60.0, 60.0, 60.0]
    strict = changed(NO_LIMITS, drawdown=0.002)
    history = scripted([1, 1, 1, 0, 1, 1], [100.0, 100.0, 100.0, 60.0, 60.0, 60.0], closes)
    run = play(history, one_book(SCRIPT, limits=strict))
    told = "\n".join(caveats(run))
    assert summary(run)["halted"] is True
    assert "halt latch fired at 2025-05-04T00:03:00Z (drawdown), 3 bars before the end" in told
    assert "The gate refused" in told
    assert "halted" in summary(run)["refused"]


def test_data_faults_and_synthetic_data_are_told() -> None:
    run = free_run([0] * 6, FLAT)
    faulty = Quality(rows_read=9, skipped={"bad price": 2}, gaps=1, bars_missing=4)
    told = "\n".join(caveats(changed(run, quality={"X": faulty.note("synthetic X, seed 7")})))
    assert "2 rows skipped (bad price), 4 bars missing in 1 gap" in told
    assert "synthetic" in told
    assert "synthetic" not in "\n".join(caveats(run))


def test_plain_python_and_missing_funding_are_told() -> None:
    slow = changed(SCRIPT, compiled=False)
    history = scripted([0] * 6, FLAT, FLAT)
    told = "\n".join(caveats(play(history, one_book(slow))))
    assert "Strategy script ran as plain Python" in told
    assert "data of X carry no funding" in told
    assert "no funding" not in "\n".join(caveats(wandering(1, 1, 1)))


def test_few_trades_and_few_days_are_told_and_many_are_not() -> None:
    few = "\n".join(caveats(paid_run()))
    assert "Only 1 finished trade:" in few
    assert "Only 5 minutes of data" in few
    many = "\n".join(caveats(wandering(5, days=31, books=4)))
    assert "Only" not in many


def test_the_last_caveat_is_always_the_single_path() -> None:
    assert caveats(paid_run())[-1] == SINGLE_PATH


def test_liquidations_are_told() -> None:
    history = scripted([1, 1, 1], [100.0, 100.0, 50.0], [100.0, 100.0, 50.0])
    setup = one_book(SCRIPT, leverage=5.0, maintenance=0.03)
    assert any("1 trade ended in liquidation" in text for text in caveats(play(history, setup)))


@settings(max_examples=25, deadline=None)
@given(runs)
def test_every_table_sums_to_the_totals(run: Run) -> None:
    parts = Breakdown(run)
    tables = {
        name: getattr(parts, f"by_{name}")
        for name in ("instrument", "strategy", "book", "regime", "exit", "day", "month")
    }
    for name, rows in tables.items():
        whole = joined("total", rows)
        # an exit has no bars, and books that share an instrument see its bars twice
        apart = {"bars"} if name in ("exit", "book", "strategy") else set()
        for term in set(SUMMED) - apart:
            assert getattr(whole, term) == getattr(parts.totals, term), (name, term)
    assert net_of(parts.trips).sum() == parts.totals.net_micros
    paid = sum(cost.paid_micros for cost in parts.costs)
    assert parts.totals.gross_micros - paid == parts.totals.net_micros


@settings(max_examples=15, deadline=None)
@given(runs)
def test_drawdown_equals_a_plain_walk_over_the_track(run: Run) -> None:
    peak, deepest = run.equity_start, 0.0
    for equity in run.equity.tolist():
        peak = max(peak, equity)
        deepest = max(deepest, (peak - equity) / peak)
    assert max_drawdown(run) == pytest.approx(deepest, abs=1e-12)
    assert (drawdowns(run) >= 0).all()


@settings(max_examples=15, deadline=None)
@given(runs)
def test_trips_are_the_trades_and_lie_within_the_run(run: Run) -> None:
    trips = Breakdown(run).trips
    closed = trips[trips["closed_ts"] > 0]
    order = np.argsort(run.trades["book"], kind="stable")
    np.testing.assert_array_equal(net_of(closed), run.trades["amount_micros"][order])
    np.testing.assert_array_equal(closed["opened_ts"], run.trades["opened_ts"][order])
    np.testing.assert_array_equal(closed["regime"], run.trades["regime"][order])
    np.testing.assert_array_equal(closed["fees_micros"], run.trades["fee_micros"][order])
    assert 0 <= exposure_time(run) <= 1


def test_a_missing_day_is_a_day_without_return() -> None:
    early, late = (wandering(7, 1, 1).block for _ in range(2))
    late["ts_known"] += 2 * DAY
    run = wandering(7, 1, 1)
    both = np.concatenate([early["ts_known"], late["ts_known"]])
    block = np.zeros(len(both), run.block.dtype)
    block["ts_known"] = both
    track = np.concatenate([run.track, run.track[-1:].repeat(len(late))])
    assert daily_returns(changed(run, block=block, track=track)).tolist()[1:] == [0.0, 0.0]
