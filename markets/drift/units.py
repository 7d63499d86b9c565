"""Drift's units: the one place where its integers and its three forms of funding are converted.

Mixing two of the funding forms is an error of 85 or 1000 times that no type would catch, so each
has a function named for its source. Inside, everything is a fraction of notional per hour, positive
when longs pay.
"""

import math
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import TypeVar

from markets.history import Floats

Amount = TypeVar("Amount", float, Floats)

PRICE_PRECISION = 10**6
QUOTE_PRECISION = 10**6
BASE_PRECISION = 10**9
FUNDING_PRECISION = 10**9

FUNDING_HOURS = 1.0
"""Drift settles funding on the hour."""

_ULPS = 4
_SLACK_MAX = Decimal("0.49")
"""Of a step: where a float is so coarse that more would be granted, what is on the grid stays."""


def price_from_chain(price: int) -> float:
    """Quote per unit, from the integer a book or an account holds."""
    return price / PRICE_PRECISION


def base_from_chain(base: int) -> float:
    """Signed units of the base asset."""
    return base / BASE_PRECISION


def quote_from_chain(quote: int) -> float:
    """Signed quote currency."""
    return quote / QUOTE_PRECISION


def price_to_chain(price: float, tick: int, *, buying: bool) -> int:
    """The integer limit price on the tick grid, never worse than ``price`` for our side."""
    assert price > 0, price
    assert tick > 0, tick
    ticks = _exact(price) * PRICE_PRECISION / tick
    return int(ticks.to_integral_value(ROUND_FLOOR if buying else ROUND_CEILING)) * tick


def base_to_chain(quantity: float, step: int) -> int:
    """The integer size on the step grid, never larger than ``quantity`` in magnitude.

    A sum of floats may fall short of the size it means (0.3 - 0.1 of 0.2), so a few units in its
    last place are granted: else an exit would leave a step behind.
    """
    assert step > 0, step
    steps = _exact(quantity) * BASE_PRECISION / step
    slack = min(Decimal(_ULPS * math.ulp(quantity)) * BASE_PRECISION / step, _SLACK_MAX)
    return int((steps + slack.copy_sign(steps)).to_integral_value(ROUND_DOWN)) * step


def funding_from_chain(rate: int, oracle_twap: int) -> float:
    """Of chain events and ``/fundingRates``: integers, 1e9 quote per base over a 1e6 price."""
    return (rate / FUNDING_PRECISION) / (oracle_twap / PRICE_PRECISION)


def funding_from_decimal(rate: Amount, oracle_twap: Amount) -> Amount:
    """Of ``/market/{symbol}/fundingRates`` and the S3 files: decimals, quote per base."""
    return rate / oracle_twap


def funding_from_stats(long_percent: float) -> float:
    """Of ``/stats/markets``: percent per hour as cash flow to the longs, so negative: longs pay."""
    return -long_percent / 100


def _exact(value: float) -> Decimal:
    """The decimal a person reads, so that 150.1 is 150100000 and not one tick less."""
    return Decimal(repr(value))
