"""Whether an oracle may be used, and whether a user can bear what it wants to hold."""

from standin_drift.call import Refused
from standin_drift.world import BASE, LONG, MARGIN, PRICE, SHORT, Draft, Oracle, State, User


def grows(held: int, change: int) -> bool:
    """Does the change make the position larger, or turn it round?"""
    return abs(held + change) > abs(held) or (held + change) * held < 0


def oracle_error(state: State, oracle: Oracle, slot: int) -> str | None:
    """Name of the worst thing wrong with an oracle, worst first; None if the AMM may use it."""
    if oracle.price <= 0:
        return "OracleNonPositive"
    ratio, high, low = state.too_volatile_ratio, *sorted((oracle.price, max(oracle.twap, 1)))[::-1]
    if high > ratio * low:
        return "OracleTooVolatile"
    if oracle.conf * PRICE > state.confidence_max * oracle.price:
        return "OracleTooUncertain"
    if slot - oracle.slot > state.slots_before_stale_for_margin:
        return "OracleStaleForMargin"
    if not oracle.enough_data:
        return "OracleInsufficientDataPoints"
    if slot - oracle.slot > state.slots_before_stale_for_amm:
        return "OracleStaleForAMM"
    return None


def free_collateral(draft: Draft, user: User, *, initial: bool, orders: bool) -> int:
    """Collateral less requirement in quote micros; ``orders`` counts the worst of the open ones."""
    total, needed = user.collateral, 0
    for index in user.markets():
        market = draft.perp(index)
        price = draft.oracle(market.feed).price
        base = user.base(index)
        if index in user.positions:
            total += user.positions[index].quote + base * price // BASE
        worst = abs(base)
        if orders:
            bids, asks = user.open_base(index, LONG), user.open_base(index, SHORT)
            worst = max(abs(base + bids), abs(base + asks))
        ratio = market.margin_initial if initial else market.margin_maintenance
        needed += -(-worst * price * ratio // (BASE * MARGIN))
    return total - needed


def check_place(draft: Draft, user: User, slot: int) -> None:
    """An order that adds risk needs oracles good for margin, and initial margin at its worst."""
    check_oracles(draft, user, slot)
    need(free_collateral(draft, user, initial=True, orders=True))


def check_fill(draft: Draft, user: User, slot: int, *, grown: bool) -> None:
    """A fill that adds risk needs initial margin, any other maintenance margin."""
    if grown:
        check_oracles(draft, user, slot)
    need(free_collateral(draft, user, initial=grown, orders=False))


def check_oracles(draft: Draft, user: User, slot: int) -> None:
    for index in user.markets():
        error = oracle_error(draft.state, draft.oracle(draft.perp(index).feed), slot)
        if error not in (None, "OracleInsufficientDataPoints", "OracleStaleForAMM"):
            raise Refused(error)


def need(free: int) -> None:
    if free < 0:
        raise Refused("InsufficientCollateral", f"short of {-free}")
