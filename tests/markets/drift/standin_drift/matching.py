"""A take: which prices are met in which order, and what each fill does to both sides, exactly."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from standin_drift import margin
from standin_drift.accounts import SIDES
from standin_drift.call import Call, Refused
from standin_drift.world import BASE, LONG, MARGIN, PRICE, Order, PerpMarket, Position, User

if TYPE_CHECKING:
    from standin_drift.program import Program

EXCHANGE_AMM_PAUSED = 4
"""Bit of the exchange status; the next two are bits of a market's paused operations."""
AMM_FILL_PAUSED, FILL_PAUSED = 2, 4
UNITS_TAKE, UNITS_FILL = 21_300, 33_000


@dataclass(frozen=True)
class Quote:
    """Something to trade with; the AMM has no maker."""

    price: int
    base: int
    maker: str = ""
    order_id: int = 0


def toward_zero(number: int, divisor: int) -> int:
    """Division as Rust's integers do it."""
    return abs(number) // divisor * (1 if number >= 0 else -1)


def up(number: int, divisor: int) -> int:
    return -(-number // divisor)


def to_tick(price: int, tick: int, side: int) -> int:
    """A limit price on the grid, never better for the market: down for a bid, up for an ask."""
    return price // tick * tick if side == LONG else up(price, tick) * tick


def amm_price(market: PerpMarket, oracle: int, side: int) -> int:
    """What the AMM asks of a taker of this side."""
    spread = oracle * market.amm_spread
    if side == LONG:
        return up(up(oracle * PRICE + spread, PRICE), market.tick) * market.tick
    return (oracle * PRICE - spread) // PRICE // market.tick * market.tick


def set_auction(order: Order, params: dict[str, Any], oracle: int) -> None:
    """A limit that crosses the oracle is forced into an auction from the oracle to its limit."""
    if params["auctionDuration"] and params["auctionStartPrice"] is not None:
        order.auction_duration = params["auctionDuration"]
        order.auction_start = params["auctionStartPrice"]
        order.auction_end = params["auctionEndPrice"] or order.price
    elif order.kind == "Market":
        order.auction_duration, order.auction_start = 10, oracle
        order.auction_end = order.price or oracle + order.side * oracle // 200
    elif not order.post_only and (order.price - oracle) * order.side > 0:
        order.auction_duration, order.auction_start = 10, oracle
        order.auction_end = order.price


def limit_price(order: Order, percent: int) -> int:
    """Of a take at so many percent of the order's auction."""
    if not order.auction_duration:
        return order.price
    way = (order.auction_end - order.auction_start) * percent
    price = order.auction_start + toward_zero(way, 100)
    if order.price and (price - order.price) * order.side > 0:
        return order.price
    return price


def take(
    program: "Program", call: Call, user: User, order: Order, makers: list[str], percent: int
) -> None:
    """Fill what crosses, best price first; nothing to fill is no error."""
    call.units += UNITS_TAKE
    market = call.draft.perp(order.market)
    oracle = call.draft.oracle(market.feed)
    if market.status == "FillPaused" or market.paused_operations & FILL_PAUSED:
        raise Refused("MarketFillOrderPaused", market.status)
    program.pay_funding(call, user, order.market)
    state = program.world.state
    invalid = margin.oracle_error(state, oracle, call.slot)
    if invalid in ("OracleNonPositive", "OracleTooVolatile", "OracleTooUncertain"):
        raise Refused(invalid)
    if abs(oracle.price - oracle.twap5) * PRICE > state.oracle_twap_divergence * oracle.twap5:
        call.say("oracle price and its 5 minute twap are too divergent")
        return
    amm = amm_quotes(program, market, order, invalid)
    if not makers and not amm:
        if invalid and market.strict_amm_oracle:
            raise Refused(invalid)
        if state.min_perp_auction_duration:
            raise Refused("ImpossibleFill")
    held = user.base(order.market)
    limit = limit_price(order, percent)
    quotes = maker_quotes(call, order, makers) + amm
    for quote in sorted(quotes, key=lambda one: (one.price * order.side, one.maker == "")):
        base = min(quote.base, fillable(user, order)) // market.step * market.step
        if base == 0 or (limit - quote.price) * order.side < 0:
            continue
        check_bands(program, market, oracle.price, oracle.twap5, quote.price)
        fill(program, call, user, order, quote, base)
    if order.open_base == 0:
        del user.orders[order.order_id]
    check_after(call, user, market, held)


def fillable(user: User, order: Order) -> int:
    """A reduce-only order never goes beyond the position it reduces."""
    if not order.reduce_only:
        return order.open_base
    held = user.base(order.market)
    return min(order.open_base, abs(held)) if held * order.side < 0 else 0


def amm_quotes(
    program: "Program", market: PerpMarket, order: Order, invalid: str | None
) -> list[Quote]:
    """The AMM at oracle and spread, if it may act now."""
    state, oracle = program.world.state, program.world.oracles[market.feed]
    paused = market.status == "AmmPaused" or market.paused_operations & AMM_FILL_PAUSED
    if paused or state.exchange_status & EXCHANGE_AMM_PAUSED or invalid or not market.amm_base:
        return []
    if state.min_perp_auction_duration:
        return []
    return [Quote(amm_price(market, oracle.price, order.side), market.amm_base)]


def maker_quotes(call: Call, order: Order, makers: list[str]) -> list[Quote]:
    return [
        Quote(resting.price, resting.open_base, key, resting.order_id)
        for key in makers
        for resting in call.draft.user(key).orders.values()
        if (resting.market, resting.side) == (order.market, -order.side)
    ]


def check_bands(program: "Program", market: PerpMarket, oracle: int, twap: int, price: int) -> None:
    """A fill stays within the initial margin ratio of the oracle and half of its average."""
    far = program.world.state.oracle_twap_divergence
    if (
        abs(price - oracle) * MARGIN > market.margin_initial * oracle
        or abs(price - twap) * PRICE > far * twap
    ):
        raise Refused("PriceBandsBreached", f"fill at {price}, oracle {oracle}, twap {twap}")


def check_after(call: Call, user: User, market: PerpMarket, held: int) -> None:
    if user.base(market.index) == held:
        return
    interest = max(market.base_long, -market.base_short)
    grown = margin.grows(held, user.base(market.index) - held)
    if grown and 0 < market.max_open_interest < interest:
        raise Refused("MaxOpenInterest", f"{interest} > {market.max_open_interest}")
    margin.check_fill(call.draft, user, call.slot, grown=grown)


def fill(program: "Program", call: Call, user: User, order: Order, quote: Quote, base: int) -> None:
    """Trade ``base``: rounding favours the resting side, the taker's fee rounds up."""
    call.units += UNITS_FILL
    state, market = program.world.state, call.draft.perp(order.market)
    round_ = up if order.side == LONG else int.__floordiv__
    amount = round_(base * quote.price, BASE)
    fee = up(amount * state.fee[0], state.fee[1])
    rebate = amount * state.rebate[0] // state.rebate[1] if quote.maker else 0
    record = {"makerFee": -rebate} if quote.maker else {}
    move(market, user.position(order.market), order.side * base, -order.side * amount)
    charge(user.position(order.market), -fee)
    order.filled += base
    order.quote_filled += amount
    stats = call.draft.stats(user.stats)
    stats.fees_paid += fee
    stats.taker_volume += amount
    if quote.maker:
        record |= fill_maker(program, call, quote, order.side, base, amount, rebate)
    why = "OrderFilledWithMatch" if quote.maker else "OrderFilledWithAMM"
    values = program.action(call, user, order, "Fill", why) | record
    values |= {
        "filler": user.key,
        "fillerReward": 0,
        "fillRecordId": market.next_fill_id,
        "baseAssetAmountFilled": base,
        "quoteAssetAmountFilled": amount,
        "takerFee": fee,
        "quoteAssetAmountSurplus": 0,
    }
    program.emit(call, "OrderActionRecord", values)
    market.next_fill_id += 1
    market.last_fill_price = quote.price


def fill_maker(
    program: "Program", call: Call, quote: Quote, side: int, base: int, amount: int, rebate: int
) -> dict[str, Any]:
    maker = call.draft.user(quote.maker)
    resting = maker.orders[quote.order_id]
    program.pay_funding(call, maker, resting.market)
    market = call.draft.perp(resting.market)
    move(market, maker.position(resting.market), -side * base, side * amount)
    charge(maker.position(resting.market), rebate)
    resting.filled += base
    resting.quote_filled += amount
    if resting.open_base == 0:
        del maker.orders[resting.order_id]
    stats = call.draft.stats(maker.stats)
    stats.rebates += rebate
    stats.maker_volume += amount
    return {"maker": maker.key, **order_part("maker", resting)}


def charge(position: Position, amount: int) -> None:
    position.quote += amount
    position.break_even += amount


def move(market: PerpMarket, position: Position, base: int, quote: int) -> None:
    """Add a trade to a position: entry and break-even follow, as Drift's update_position does."""
    before = position.base
    after = before + base
    for name in ("entry", "break_even"):
        held = getattr(position, name)
        if before * base >= 0:
            held += quote
        elif before * after >= 0:
            held -= toward_zero(held * abs(base), abs(before))
        else:
            held = quote - toward_zero(quote * abs(before), abs(base))
        setattr(position, name, held)
    if before * after <= 0 and after:
        position.last_funding = market.funding_long if after > 0 else market.funding_short
    position.base = after
    position.quote += quote
    for sign, name in ((1, "base_long"), (-1, "base_short")):
        part = max(after * sign, 0) - max(before * sign, 0)
        setattr(market, name, getattr(market, name) + sign * part)


def order_part(role: str, order: Order) -> dict[str, Any]:
    return {
        f"{role}OrderId": order.order_id,
        f"{role}OrderDirection": SIDES[order.side],
        f"{role}OrderBaseAssetAmount": order.base,
        f"{role}OrderCumulativeBaseAssetAmountFilled": order.filled,
        f"{role}OrderCumulativeQuoteAssetAmountFilled": order.quote_filled,
    }
