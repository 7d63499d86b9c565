"""A user of Drift as its account tells it: who may sign for it, what it holds, what it owes.

The decoding is a view of the account's bytes and takes microseconds, so it may run in the loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markets.drift.layout import decode, discriminator
from markets.drift.market import Perp, Spot, key_text
from markets.drift.units import BASE_PRECISION, FUNDING_PRECISION, QUOTE_PRECISION

_BALANCE_SCALE = 19
"""Balances are 1e9 and interest 1e10, so a token of 6 decimals is their product over 1e13."""
_RATIO = 10_000
_FUNDING_SCALE = BASE_PRECISION * FUNDING_PRECISION // QUOTE_PRECISION


@dataclass(frozen=True, slots=True)
class Position:
    """A perpetual position: signed base (1e9), and quote (1e6) that holds fees and funding."""

    market: int
    base: int
    quote: int
    last_funding: int
    bids: int
    asks: int


@dataclass(frozen=True, slots=True)
class User:
    """A sub-account. ``status`` 0 is free of liquidation, bankruptcy and restriction."""

    authority: str
    delegate: str
    status: int
    positions: tuple[Position, ...]
    spots: tuple[tuple[int, int], ...]
    """Signed scaled balances by spot market."""
    open_orders: int
    funding: int
    """Funding settled over its life, quote 1e6, received positive."""


@dataclass(frozen=True, slots=True)
class Margin:
    """Collateral, and what the positions require of it, quote 1e6."""

    collateral: int
    initial: int
    maintenance: int

    @property
    def free(self) -> int:
        """What could bear new risk."""
        return self.collateral - self.initial


def is_user(data: bytes) -> bool:
    """Whether an account's bytes are a User's."""
    return data[:8] == discriminator("User")


def read_user(data: bytes) -> User:
    """A User account."""
    told = decode("User", data)
    perps, spots = told["perpPositions"], told["spotPositions"]
    held = (perps["baseAssetAmount"] != 0) | (perps["quoteAssetAmount"] != 0)
    held |= (perps["openOrders"] != 0) | (perps["lpShares"] != 0)
    kept = (spots["scaledBalance"] != 0) | (spots["openOrders"] != 0)
    return User(
        authority=key_text(told["authority"]),
        delegate=key_text(told["delegate"]),
        status=int(told["status"]),
        positions=tuple(_position(one) for one in perps[held]),
        spots=tuple(_balance(one) for one in spots[kept]),
        open_orders=int(told["openOrders"]),
        funding=int(told["cumulativePerpFunding"]),
    )


def _position(told: Any) -> Position:
    return Position(
        market=int(told["marketIndex"]),
        base=int(told["baseAssetAmount"]),
        quote=int(told["quoteAssetAmount"]),
        last_funding=int(told["lastCumulativeFundingRate"]),
        bids=int(told["openBids"]),
        asks=int(told["openAsks"]),
    )


def _balance(told: Any) -> tuple[int, int]:
    sign = -1 if told["balanceType"] else 1
    return int(told["marketIndex"]), sign * int(told["scaledBalance"])


def deposit(user: User, quote: Spot) -> int:
    """What is deposited of the quote token (negative: borrowed), 1e6."""
    scaled = dict(user.spots).get(0, 0)
    interest = quote.deposit_interest if scaled >= 0 else quote.borrow_interest
    tokens = int(abs(scaled) * interest // 10 ** (_BALANCE_SCALE - quote.decimals))
    return tokens if scaled >= 0 else -tokens


def funding_owed(position: Position, market: Perp) -> int:
    """Funding not settled yet, quote 1e6, received positive: it is settled when next touched."""
    now = market.funding_long if position.base > 0 else market.funding_short
    owed = (now - position.last_funding) * position.base
    # the program divides towards zero
    return -(abs(owed) // _FUNDING_SCALE) * (1 if owed >= 0 else -1)


def margin(
    user: User, quote: Spot, markets: Mapping[int, Perp], prices: Mapping[int, int]
) -> Margin:
    """Margin at these oracle prices (1e6), each position at its worst with its open orders."""
    total, initial, maintenance = deposit(user, quote), 0, 0
    for one in user.positions:
        market, price = markets[one.market], prices[one.market]
        value = abs(one.base) * price // BASE_PRECISION * (1 if one.base >= 0 else -1)
        total += one.quote + value + funding_owed(one, market)
        worst = max(abs(one.base + one.bids), abs(one.base + one.asks)) * price // BASE_PRECISION
        initial += worst * market.margin_initial // _RATIO
        maintenance += abs(value) * market.margin_maintenance // _RATIO
    return Margin(total, initial, maintenance)
