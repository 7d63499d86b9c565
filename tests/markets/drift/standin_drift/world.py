"""What Drift's program keeps: markets, users, orders, positions, all in its own integers.

Values are never changed in place: an edit works on copies and is put back whole, so that a failed
transaction leaves nothing behind and a fork can bring back what was before.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from standin_drift.layout import address, key_bytes

DRIFT = "dRiftyHA39MWEi3m9aunc5MzRF1JYuBsbn6VPcn33UH"
DEFAULT_KEY = "11111111111111111111111111111111"
PRICE, BASE, MARGIN = 10**6, 10**9, 10**4
LONG, SHORT = 1, -1

# (symbol, Pyth Lazer feed, oracle price)
PERPS = (
    ("SOL-PERP", 6, 150 * PRICE),
    ("BTC-PERP", 1, 60_000 * PRICE),
    ("ETH-PERP", 2, 3_000 * PRICE),
)
QUOTE_FEED = 7

BEING_LIQUIDATED, BANKRUPT, REDUCE_ONLY = 1, 2, 4
"""Bits of a user's status."""


@dataclass
class State:
    """``exchange_status`` is the bit set of the IDL's ExchangeStatus, all 8 for a full pause."""

    exchange_status: int = 0
    min_perp_auction_duration: int = 0
    fee: tuple[int, int] = (35, 100_000)
    rebate: tuple[int, int] = (25, 1_000_000)
    oracle_twap_divergence: int = PRICE // 2
    slots_before_stale_for_amm: int = 10
    slots_before_stale_for_margin: int = 120
    confidence_max: int = PRICE // 50
    too_volatile_ratio: int = 5
    number_of_markets: int = len(PERPS)


@dataclass
class Oracle:
    """Price and confidence in 1e6; ``twap`` and ``twap5`` are what the market remembers."""

    price: int
    conf: int
    twap: int
    twap5: int
    slot: int = 0
    enough_data: bool = True
    follows_slot: bool = True
    """Posted anew every slot, as a keeper would; False lets it grow stale."""


@dataclass
class PerpMarket:
    """``amm_spread`` is half a spread, 1e-6 of the oracle; ``amm_base`` what it fills at most."""

    index: int
    name: str
    feed: int
    status: str = "Active"
    paused_operations: int = 0
    step: int = 10**7
    tick: int = 100
    min_order_size: int = 10**7
    margin_initial: int = 500
    margin_maintenance: int = 300
    max_open_interest: int = 0
    amm_spread: int = 500
    amm_base: int = 1_000 * BASE
    strict_amm_oracle: bool = False
    """A take that could only meet the AMM fails with the oracle's code, instead of no fill."""
    funding_long: int = 0
    funding_short: int = 0
    funding_rate: int = 0
    funding_s: int = 0
    """When it last settled funding."""
    base_long: int = 0
    base_short: int = 0
    next_fill_id: int = 1
    last_fill_price: int = 0


@dataclass
class Order:
    order_id: int
    market: int
    side: int
    base: int
    price: int
    kind: str = "Limit"
    filled: int = 0
    quote_filled: int = 0
    slot: int = 0
    max_ts: int = 0
    user_order_id: int = 0
    reduce_only: bool = False
    post_only: bool = False
    ioc: bool = False
    existing_side: int = LONG
    auction_duration: int = 0
    auction_start: int = 0
    auction_end: int = 0

    @property
    def open_base(self) -> int:
        return self.base - self.filled


@dataclass
class Position:
    """As in the account: ``quote`` already holds fees and settled funding."""

    market: int
    base: int = 0
    quote: int = 0
    entry: int = 0
    break_even: int = 0
    last_funding: int = 0
    settled_pnl: int = 0


@dataclass
class User:
    """``collateral`` is the quote deposit in 1e6."""

    key: str
    stats: str
    authority: str
    sub_account: int
    collateral: int
    delegate: str = DEFAULT_KEY
    name: str = "Main Account"
    status: int = 0
    positions: dict[int, Position] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    next_order_id: int = 1
    deposits: int = 0
    cumulative_funding: int = 0
    settled_pnl: int = 0

    def copy(self) -> Self:
        return replace(
            self,
            positions={at: replace(one) for at, one in self.positions.items()},
            orders={at: replace(one) for at, one in self.orders.items()},
        )

    def position(self, market: int) -> Position:
        return self.positions.setdefault(market, Position(market))

    def base(self, market: int) -> int:
        return self.positions[market].base if market in self.positions else 0

    def markets(self) -> set[int]:
        """Those the user stands in: a position, a rest of profit or loss, or an order."""
        held = {at for at, one in self.positions.items() if one.base or one.quote}
        return held | {one.market for one in self.orders.values()}

    def open_base(self, market: int, side: int) -> int:
        """Signed size of the open orders of a side, as in open_bids and open_asks."""
        return side * sum(
            one.open_base
            for one in self.orders.values()
            if (one.market, one.side) == (market, side) and not one.reduce_only
        )


