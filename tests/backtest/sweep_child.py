"""What the sweep tests run in a process of its own: a subject, many points, and a sweep to kill."""

import sys
from pathlib import Path

from worlds import one_book, walk

from backtest.sweep.space import Point
from backtest.sweep.store import Store
from backtest.sweep.sweep import Subject, Sweep
from strategies.trend import TREND


def trend_subject(bars: int = 300) -> Subject:
    """One book of trend over a random walk, with costs."""
    setup = one_book(TREND, fee_rate=5e-4, slippage_bps=2.0)
    return Subject(setup=setup, books=frozenset(["book"]), histories={"X": walk(bars)})


def points(count: int) -> list[Point]:
    """Distinct combinations."""
    return [{"fast": float(5 + k % 64), "slow": float(80 + k // 64)} for k in range(count)]


if __name__ == "__main__":
    store = Store(Path(sys.argv[1]))
    for row in Sweep(trend_subject(), threads=2, group=16, store=store).run(
        points(int(sys.argv[2]))
    ):
        print(row.place, flush=True)
