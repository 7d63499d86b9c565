"""Real temperature ladders: many binaries in one run, each settled once, the accounts exact."""

from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import pytest

from backtest.assemble import BookSetup, Setup
from backtest.replay import replay
from backtest.run import Run
from core.engine import Book
from core.events import make_events
from core.instrument import binary
from core.model import ExitReason, Kind, Result
from markets.history import History, assemble
from markets.kalshi.history import Ladder, read_ladder
from risk.limits import Limits, Sizing, SizingRule
from strategies.probability import PROBABILITY

MARKETS = 60
CLIMATE = 1 / 6  # six markets a day, one of which wins: the chance one states knowing nothing


@pytest.fixture(scope="module")
def ladder(market_data: Path) -> Ladder:
    return read_ladder(market_data / "kalshi_weather", series="KXHIGHNY")


def stated(history: History) -> History:
    """The same with the climate's chance as a forecast from the first moment on."""
    first = history.events["ts_known"][:1] - 1
    forecast = make_events(Kind.FORECAST, first, probability=[CLIMATE])
    return assemble([forecast, history.events], history.interval_ms, history.quality)


def run_of(ladder: Ladder, limits: Limits) -> tuple[Run, dict[str, float]]:
    settled = [m for m in ladder.markets.values() if m.resolved_ms and m.ticker in ladder.histories]
    chosen = sorted(settled, key=lambda market: market.ticker)[:MARKETS]
    instruments = tuple(
        changed(binary(market.ticker, cluster=market.cluster), expires_ts=market.close_ms)
        for market in chosen
    )
    books = tuple(
        BookSetup(
            book=Book(name=i.name, strategy=PROBABILITY, instrument=i.name, offset=0.1),
            sizing=Sizing(rule=SizingRule.NOTIONAL, value=50.0),
            limits=limits,
        )
        for i in instruments
    )
    setup = Setup(instruments=instruments, books=books, limits=limits)
    histories = {m.ticker: stated(ladder.histories[m.ticker]) for m in chosen}
    return replay(setup, histories), {m.ticker: float(m.value or 0) for m in chosen}


def test_every_contract_held_is_settled_once_at_its_result(ladder: Ladder) -> None:
    run, values = run_of(ladder, Limits(daily_loss=0.0, drawdown=0.0))
    fills = run.of(Result.FILL)
    ends = fills[fills["exit"] == ExitReason.SETTLEMENT]
    assert len(ends) > 20
    assert len(np.unique(ends["book"])) == len(ends)
    for row in ends:
        assert row["price"] == values[run.instruments[row["book"]]]
    assert ((fills["price"] >= 0) & (fills["price"] <= 1)).all()


def test_cash_at_the_end_is_what_went_in_and_came_out(ladder: Ladder) -> None:
    run, _ = run_of(ladder, Limits(daily_loss=0.0, drawdown=0.0))
    fills = run.of(Result.FILL)
    paid = np.floor(fills["quantity"] * fills["price"] * 1e6 + 0.5).astype(np.int64).sum()
    assert run.track["equity_micros"][-1] == 10_000_000_000 - paid - fills["fee_micros"].sum()
    assert run.trades["amount_micros"].sum() == run.track["equity_micros"][-1] - 10_000_000_000


def test_a_cluster_cap_bounds_what_one_day_may_lose(ladder: Ladder) -> None:
    free, _ = run_of(ladder, Limits(daily_loss=0.0, drawdown=0.0))
    capped, _ = run_of(ladder, Limits(daily_loss=0.0, drawdown=0.0, cluster_risk_max=60.0))
    assert "cluster_risk" not in free.refused
    assert capped.refused["cluster_risk"] > 0
    assert len(capped.of(Result.APPROVED)) < len(free.of(Result.APPROVED))
