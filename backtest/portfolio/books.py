"""What each book of a run earned day by day, marked as the ledger marks it.

An account knows its equity only; an allocation needs it by book. The books' money sums to the
account's, to the micro, so that no allocation can rest on returns nobody earned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.breakdown import DAY_MS, Breakdown, day_of, paid_micros
from backtest.run import Run
from backtest.statistics import daily_equity, day_ends
from core.errors import DataError
from core.model import MICROS_PER_UNIT, Records

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Books and their daily returns, shape (days, books), from UTC day ``first_day`` on.

    A book's return is on its equal share of its run's equity; ``sharing`` is how many books share
    that, shape (books,). With equal weights the returns of one run add up to the run's own.
    ``owners`` are the runs' places, shape (books,).
    """

    names: tuple[str, ...]
    owners: tuple[int, ...]
    sharing: Ints
    first_day: int
    returns: Floats

    def ends_ms(self) -> Ints:
        """When each day ended and its return was known, unix ms, shape (days,)."""
        return (self.first_day + 1 + np.arange(len(self.returns), dtype=np.int64)) * DAY_MS


def books_of(runs: Sequence[Run]) -> Books:
    """The books of runs over the days they have in common. DataError when there are none, or when
    an account lost all it had."""
    firsts = [day_of(int(run.block["ts_known"][0])) if len(run.block) else 0 for run in runs]
    each = [_returns(run) for run in runs]
    first = max(firsts)
    last = min(begin + len(found) for begin, found in zip(firsts, each, strict=True))
    if last <= first:
        raise DataError("the runs have no day in common: replay them over one time range")
    cut = [found[first - begin : last - begin] for begin, found in zip(firsts, each, strict=True)]
    returns = np.concatenate(cut, axis=1)
    if not np.isfinite(returns).all():
        raise DataError("an account lost all it had: there is nothing left to allocate")
    owners = tuple(place for place, run in enumerate(runs) for _ in run.books)
    told = [
        f"{run.run_id}/{b.name}" if len(runs) > 1 else b.name for run in runs for b in run.books
    ]
    return Books(
        names=tuple(told),
        owners=owners,
        sharing=np.array([len(runs[owner].books) for owner in owners], np.int64),
        first_day=first,
        returns=returns,
    )


def _returns(run: Run) -> Floats:
    equity = daily_equity(run)
    before = np.append(run.equity_start, equity[:-1])[: len(equity)]
    earned = earned_daily(run) / MICROS_PER_UNIT * len(run.books)
    with np.errstate(divide="ignore", invalid="ignore"):
        returns: Floats = np.where(before[:, None] > 0, earned / before[:, None], np.nan)
    return returns


def earned_daily(run: Run) -> Ints:
    """Micros each book earned on each UTC day, unrealised and all costs included, shape (days,
    books)."""
    if len(run.block) == 0:
        return np.zeros((0, len(run.books)), np.int64)
    parts, ends = Breakdown(run), _ends_ms(run)
    bars = run.block[parts.is_bar]
    worth = [_worth(parts, bars, b, ends) for b in range(len(run.books))]
    total = np.stack(worth, axis=1)
    total[1:] -= total[:-1].copy()
    return total


def _ends_ms(run: Run) -> Ints:
    """The last moment of each UTC day the run touches."""
    first = day_of(int(run.block["ts_known"][0]))
    return (first + 1 + np.arange(len(day_ends(run.block)), dtype=np.int64)) * DAY_MS


def _worth(parts: Breakdown, bars: Records, book: int, ends: Ints) -> Ints:
    """What a book had added to equity by the end of each day, in micros."""
    run, fills = parts.run, parts.fills[parts.fills["book"] == book]
    funding = parts.funding[parts.funding["book"] == book]
    place = run.instruments.index(run.books[book].instrument)
    own = bars[bars["instrument"] == place]
    done = np.searchsorted(fills["ts"], ends, "right")
    bar = np.searchsorted(own["ts_known"], ends, "right") - 1
    realised = _until(fills["amount_micros"], done)
    paid = _until(paid_micros(fills), done)
    fees = _until(fills["fee_micros"], done)
    settled = _until(funding["amount_micros"], np.searchsorted(funding["ts"], ends, "right"))
    value = np.zeros(len(ends), np.int64)
    if len(fills):
        last = fills[np.maximum(done - 1, 0)]
        value = _value(last, own, bar)
        value[done == 0] = 0
    cost = paid + realised
    return realised + (value - cost) - fees - settled


def _value(last: Records, bars: Records, at: Ints) -> Ints:
    """Micros a position is worth at its mark: the last bar's close, or a fill after that bar."""
    known, close = bars["ts_known"], bars["close"]
    price = np.array(last["price"])
    if len(bars):
        place = np.maximum(at, 0)
        price = np.where((at >= 0) & (last["ts"] <= known[place]), close[place], price)
    with np.errstate(invalid="ignore"):
        value = np.floor(last["position"] * price * MICROS_PER_UNIT + 0.5)
    return np.where(last["position"] == 0.0, 0.0, value).astype(np.int64)


def _until(values: Any, counts: Ints) -> Ints:
    """Sum of the first so many values, for each count."""
    sums: Ints = np.append(0, np.cumsum(values, dtype=np.int64))[counts]
    return sums
