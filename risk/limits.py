"""Limits and sizing terms, as one record a book. Zero means that a limit is off."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np

from core.errors import ConfigError
from core.model import Records


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the gate enforces. Notionals and risks in quote, fractions of equity where named so.

    ``daily_loss_soft`` and ``drawdown_soft`` halve new size; ``daily_loss`` leaves only reducing
    until the next UTC day; ``drawdown`` halts until an operator resumes. ``flatten_on_halt``: a
    halt closes the book; in the account's limits, every book. ``correlated_notional_max`` bounds
    what is held in instruments that move with the order's, hedges taken off: those whose returns
    correlate by more than ``correlation_above`` over ``correlation_bars`` (the span of an EMA).
    Before so many bars, or where one does not move, whatever is held counts.
    """

    order_notional_max: float = 0.0
    order_notional_min: float = 0.0
    order_risk_max: float = 0.0
    instrument_notional_max: float = 0.0
    strategy_notional_max: float = 0.0
    gross_notional_max: float = 0.0
    pending_notional_max: float = 0.0
    cluster_risk_max: float = 0.0
    correlated_notional_max: float = 0.0
    correlation_above: float = 0.7
    correlation_bars: float = 240.0
    leverage_max: float = 3.0
    daily_loss_soft: float = 0.02
    daily_loss: float = 0.05
    drawdown_soft: float = 0.10
    drawdown: float = 0.25
    flatten_on_halt: bool = False
    losses_in_row_max: float = 0.0
    cooldown_ms: float = 0.0
    collar: float = 0.05
    data_age_ms_max: float = 120_000.0
    quote_age_ms_max: float = 0.0
    repeat_ms: float = 0.0
    orders_per_minute_max: float = 60.0
    volume_share_max: float = 0.0

    def __post_init__(self) -> None:
        for term in fields(self):
            value = getattr(self, term.name)
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"limit {term.name} must be zero (off) or above, got {value}")
        for soft, hard in (("daily_loss_soft", "daily_loss"), ("drawdown_soft", "drawdown")):
            if 0 < getattr(self, hard) < getattr(self, soft):
                raise ConfigError(f"limit {soft} must not exceed {hard}")
        if self.correlation_above >= 1:
            raise ConfigError(f"limit correlation_above is below one, got {self.correlation_above}")
        if self.correlation_bars < 2 or self.correlation_bars % 1:
            bars = self.correlation_bars
            raise ConfigError(
                f"limit correlation_bars must be a whole number from 2 on, got {bars}"
            )


class SizingRule(IntEnum):
    """How much one full target is."""

    NOTIONAL = 0
    QUANTITY = 1
    EQUITY = 2
    ATR_RISK = 3
    VOLATILITY = 4
    KELLY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """Terms of size. ``value`` by rule: NOTIONAL quote; QUANTITY units; EQUITY fraction of equity;
    ATR_RISK fraction of equity lost at ``atr_multiple`` ATR; VOLATILITY target per bar as fraction;
    KELLY share of the Kelly bet in [0, 1]. ``cap`` bounds the notional as fraction of equity."""

    rule: SizingRule = SizingRule.EQUITY
    value: float = 0.5
    atr_multiple: float = 2.0
    cap: float = 1.0

    def __post_init__(self) -> None:
        if self.value <= 0 or self.cap <= 0 or self.atr_multiple <= 0:
            raise ConfigError("sizing: value, cap and atr_multiple must be above zero")
        if self.rule == SizingRule.KELLY and self.value > 1:
            raise ConfigError(f"sizing: a Kelly share lies in (0, 1], got {self.value}")


def _layout(terms: type, *more: str) -> np.dtype[Any]:
    return np.dtype([(name, "f8") for name in (*(term.name for term in fields(terms)), *more)])


LIMITS = _layout(Limits)
SIZING = _layout(Sizing, "daily_loss_soft", "drawdown_soft")
"""Sizing reads the soft limits beside its own terms."""


def limits_records(rows: Sequence[Limits]) -> Records:
    """One record a row."""
    return np.array(
        [tuple(getattr(row, name) for name in LIMITS.names or ()) for row in rows], LIMITS
    )


def sizing_records(rows: Sequence[tuple[Sizing, Limits]]) -> Records:
    """One record a book, of its sizing and the soft limits of its limits."""
    own = [term.name for term in fields(Sizing)]
    return np.array(
        [
            (*(getattr(sizing, name) for name in own), limits.daily_loss_soft, limits.drawdown_soft)
            for sizing, limits in rows
        ],
        SIZING,
    )
