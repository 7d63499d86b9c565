"""Harder worlds and other luck: the same strategy replayed where more goes wrong, and its returns
drawn again in other orders.

A world changes what decides, so it goes through the real replay: dearer costs change which orders
the gate approves. Drawing again changes nothing that was decided; it says how much of one path was
luck. Permuting returns says nothing about a Sharpe ratio, which does not see their order; it does
about drawdowns.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backtest.breakdown import day_of
from backtest.recorded import Find, replay_recorded
from backtest.run import Run
from backtest.statistics import daily_equity, daily_returns, halted_at, max_drawdown, sharpe
from backtest.validation.resampling import block_length, stationary_indices
from core.errors import DataError
from core.model import MICROS_PER_UNIT, Kind, Records

COSTS = ("fee_rate", "fee_rate_maker", "half_spread_bps", "half_spread", "slippage_bps", "impact")
MISSED = 0.1
"""Share of bars on which nothing can be traded in the world of missed fills."""

DAYS_DRAWN_MIN = 10
"""Fewer days hold no distribution worth drawing from."""

AS_IT_WAS, FUNDING_REVERSED = "as it was", "funding reversed"
DAYS, TRADES = 0, 1
"""What a path draws, each with chance of its own."""

Floats = NDArray[np.float64]
Config = Mapping[str, Any]


def world_names(events: Records) -> list[str]:
    """The harder worlds of these events; one that would be no other (no funding to reverse) is left
    out."""
    same = {AS_IT_WAS} if (events["kind"] == Kind.FUNDING).any() else {AS_IT_WAS, FUNDING_REVERSED}
    return [name for name in _WORLDS if name not in same]


def in_world(name: str, config: Config, events: Records, find: Find, *, seed: int) -> Run:
    """A recorded run in a harder world, or as it was. Inputs stay as they are."""
    return replay_recorded(*_WORLDS[name](config, events, seed), find)


def stressed(config: Config, events: Records, find: Find, *, seed: int) -> dict[str, Floats]:
    """Daily returns of a recorded run in each harder world."""
    return {
        name: daily_returns(in_world(name, config, events, find, seed=seed))
        for name in world_names(events)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What came of a run in a world: the share it gained, the first moment it was halted, equity
    as a multiple of the start at the end of every day from ``first_day`` (days since 1970)."""

    trades: int
    gained: float
    sharpe: float | None
    max_drawdown: float
    halted_ms: int | None
    decisions_hash: str
    first_day: int
    growth: tuple[float, ...]


def world_of(run: Run) -> World:
    """What came of a run."""
    return World(
        trades=len(run.trades),
        gained=float(run.equity[-1]) / run.equity_start - 1.0,
        sharpe=sharpe(daily_returns(run)),
        max_drawdown=max_drawdown(run),
        halted_ms=halted_at(run),
        decisions_hash=run.decisions_hash,
        first_day=int(day_of(int(run.block["ts_known"][0]))),
        growth=tuple((daily_equity(run) / run.equity_start).tolist()),
    )


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


_WORLDS: dict[str, Callable[[Config, Records, int], tuple[Config, Records]]] = {
    AS_IT_WAS: lambda config, events, _: (config, events),
    "costs x2": lambda config, events, _: (dearer(config, 2.0), events),
    "costs x3": lambda config, events, _: (dearer(config, 3.0), events),
    "one bar late": lambda config, events, _: (config, late(events)),
    "fills missed": lambda config, events, seed: (
        config,
        dried(events, np.random.default_rng(seed)),
    ),
    FUNDING_REVERSED: lambda config, events, _: (config, reversed_funding(events)),
}


def futures(returns: Floats, *, seed: int, paths: range, block: float) -> Floats:
    """Growth of one unit along resampled histories, shape (paths, days + 1), each from 1.

    The stationary bootstrap of daily returns, shape (days,); ``block`` is its mean block length.
    Every path has chance of its own, by its number, so any cut of ``paths`` draws the same.
    """
    growth = np.ones((len(paths), len(returns) + 1))
    for row, path in zip(growth, paths, strict=True):
        (places,) = stationary_indices(_chance(seed, path, DAYS), len(returns), block, 1)
        np.cumprod(np.maximum(1.0 + returns[places], 0.0), out=row[1:])
    return growth


def _chance(seed: int, path: int, what: int) -> np.random.Generator:
    return np.random.default_rng([seed, path, what])


def deepest(growth: Floats) -> Floats:
    """Deepest fall from the highest so far on every path, a fraction, shape (paths,)."""
    peak = np.maximum.accumulate(growth, axis=1)
    found: Floats = 1.0 - (growth / peak).min(axis=1)
    return found


def reordered(earned: Floats, equity: float, *, seed: int, paths: range) -> Floats:
    """Deepest drawdown if the same trades, ``earned`` each in quote, had come in another order,
    shape (paths,). Where they end is the same in every order."""
    found = np.empty(len(paths))
    for k, path in enumerate(paths):
        order = _chance(seed, path, TRADES).permutation(earned)
        walked = np.cumsum(np.append(equity, order))
        found[k] = deepest(np.maximum(walked, 0.0)[None, :])[0]
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lot:
    """What luck is drawn from: a run's daily returns, what each trade earned in quote, the equity
    it began with, and the mean length of a block of days."""

    returns: Floats
    earned: Floats
    equity: float
    block: float


def lot_of(run: Run) -> Lot:
    """What a run's luck is drawn from. DataError when it is too little."""
    returns = daily_returns(run)
    if len(returns) < DAYS_DRAWN_MIN or not np.isfinite(returns).all():
        raise DataError(
            f"run {run.run_id} has {len(returns)} days: luck is drawn from {DAYS_DRAWN_MIN} days "
            "or more, with equity left on each"
        )
    return Lot(
        returns=returns,
        earned=run.trades["amount_micros"] / MICROS_PER_UNIT,
        equity=run.equity_start,
        block=block_length(returns[:, None]),
    )


Draws: TypeAlias = tuple[Floats, Floats]
"""Growth along some paths, and the deepest drawdown of each with its trades in another order."""


def drawn(lot: Lot, *, seed: int, paths: range) -> Draws:
    """These paths; without an order to change, no drawdown."""
    growth = futures(lot.returns, seed=seed, paths=paths, block=lot.block)
    orders = paths if len(lot.earned) > 1 else range(0)
    return growth, reordered(lot.earned, lot.equity, seed=seed, paths=orders)


def luck_of(lot: Lot, draws: Iterable[Draws], *, ruin_at: float) -> Luck:
    """What was drawn in any number of parts, in order, put together."""
    parts = list(draws)
    growth = np.concatenate([grown for grown, _ in parts])
    other = np.concatenate([fallen for _, fallen in parts])
    return Luck(
        block=lot.block,
        growth=growth,
        falls=deepest(growth),
        outlook=outlook(growth, ruin_at),
        reordered=other if len(other) else None,
        order=_quantiles(other) if len(other) else None,
    )
