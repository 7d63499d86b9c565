"""A small desk whose replay meets nearly every kind of outcome, and ways to record it."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Engine, text

from backtest.assemble import BookSetup, Setup
from backtest.replay import replay
from backtest.run import Run
from core.engine import Book
from core.instrument import Instrument
from core.ports import Journal
from daemon.journal import begin_run, row_of
from daemon.journal.projection import Text
from daemon.journal.writer import SqlJournal
from markets.synthetic import sample
from risk.limits import Limits, Sizing, SizingRule
from strategies.trend import TREND

BARS = 3_000
STARTED = 1_700_000_000_000
TABLES = ("events", "signals", "risk_checks", "orders", "order_ends", "fills", "funding")
TABLES += ("trades", "modes", "equity")
"""What does not depend on how events were cut into blocks."""


@cache
def histories() -> dict[str, Any]:
    return sample(bars=BARS)


@cache
def desk() -> Setup:
    """Two books in each of two instruments, with stops, a cooldown and a tight daily loss."""
    params = [{"fast": 5, "slow": 25, "stop_loss": 0.004}, {"fast": 10, "slow": 40}]
    books = [
        Book(name=f"{name} {k}", strategy=TREND, instrument=name, params=chosen)
        for name in histories()
        for k, chosen in enumerate(params)
    ]
    limits = Limits(cooldown_ms=300_000, daily_loss=0.01, daily_loss_soft=0.005)
    sizing = Sizing(rule=SizingRule.NOTIONAL, value=2_000)
    return Setup(
        instruments=tuple(Instrument(name=name, lot=1e-3, tick=1e-4) for name in histories()),
        books=tuple(BookSetup(book=book, sizing=sizing, limits=limits) for book in books),
        limits=limits,
    )


def replayed(journal: Journal | None = None, cuts: Sequence[int] | range | None = None) -> Run:
    return replay(desk(), histories(), cuts=cuts, journal=journal)


@cache
def plain_run() -> Run:
    """The run as it is without a journal."""
    return replayed()


def reasons() -> list[Text]:
    return [entry.book.strategy.explain for entry in desk().books]


def begun(engine: Engine) -> SqlJournal:
    """A journal of the desk's replay, about to record."""
    return begin_run(engine, row_of(plain_run(), started_ms=STARTED), reasons())


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def contents(engine: Engine, tables: Iterable[str] = TABLES) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of these tables, sorted."""
    return {name: sorted(rows(engine, f"SELECT * FROM {name}"), key=repr) for name in tables}
