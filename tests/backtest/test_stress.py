"""Harder worlds through the real replay, and what drawing again does and does not change."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from worlds import SCRIPT, bar_history, one_book, play, walk

from backtest.breakdown import Breakdown
from backtest.recorded import replay_recorded
from backtest.run import Run
from backtest.statistics import calmar, capacity, daily_returns, turnover
from backtest.stress import (
    AS_IT_WAS,
    COSTS,
    Lot,
    dearer,
    deepest,
    drawn,
    dried,
    futures,
    in_world,
    late,
    luck_of,
    outlook,
    reordered,
    reversed_funding,
    stressed,
    world_names,
    world_of,
)
from core.events import make_events
from core.instrument import Instrument
from core.model import Kind, Result
from core.strategy import Strategy
from markets.history import History, assemble
from strategies.trend import TREND

SEED = 5


def funded(length: int = 4_000) -> History:
    """A walk with funding on every 480th bar."""
    history = walk(length, seed=3, scale=2e-3)
    ts = history.bars["ts_known"][479::480]
    funding = make_events(
        Kind.FUNDING,
        ts,
        rate=np.full(len(ts), 2e-4),
        interval_hours=np.full(len(ts), 8.0),
        settle_price=np.full(len(ts), np.nan),
    )
    return assemble([history.bars, funding], 60_000, history.quality)


@pytest.fixture(scope="module")
def traded() -> Run:
    setup = one_book(
        TREND, params={"fast": 5, "slow": 20}, fee_rate=0.0004, half_spread_bps=1.0, lot=0.001
    )
    return play(funded(), setup)


def find(_name: str) -> Strategy:
    return TREND


def again(config: Any, events: Any) -> Run:
    return replay_recorded(config, events, find)


def costs_of(run: Run) -> int:
    total = Breakdown(run).totals
    return total.fees_micros + total.spread_micros


def test_dearer_costs_are_charged_by_the_replay(traded: Run) -> None:
    double = again(dearer(traded.setup, 2.0), traded.block)
    assert double.trades["ts"].tolist() == traded.trades["ts"].tolist()
    assert costs_of(double) == pytest.approx(2 * costs_of(traded), rel=0.01)
    assert double.equity[-1] < traded.equity[-1]
    assert {name: traded.setup["instruments"][0][name] for name in COSTS}["fee_rate"] == 0.0004


def test_reversed_funding_is_received_by_who_paid_it(traded: Run) -> None:
    other = again(traded.setup, reversed_funding(traded.block))
    paid, got = (run.of(Result.FUNDING)["amount_micros"] for run in (traded, other))
    assert len(paid) > 0
    np.testing.assert_array_equal(got, -paid)


def test_a_bar_late_pays_the_next_bars_open_and_decides_alike(traded: Run) -> None:
    other = again(traded.setup, late(traded.block))
    before, after = (run.of(Result.FILL) for run in (traded, other))
    assert before["ts"].tolist() == after["ts"].tolist()
    bars = traded.block[traded.block["kind"] == Kind.BAR]
    at = np.searchsorted(bars["ts_known"], before["ts"])
    following = np.append(bars["open"][1:], bars["close"][-1])
    worse = following[at] * (1 + np.sign(after["quantity"]) * 1e-4)
    np.testing.assert_allclose(after["price"], worse, rtol=1e-9)
    bad = late(traded.block)
    assert (bad["high"] >= bad["open"])[bad["kind"] == Kind.BAR].all()


def test_fills_are_missed_on_bars_that_dried_up(traded: Run) -> None:
    events = dried(traded.block, np.random.default_rng(SEED), share=0.3)
    other = again(traded.setup, events)
    dry = set(events["ts_known"][(events["kind"] == Kind.BAR) & (events["volume"] == 0)].tolist())
    assert not dry & set(other.of(Result.FILL)["ts"].tolist())
    assert dry & set(traded.of(Result.FILL)["ts"].tolist())
    share = len(dry) / (traded.block["kind"] == Kind.BAR).sum()
    assert share == pytest.approx(0.3, abs=0.03)


def test_every_world_is_replayed_and_the_inputs_stay(traded: Run) -> None:
    before = traded.block.tobytes()
    found = stressed(traded.setup, traded.block, find, seed=SEED)
    names = ["costs x2", "costs x3", "one bar late", "fills missed", "funding reversed"]
    assert list(found) == names
    assert all(len(returns) == len(daily_returns(traded)) for returns in found.values())
    assert traded.block.tobytes() == before
    unfunded = traded.block[traded.block["kind"] == Kind.BAR]
    assert world_names(unfunded) == names[:-1]


def test_a_world_tells_what_came_of_the_run(traded: Run) -> None:
    world = world_of(in_world(AS_IT_WAS, traded.setup, traded.block, find, seed=SEED))
    assert (world.decisions_hash, world.trades) == (traded.decisions_hash, len(traded.trades))
    assert world.growth[-1] == pytest.approx(1 + world.gained)
    assert len(world.growth) == len(daily_returns(traded))


def test_futures_are_exact_by_seed_and_keep_their_mean() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.02, 300)
    one, two = (futures(returns, seed=9, paths=range(400), block=5.0) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (400, 301)
    assert (one[:, 0] == 1).all()
    assert np.log(one[:, -1]).mean() == pytest.approx(np.log1p(returns).sum(), abs=0.06)


def test_luck_is_the_same_in_any_number_of_parts(traded: Run) -> None:
    lot = Lot(
        returns=np.random.default_rng(1).normal(0.001, 0.02, 30),
        earned=np.random.default_rng(2).normal(1.0, 50.0, 20),
        equity=1_000.0,
        block=3.0,
    )
    cuts = ([range(90)], [range(7), range(7, 8), range(8, 90)])
    one, two = (
        luck_of(lot, [drawn(lot, seed=4, paths=paths) for paths in parts], ruin_at=0.9)
        for parts in cuts
    )
    np.testing.assert_array_equal(one.growth, two.growth)
    np.testing.assert_array_equal(one.reordered, two.reordered)
    assert (one.outlook, one.order) == (two.outlook, two.order)
    other = luck_of(lot, [drawn(lot, seed=5, paths=range(90))], ruin_at=0.9)
    assert other.outlook != one.outlook
    # no two paths share their chance
    assert len(np.unique(one.growth[:, -1])) == len(one.growth)
    one_trade = replace(lot, earned=lot.earned[:1])
    assert luck_of(one_trade, [drawn(one_trade, seed=4, paths=range(9))], ruin_at=0.9).order is None


def test_what_is_lost_stays_lost() -> None:
    growth = futures(np.array([0.1, -1.5]), seed=1, paths=range(50), block=1.0)
    assert (growth >= 0).all()
    assert (np.diff((growth == 0).astype(int), axis=1) >= 0).all()


def test_ruin_of_a_fair_walk_is_that_of_the_formula() -> None:
    """A walk of log returns with drift falls to a share x with chance ``x^(2 m / s^2)``."""
    rng = np.random.default_rng(4)
    drift, spread = 0.0006, 0.02
    returns = np.expm1(rng.normal(0, spread, 3_000))
    returns = np.expm1(np.log1p(returns) - np.log1p(returns).mean() + drift)
    seen = outlook(futures(returns, seed=4, paths=range(1_500), block=1.0), ruin_at=0.7)
    expected = 0.7 ** (2 * drift / spread**2)
    assert seen.ruin == pytest.approx(expected, abs=4 * seen.ruin_error + 0.02)
    assert seen.growth[0] < seen.growth[1] < seen.growth[2]
    assert 0 <= seen.drawdown[0] <= seen.drawdown[1] <= seen.drawdown[2] <= 1


def test_drawdowns_by_hand() -> None:
    growth = np.array([[1.0, 1.5, 0.75, 1.0], [1.0, 1.1, 1.2, 1.3]])
    np.testing.assert_allclose(deepest(growth), [0.5, 0.0])


def test_another_order_of_trades_changes_the_drawdown_only() -> None:
    earned = np.array([100.0] * 10 + [-50.0] * 10)
    found = reordered(earned, 1_000.0, seed=2, paths=range(300))
    assert found.min() < 0.1
    assert found.max() > 0.15
    won = reordered(np.full(5, 10.0), 1_000.0, seed=2, paths=range(3))
    assert won.tolist() == [0.0, 0.0, 0.0]


# --- annual figures of a run -------------------------------------------------------------


def daily_run(closes: list[float], *, volume: float = 1e6) -> Run:
    """Long one unit all along, a bar a day; it opens where the last one closed."""
    opens = [closes[0], *closes[:-1]]
    history = bar_history(opens, closes, volume=volume)
    block = history.events.copy()
    day = 86_400_000
    block["ts_event"] = block["ts_event"][0] + day * np.arange(len(block))
    block["ts_known"] = block["ts_event"] + day
    from backtest.replay import Source, replay_block

    always = Strategy(
        name="always",
        decide=lambda _f, _position, _p: (1.0, 1.0, 0),
        reasons=SCRIPT.reasons,
        features={},
        params=SCRIPT.params,
        compiled=False,
    )
    return replay_block(one_book(always, equity=1_000.0), block, {"X": history.fields}, Source())


def test_calmar_and_turnover_by_hand() -> None:
    closes = [100.0] * 20 + [80.0] + [120.0] * 44
    run = daily_run(closes)
    fallen = 20 / 1_000
    growth = (1_020 / 1_000) ** (365 / len(closes)) - 1
    assert calmar(run) == pytest.approx(growth / fallen)
    mean = np.mean(run.equity)
    assert turnover(run) == pytest.approx(100 / mean * 365 / len(closes))


def test_annual_figures_are_none_where_they_mean_nothing() -> None:
    rising = daily_run([100.0 + k for k in range(40)])
    assert calmar(rising) is None, "no drawdown"
    assert calmar(daily_run([100.0, 90.0, 110.0])) is None, "three days are no year"
    assert capacity(daily_run([100.0 - k for k in range(40)])) is None, "it loses"
    assert capacity(daily_run([100.0 + k for k in range(40)], volume=float("nan"))) is None


def test_capacity_grows_with_the_volume_it_trades_in() -> None:
    closes = [100.0 + 3 * np.sin(k) + k for k in range(60)]
    thin, deep = (capacity(daily_run(closes, volume=volume)) for volume in (1e4, 4e4))
    assert thin is not None
    assert deep == pytest.approx(4 * thin)
    assert Instrument(name="X").participation <= 1
