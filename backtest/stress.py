"""Harder worlds and other luck: the same strategy replayed where more goes wrong, and its returns
drawn again in other orders.

A world changes what decides, so it goes through the real replay: dearer costs change which orders
the gate approves. Drawing again changes nothing that was decided; it says how much of one path was
luck. Permuting returns says nothing about a Sharpe ratio, which does not see their order; it does
about drawdowns.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.recorded import Find, replay_recorded
from backtest.run import Run
from backtest.statistics import daily_returns
from backtest.validation.resampling import block_length, stationary_indices
from core.errors import DataError
from core.model import MICROS_PER_UNIT, Kind, Records

COSTS = ("fee_rate", "fee_rate_maker", "half_spread_bps", "half_spread", "slippage_bps", "impact")
MISSED = 0.1
"""Share of bars on which nothing can be traded in the world of missed fills."""

DAYS_DRAWN_MIN = 10
"""Fewer days hold no distribution worth drawing from."""

Floats = NDArray[np.float64]
Config = Mapping[str, Any]


def worlds(config: Config, events: Records, *, seed: int) -> Iterator[tuple[str, Config, Records]]:
    """Each harder world: its name, a config and events. Inputs stay as they are.

    A world that would be no other (no funding to reverse) is left out.
    """
    yield "costs x2", dearer(config, 2.0), events
    yield "costs x3", dearer(config, 3.0), events
    yield "one bar late", config, late(events)
    yield "fills missed", config, dried(events, np.random.default_rng(seed))
    if (events["kind"] == Kind.FUNDING).any():
        yield "funding reversed", config, reversed_funding(events)


def stressed_runs(
    config: Config, events: Records, find: Find, *, seed: int
) -> Iterator[tuple[str, Run]]:
    """A recorded run in each harder world, one after the other."""
    for name, terms, block in worlds(config, events, seed=seed):
        yield name, replay_recorded(terms, block, find)


def stressed(config: Config, events: Records, find: Find, *, seed: int) -> dict[str, Floats]:
    """Daily returns of a recorded run in each harder world."""
    runs = stressed_runs(config, events, find, seed=seed)
    return {name: daily_returns(run) for name, run in runs}


def dearer(config: Config, times: float) -> Config:
    """Every cost of every instrument times this."""
    changed = deepcopy(dict(config))
    for terms in changed["instruments"]:
        for name in COSTS:
            terms[name] *= times
    return changed


def reversed_funding(events: Records) -> Records:
    """Who paid funding receives it, and the other way round."""
    changed = events.copy()
    paid = changed["kind"] == Kind.FUNDING
    changed["rate"][paid] *= -1.0
    return changed


def late(events: Records) -> Records:
    """Every bar opens where the next one does: an order that fills at the open pays the price of
    one bar later. The last bar of an instrument opens where it closes; ranges widen to hold it."""
    changed = events.copy()
    bars = changed["kind"] == Kind.BAR
    for instrument in np.unique(changed["instrument"][bars]):
        mine = np.flatnonzero(bars & (changed["instrument"] == instrument))
        opens = np.append(events["open"][mine[1:]], events["close"][mine[-1]])
        changed["open"][mine] = opens
        changed["high"][mine] = np.maximum(events["high"][mine], opens)
        changed["low"][mine] = np.minimum(events["low"][mine], opens)
    return changed


def dried(events: Records, rng: np.random.Generator, share: float = MISSED) -> Records:
    """This share of bars, drawn at random, has no volume, so that no order fills on them."""
    changed = events.copy()
    bars = np.flatnonzero(changed["kind"] == Kind.BAR)
    changed["volume"][bars[rng.random(len(bars)) < share]] = 0.0
    return changed


def futures(returns: Floats, rng: np.random.Generator, *, paths: int, block: float) -> Floats:
    """Growth of one unit along resampled histories, shape (paths, days + 1), each from 1.

    The stationary bootstrap of daily returns, shape (days,); ``block`` is its mean block length.
    """
    drawn = stationary_indices(rng, len(returns), block, paths)
    growth = np.ones((paths, len(returns) + 1))
    for row, places in zip(growth, drawn, strict=True):
        np.cumprod(np.maximum(1.0 + returns[places], 0.0), out=row[1:])
    return growth


def deepest(growth: Floats) -> Floats:
    """Deepest fall from the highest so far on every path, a fraction, shape (paths,)."""
    peak = np.maximum.accumulate(growth, axis=1)
    found: Floats = 1.0 - (growth / peak).min(axis=1)
    return found


def reordered(earned: Floats, equity: float, rng: np.random.Generator, *, paths: int) -> Floats:
    """Deepest drawdown if the same trades, ``earned`` each in quote, had come in another order,
    shape (paths,). Where they end is the same in every order."""
    found = np.empty(paths)
    for k in range(paths):
        path = np.cumsum(np.append(equity, rng.permutation(earned)))
        found[k] = deepest(np.maximum(path, 0.0)[None, :])[0]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the resampled histories hold. Quantiles are at 5, 50 and 95 %.

    ``ruin`` is the share of paths that ever fall to ``ruin_at`` of the start, ``ruin_error`` the
    standard error of that share; ``loss`` that of paths that end below it.
    """

    paths: int
    growth: tuple[float, float, float]
    drawdown: tuple[float, float, float]
    loss: float
    ruin_at: float
    ruin: float
    ruin_error: float


def outlook(growth: Floats, ruin_at: float = 0.5) -> Outlook:
    """The figures of paths as ``futures`` gives them."""
    ruin = float((growth.min(axis=1) <= ruin_at).mean())
    return Outlook(
        paths=len(growth),
        growth=_quantiles(growth[:, -1]),
        drawdown=_quantiles(deepest(growth)),
        loss=float((growth[:, -1] < 1.0).mean()),
        ruin_at=ruin_at,
        ruin=ruin,
        ruin_error=float(np.sqrt(ruin * (1 - ruin) / len(growth))),
    )


def _quantiles(values: Floats) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    return low, middle, high


@dataclass(frozen=True, kw_only=True, eq=False)
class Luck:
    """What other luck would have made of a run.

    ``growth`` along resampled histories, shape (paths, days + 1), from blocks of ``block`` days on
    average; ``falls`` is the deepest drawdown of each, shape (paths,), ``outlook`` their figures.
    ``reordered`` are deepest drawdowns with the trades in other orders, shape (paths,), ``order``
    their quantiles at 5, 50 and 95 %; both None with fewer than two trades.
    """

    block: float
    growth: Floats
    falls: Floats
    outlook: Outlook
    reordered: Floats | None
    order: tuple[float, float, float] | None


def luck_of(run: Run, *, paths: int, ruin_at: float, seed: int) -> Luck:
    """Draw a run's days and trades again. DataError when there is too little to draw from."""
    returns, rng = daily_returns(run), np.random.default_rng(seed)
    if len(returns) < DAYS_DRAWN_MIN or not np.isfinite(returns).all():
        raise DataError(
            f"run {run.run_id} has {len(returns)} days: luck is drawn from {DAYS_DRAWN_MIN} days "
            "or more, with equity left on each"
        )
    block = block_length(returns[:, None])
    growth = futures(returns, rng, paths=paths, block=block)
    earned = run.trades["amount_micros"] / MICROS_PER_UNIT
    other = reordered(earned, run.equity_start, rng, paths=paths) if len(earned) > 1 else None
    return Luck(
        block=block,
        growth=growth,
        falls=deepest(growth),
        outlook=outlook(growth, ruin_at),
        reordered=other,
        order=None if other is None else _quantiles(other),
    )
