"""The account we trade: whether the key may trade it, and what it holds, dated by its slot.

Everything that can be wrong with it has one plain error, told before the first order.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.errors import ConfigError, UnknownName
from core.sending import Unreachable
from markets.drift.layout import variant
from markets.drift.market import (
    exchange_status,
    market_count,
    oracle_fault,
    read_oracle,
    read_perp,
    read_rails,
    read_spot,
    readable,
)
from markets.drift.units import BASE_PRECISION, base_to_chain
from markets.drift.users import Margin, User, deposit, funding_owed, margin, read_user
from markets.drift.views import Reader

MAINNET_GENESIS = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
SUB_ACCOUNTS_LOOKED = 8
ORDERS_MAX = 32
"""Of a sub-account, open at a time."""
_NOBODY = "1" * 32
_STATUS = {1: "being liquidated", 2: "bankrupt", 4: "reduce-only", 8: "advanced in liquidation"}
_QUOTE = 0


class AccountError(ConfigError):
    """The account cannot be traded as it is set up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What an account holds as of a slot, read at ``read_ms``: positions in units by market name,
    money in quote 1e6, funding received positive; ``funding_ms`` is when each market, by name, last
    settled funding, up to which it is counted."""

    slot: int
    read_ms: int
    positions: Mapping[str, Decimal]
    deposit: int
    margin: Margin
    open_orders: int
    funding_settled: int
    funding_owed: int
    funding_ms: Mapping[str, int]


async def check_access(
    reader: Reader, key: str, authority: str, sub_account: int, *, open_orders: int = 0
) -> User:
    """The sub-account, if this key may trade it and nothing stands in the way.

    AccountError: it does not exist, is another's, is not free to trade, or has open orders that
    nobody here knows of.
    """
    program = reader.program
    address = program.user(authority, sub_account)
    views = await reader.views([address, program.state])
    state = views.accounts.get(program.state)
    if state is None or state.owner != program.id:
        raise AccountError(f"program {program.id} is not Drift's here: it has no state account")
    found = views.accounts.get(address)
    if found is None or found.owner != program.id:
        raise AccountError(await _missing(reader, authority, sub_account))
    user = read_user(found.data)
    if key != user.authority and key != user.delegate:
        by = (
            f"its delegate is {user.delegate}" if user.delegate != _NOBODY else "it has no delegate"
        )
        raise AccountError(
            f"key {key} may not trade {address}: it belongs to {user.authority}, and {by}"
        )
    if user.status:
        said = [text for bit, text in _STATUS.items() if user.status & bit]
        raise AccountError(f"account {address} is {' and '.join(said) or user.status}")
    if user.open_orders > open_orders:
        raise AccountError(
            f"account {address} has {user.open_orders} open orders that are not ours: cancel them "
            "(a run that is halted does), or trade on a sub-account of its own"
        )
    return user


async def _missing(reader: Reader, authority: str, sub_account: int) -> str:
    """What to say of an account that is not there: its authority is wrong, or its number is."""
    program = reader.program
    others = [program.user(authority, number) for number in range(SUB_ACCOUNTS_LOOKED)]
    stats = program.user_stats(authority)
    views = await reader.views([stats, *others])
    known = [number for number, key in enumerate(others) if key in views.accounts]
    if known:
        listed = ", ".join(map(str, known))
        return f"authority {authority} has no sub-account {sub_account}: it has {listed}"
    if stats in views.accounts:
        return f"authority {authority} has no sub-account {sub_account}"
    return (
        f"authority {authority} is unknown to program {program.id}: make its account and deposit "
        "first; where the key is a delegate's, name the authority it trades for"
    )


async def find_markets(reader: Reader, names: Mapping[str, float]) -> dict[str, int]:
    """The index of each instrument's market; ``names`` gives the lot of each.

    An instrument is named as its market, with or without ``-PERP``. UnknownName where there is
    none, AccountError where our lot is finer than the market's step.
    """
    state = await reader.views([reader.program.state])
    count = market_count(state.data(reader.program.state))
    await reader.markets(range(count), [_QUOTE])
    known = {market.name: market for market in reader.perps.values()}
    found = {}
    for name, lot in names.items():
        market = known.get(name) or known.get(f"{name}-PERP")
        if market is None:
            raise UnknownName("market of Drift", name, known)
        if not readable(market.source):
            raise AccountError(f"{market.name}: oracle source {market.source} is not read")
        if base_to_chain(lot, 1) % market.step:
            step = Decimal(market.step) / BASE_PRECISION
            raise AccountError(
                f"instrument {name}: lot {lot:g} is no multiple of {market.name}'s step {step:f}"
            )
        found[name] = market.index
    return found


async def read_holdings(
    reader: Reader,
    address: str,
    clock: Callable[[], int],
    *,
    commitment: str = "confirmed",
    markets: Iterable[int] = (),
) -> Holdings:
    """What the account holds, all as of one slot; the funding also of ``markets`` it is not in.
    Only the quote token counts as collateral."""
    _, user = await reader.user(address, commitment)
    if user is None:
        raise AccountError(f"account {address} is gone")
    stands_in = {one.market for one in user.positions}
    indices = sorted({*markets, *stands_in})
    await reader.markets(indices, [_QUOTE])
    oracles = {index: reader.perps[index].oracle for index in stands_in}
    keys = [reader.program.perp_market(index) for index in indices]
    quote_key = reader.program.spot_market(_QUOTE)
    wanted = [address, quote_key, *keys, *dict.fromkeys(oracles.values())]
    views = await reader.views(wanted, commitment)
    user = read_user(views.data(address))
    if not {one.market for one in user.positions} <= oracles.keys():
        raise Unreachable(f"account {address} changed while it was read")
    prices = {
        index: read_oracle(reader.perps[index].source, views.data(key)).price
        for index, key in oracles.items()
    }
    # funding and interest move, so they are read again with the user
    fresh = {index: read_perp(views.data(key)) for index, key in zip(indices, keys, strict=True)}
    reader.perps.update(fresh)
    perps, quote = reader.perps, read_spot(views.data(quote_key))
    positions = {
        perps[one.market].name: Decimal(one.base) / BASE_PRECISION
        for one in user.positions
        if one.base
    }
    return Holdings(
        slot=views.slot,
        read_ms=clock(),
        positions=positions,
        deposit=deposit(user, quote),
        margin=margin(user, quote, perps, prices),
        open_orders=user.open_orders,
        funding_settled=user.funding,
        funding_owed=sum(funding_owed(one, perps[one.market]) for one in user.positions),
        funding_ms={perps[index].name: perps[index].funding_ms for index in indices},
    )


async def paused(reader: Reader) -> list[str]:
    """What the exchange as a whole has closed, in the program's words."""
    views = await reader.views([reader.program.state])
    status = exchange_status(views.data(reader.program.state))
    return [variant("ExchangeStatus", bit) for bit in range(8) if status >> bit & 1]


async def market_closed(reader: Reader, index: int) -> str:
    """Why a market cannot be traded now; empty where it can."""
    market, state = reader.perps[index], reader.program.state
    views = await reader.views([reader.program.perp_market(index), market.oracle, state])
    market = read_perp(views.data(reader.program.perp_market(index)))
    if market.status != "Active":
        return f"{market.name} is {market.status}"
    oracle = read_oracle(market.source, views.data(market.oracle))
    fault = oracle_fault(oracle, market, read_rails(views.data(state)), views.slot)
    return f"{market.name}: {fault}" if fault else ""
