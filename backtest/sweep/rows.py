"""A row of a sweep: one combination, its figures, and the hash that ``replay`` must give too.

The figures are those of ``backtest.statistics``, from the same definitions, read off a tally.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.breakdown import Row as Sums
from backtest.run import combined_hash
from backtest.statistics import returns_of, sharpe, sortino, turnover_of
from core.errors import UnknownName
from core.model import MICROS_PER_UNIT
from core.tally import TALLY

Ints = NDArray[np.int64]

_SUMS = [name for name in TALLY.names or () if name in Sums.__dataclass_fields__]

HIGHER_IS_BETTER = {
    "sharpe": True,
    "sortino": True,
    "return": True,
    "net_pnl": True,
    "profit_factor": True,
    "win_rate": True,
    "max_drawdown": False,
}
"""Figures that rows can be ranked by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One combination and what came of it.

    ``metrics`` in quote or as fractions, None where undefined; of a combination that failed it is
    empty, ``error`` says why and there is no hash. ``daily_micros``: equity at the end of every
    UTC day.
    """

    place: int
    params: Mapping[str, float]
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    decisions_hash: str | None = None
    error: str | None = None
    daily_micros: Ints = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)

    def plain(self) -> dict[str, Any]:
        """All but the daily equity, as plain data."""
        return {
            "place": self.place,
            "params": dict(self.params),
            "metrics": dict(self.metrics),
            "decisions_hash": self.decisions_hash,
            "error": self.error,
        }


def metrics_of(
    tally: Any, daily_micros: Ints, start_micros: int, bars: int, span_ms: int
) -> dict[str, float | None]:
    """The figures of one account."""
    told = dict(zip(tally.dtype.names, tally.item(), strict=True))
    sums = {name: told[name] for name in _SUMS}
    net = int(daily_micros[-1]) - start_micros if len(daily_micros) else 0
    held = sums["realised_micros"] - sums["fees_micros"] - sums["funding_micros"]
    total = Sums(name="total", bars=bars, unrealised_micros=net - held, **sums)
    equity = daily_micros / MICROS_PER_UNIT
    returns = returns_of(equity, start_micros / MICROS_PER_UNIT)
    return {
        "trades": total.trades,
        "win_rate": total.win_rate,
        "profit_factor": total.profit_factor,
        "net_pnl": net / MICROS_PER_UNIT,
        "gross_pnl": total.gross_micros / MICROS_PER_UNIT,
        "fees": total.fees_micros / MICROS_PER_UNIT,
        "spread": total.spread_micros / MICROS_PER_UNIT,
        "slippage": total.slippage_micros / MICROS_PER_UNIT,
        "funding": total.funding_micros / MICROS_PER_UNIT,
        "return": net / start_micros,
        "max_drawdown": told["max_drawdown"],
        "sharpe": sharpe(returns),
        "sortino": sortino(returns),
        "exposure_time": told["exposed_ms"] / span_ms if span_ms > 0 else 0.0,
        "turnover": turnover_of(total.turnover_micros, equity),
        "refused": told["refused"],
        "halted": int(told["halted_ts"] > 0),
    }


def hash_of(positions: Any, tally: Any) -> str:
    """The ``decisions_hash`` of an account, from its books' digests and the tally's."""
    digests = [int(value) for value in positions["digest"]]
    return combined_hash(digests, np.array(tally["lanes"], np.int64), int(tally["outcomes"]))


def rank_key(metric: str) -> Callable[[Row], tuple[bool, float, int]]:
    """Sort key that puts the best row first and undefined ones last; ties in order of place."""
    if metric not in HIGHER_IS_BETTER:
        raise UnknownName("metric", metric, HIGHER_IS_BETTER)
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0

    def key(row: Row) -> tuple[bool, float, int]:
        value = row.metrics.get(metric)
        return value is None, 0.0 if value is None else sign * value, row.place

    return key