@dataclass
class Stats:
    """What an authority paid and got over all its sub-accounts."""

    key: str
    authority: str
    fees_paid: int = 0
    rebates: int = 0
    taker_volume: int = 0
    maker_volume: int = 0
    sub_accounts: int = 1


@dataclass
class Draft:
    """A world being changed: what it hands out is a copy, kept if the change succeeds."""

    world: "World"
    state: State
    changed: dict[tuple[str, Any], Any] = field(default_factory=dict)

    def take(self, shelf: str, name: Any) -> Any:
        key = (shelf, name)
        if key not in self.changed:
            value = getattr(self.world, shelf)[name]
            self.changed[key] = value.copy() if isinstance(value, User) else replace(value)
        return self.changed[key]

    def user(self, key: str) -> User:
        return self.take("users", key)

    def stats(self, key: str) -> Stats:
        return self.take("stats", key)

    def perp(self, index: int) -> PerpMarket:
        return self.take("perps", index)

    def oracle(self, feed: int) -> Oracle:
        return self.world.oracles[feed]


class World:
    """All accounts of the program by what they mean; ``accounts`` says what they are as bytes."""

    def __init__(self, program: str = DRIFT, slot: int = 0) -> None:
        self.program = program
        self.state = State()
        self.oracles = {QUOTE_FEED: Oracle(PRICE, 0, PRICE, PRICE, slot)}
        self.perps: dict[int, PerpMarket] = {}
        self.users: dict[str, User] = {}
        self.stats: dict[str, Stats] = {}
        for index, (name, feed, price) in enumerate(PERPS):
            self.perps[index] = PerpMarket(index, name, feed)
            self.oracles[feed] = Oracle(price, price // 10_000, price, price, slot)

    @contextmanager
    def edit(self) -> Iterator[Draft]:
        """Change copies; they replace the originals on leaving without an error."""
        draft = Draft(self, self.state)
        yield draft
        self.keep(draft)

    def keep(self, draft: Draft) -> None:
        for (shelf, name), value in draft.changed.items():
            getattr(self, shelf)[name] = value

    def snapshot(self) -> dict[str, Any]:
        """All that transactions change; oracles and state are not theirs."""
        return {name: dict(getattr(self, name)) for name in ("perps", "users", "stats")}

    def restore(self, snapshot: dict[str, Any]) -> None:
        for name, values in snapshot.items():
            setattr(self, name, dict(values))

    # -- addresses

    def at(self, seed: str, *more: bytes) -> str:
        return address(self.program, seed.encode(), *more)

    @property
    def state_key(self) -> str:
        return self.at("drift_state")

    def oracle_key(self, feed: int) -> str:
        return self.at("pyth_lazer", feed.to_bytes(4, "little"))

    def perp_key(self, index: int) -> str:
        return self.at("perp_market", index.to_bytes(2, "little"))

    def spot_key(self, index: int) -> str:
        return self.at("spot_market", index.to_bytes(2, "little"))

    def user_key(self, authority: str, sub_account: int) -> str:
        return self.at("user", key_bytes(authority), sub_account.to_bytes(2, "little"))

    def stats_key(self, authority: str) -> str:
        return self.at("user_stats", key_bytes(authority))

    # -- what a test arranges

    def add_user(self, authority: str, collateral: int, sub_account: int = 0) -> User:
        """A User with its UserStats and ``collateral`` micros of the quote token deposited."""
        stats = self.stats_key(authority)
        user = User(
            self.user_key(authority, sub_account),
            stats,
            authority,
            sub_account,
            collateral,
            deposits=collateral,
        )
        assert user.key not in self.users, f"user {user.key} exists"
        known = self.stats.get(stats, Stats(stats, authority, sub_accounts=0))
        self.stats[stats] = replace(known, sub_accounts=known.sub_accounts + 1)
        self.users[user.key] = user
        return user

    def set_book(
        self,
        key: str,
        market: int,
        bids: Iterable[tuple[int, int]],
        asks: Iterable[tuple[int, int]],
        slot: int,
    ) -> None:
        """A maker's resting orders of a market, (price, base) each, in place of those it had."""
        with self.edit() as draft:
            user = draft.user(key)
            user.orders = {at: one for at, one in user.orders.items() if one.market != market}
            for side, levels in ((LONG, bids), (SHORT, asks)):
                for price, base in levels:
                    order = Order(user.next_order_id, market, side, base, price, slot=slot)
                    order.post_only = True
                    user.orders[order.order_id] = order
                    user.next_order_id += 1
            assert len(user.orders) <= 32, "a User holds 32 orders"


def set_fields(target: object, values: dict[str, Any]) -> None:
    """Set fields by name; a name that is none is a mistake of the test."""
    known = {one.name for one in fields(target)}  # type: ignore[arg-type]
    assert known >= values.keys(), f"no such field: {values.keys() - known}; known: {known}"
    for name, value in values.items():
        setattr(target, name, tuple(value) if isinstance(value, list) else value)
