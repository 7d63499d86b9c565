"""Drift's program as far as a taker meets it: which instructions it knows and what it refuses.

Rules and codes are those the adapter must survive; where the real program does more (referrers,
protected makers, liquidations) an order simply does not meet it here.
"""

import struct
from base64 import b64encode
from typing import Any

from standin_drift import margin, matching
from standin_drift.accounts import SIDES, Accounts
from standin_drift.call import Call, Refused
from standin_drift.layout import Layout
from standin_drift.world import (
    BANKRUPT,
    BEING_LIQUIDATED,
    LONG,
    REDUCE_ONLY,
    SHORT,
    Order,
    PerpMarket,
    User,
)

IOC = 1
EXCHANGE_FILL_PAUSED = 8
ORDERS_MAX = 32
UNITS_PLACE = 20_700
ANCHOR = {
    "InstructionFallbackNotFound": 101,
    "InstructionDidNotDeserialize": 102,
    "ConstraintRaw": 2003,
    "AccountNotEnoughKeys": 3005,
    "AccountNotSigner": 3010,
    "AccountNotInitialized": 3012,
}


class Program:
    """``run`` one instruction against a draft of the world; Refused leaves through it."""

    def __init__(self, accounts: Accounts, layout: Layout) -> None:
        self.accounts, self.layout, self.world = accounts, layout, accounts.world
        self.known = {
            "placeAndTakePerpOrder": self.place_and_take,
            "placePerpOrder": self.place_only,
            "cancelOrders": self.cancel_many,
            "cancelOrder": self.cancel_one,
            "settleFundingPayment": self.settle_funding,
            "settlePnl": self.settle_pnl,
        }

    def code(self, name: str) -> int:
        return ANCHOR[name] if name in ANCHOR else self.layout.errors[name][0]

    def run(self, call: Call, data: bytes) -> None:
        try:
            entry, arguments = self.layout.instruction(data)
        except KeyError:
            raise Refused("InstructionFallbackNotFound") from None
        except (IndexError, struct.error):
            raise Refused("InstructionDidNotDeserialize") from None
        name = entry["name"]
        call.say(f"Instruction: {name[0].upper()}{name[1:]}")
        if name not in self.known:
            raise Refused("InstructionFallbackNotFound", f"the stand-in does not do {name}")
        call.named = len(entry["accounts"])
        self.check_accounts(call, entry["accounts"])
        self.known[name](call, **arguments)

    def check_accounts(self, call: Call, named: list[dict[str, Any]]) -> None:
        if len(call.metas) < len(named):
            raise Refused("AccountNotEnoughKeys")
        by_name = {one["name"]: meta for one, meta in zip(named, call.metas, strict=False)}
        for one in named:
            meta = by_name[one["name"]]
            if one["isSigner"] and not meta.signer:
                raise Refused("AccountNotSigner", f"caused by account: {one['name']}")
        if by_name["state"].key != self.world.state_key:
            raise Refused("AccountNotInitialized", "caused by account: state")
        user = self.world.users.get(by_name["user"].key)
        if user is None:
            raise Refused("AccountNotInitialized", "caused by account: user")
        signer = by_name["authority"].key if "authority" in by_name else user.authority
        if signer not in (user.authority, user.delegate):
            raise Refused("ConstraintRaw", "caused by account: user")
        if "userStats" in by_name and by_name["userStats"].key != user.stats:
            raise Refused("ConstraintRaw", "caused by account: user_stats")

    def emit(self, call: Call, name: str, values: dict[str, Any]) -> None:
        call.events.append((name, values))
        call.logs.append("Program data: " + b64encode(self.layout.event(name, values)).decode())

    # -- instructions

    def place_only(self, call: Call, params: dict[str, Any]) -> None:
        if self.world.state.exchange_status == 0xFF:
            raise Refused("ExchangePaused")
        if params["bitFlags"] & IOC:
            raise Refused("InvalidOrderIOC", "immediate_or_cancel order must be in place_and_make")
        user = call.draft.user(call.metas[1].key)
        self.need_maps(call, {params["marketIndex"], *user.markets()})
        order = self.place(call, user, params)
        if order is not None:
            call.orders.append(recorded(user, order))

    def place_and_take(
        self,
        call: Call,
        params: dict[str, Any],
        successCondition: int | None,  # noqa: N803
    ) -> None:
        if self.world.state.exchange_status & EXCHANGE_FILL_PAUSED:
            raise Refused("ExchangePaused")
        if params["postOnly"] != "None":
            raise Refused("InvalidOrderPostOnly", "post_only cant be used in place_and_take")
        user = call.draft.user(call.metas[1].key)
        index = params["marketIndex"]
        self.need_maps(call, {index, *user.markets()}, writable=index)
        makers = self.makers(call, user)
        condition, percent = 0, 100
        if successCondition is not None:
            condition, percent = successCondition & 0xFF, min(successCondition >> 8 & 0xFF, 100)
        self.place(call, user, params)
        order = user.orders.get(user.next_order_id - 1)
        if order is None:
            raise Refused("OrderDoesNotExist", f"no open order {user.next_order_id - 1}")
        matching.take(self, call, user, order, makers, percent)
        call.orders.append(recorded(user, order) | {"asked": params["baseAssetAmount"]})
        if order.ioc and order.order_id in user.orders:
            self.cancel(call, user, order, "None")
        done = {0: True, 1: order.filled > 0, 2: order.filled == order.base}
        if not done.get(condition, False):
            raise Refused("PlaceAndTakeOrderSuccessConditionFailed")

    def cancel_many(
        self,
        call: Call,
        marketType: str | None,  # noqa: N803
        marketIndex: int | None,  # noqa: N803
        direction: str | None,
    ) -> None:
        user = call.draft.user(call.metas[1].key)
        self.need_maps(call, user.markets())
        for order in list(user.orders.values()):
            if (
                marketType in (None, "Perp")
                and marketIndex in (None, order.market)
                and direction in (None, SIDES[order.side])
            ):
                self.cancel(call, user, order, "None")

    def cancel_one(self, call: Call, orderId: int | None) -> None:  # noqa: N803
        user = call.draft.user(call.metas[1].key)
        order = user.orders.get(user.next_order_id - 1 if orderId is None else orderId)
        if order is None:
            call.say(f"could not find order id {orderId}")
        else:
            self.cancel(call, user, order, "None")

    def settle_funding(self, call: Call) -> None:
        user = call.draft.user(call.metas[1].key)
        for index in list(user.positions):
            self.pay_funding(call, user, index)

    def settle_pnl(self, call: Call, marketIndex: int) -> None:  # noqa: N803
        """Move a position's profit or loss, at the oracle, into the deposit."""
        user = call.draft.user(call.metas[1].key)
        self.pay_funding(call, user, marketIndex)
        position = user.position(marketIndex)
        price = call.draft.oracle(call.draft.perp(marketIndex).feed).price
        pnl = position.quote + matching.toward_zero(position.base * price, matching.BASE)
        if pnl == 0:
            raise Refused("NoUnsettledPnl")
        position.quote -= pnl
        position.settled_pnl += pnl
        user.settled_pnl += pnl
        user.collateral += pnl

    # -- parts of them

    def need_maps(self, call: Call, markets: set[int], *, writable: int | None = None) -> None:
        """These markets and their oracles must be among the accounts, and one of them writable."""
        passed = {meta.key: meta for meta in call.remaining}
        world = self.world
        for market in markets:
            key = world.perp_key(market)
            if market not in world.perps or key not in passed:
                raise Refused("PerpMarketNotFound", f"market {market}")
            if world.oracle_key(world.perps[market].feed) not in passed:
                raise Refused("OracleNotFound", f"oracle of market {market}")
        if writable is not None and not passed[world.perp_key(writable)].writable:
            raise Refused("MarketWrongMutability", f"market {writable}")
        if world.spot_key(0) not in passed:
            raise Refused("SpotMarketNotFound", "market 0")

    def makers(self, call: Call, taker: User) -> list[str]:
        """Users passed to trade against; each needs its UserStats, and both writable."""
        passed = {meta.key: meta for meta in call.remaining}
        found = [key for key in passed if key in self.world.users and key != taker.key]
        for key in found:
            if not passed[key].writable:
                raise Refused("UserWrongMutability", key)
            stats = self.world.users[key].stats
            if stats not in passed:
                raise Refused("UserStatsNotFound", key)
            if not passed[stats].writable:
                raise Refused("UserStatsWrongMutability", stats)
        return found

    def place(self, call: Call, user: User, params: dict[str, Any]) -> Order | None:
        """Put an order on the user's list; None where its time is over, which is no error."""
        call.units += UNITS_PLACE
        self.check_user(user)
        max_ts = params["maxTs"] or 0
        if 0 < max_ts < call.now_s:
            call.say(f"max_ts ({max_ts}) < now ({call.now_s}), skipping order")
            return None
        market = call.draft.perp(params["marketIndex"])
        oracle = call.draft.oracle(market.feed)
        self.check_place(user, market, params)
        side = LONG if params["direction"] == "Long" else SHORT
        held = user.base(market.index)
        order = Order(
            user.next_order_id,
            market.index,
            side,
            params["baseAssetAmount"] // market.step * market.step,
            matching.to_tick(params["price"], market.tick, side),
            kind=params["orderType"],
            slot=call.slot,
            max_ts=max_ts,
            user_order_id=params["userOrderId"],
            reduce_only=params["reduceOnly"] or market.status == "ReduceOnly",
            post_only=params["postOnly"] != "None",
            ioc=bool(params["bitFlags"] & IOC),
            existing_side=LONG if held >= 0 else SHORT,
        )
        matching.set_auction(order, params, oracle.price)
        self.check_order(order, market)
        grows = not order.reduce_only and margin.grows(held, side * order.base)
        if market.status == "ReduceOnly" and held * side >= 0:
            raise Refused("InvalidOrderNotRiskReducing")
        if user.status & REDUCE_ONLY and margin.grows(held, side * order.base):
            raise Refused("UserReduceOnly")
        self.crossing_post_only(order, market, oracle.price, params["postOnly"])
        user.orders[order.order_id] = order
        user.next_order_id += 1
        if grows:
            margin.check_place(call.draft, user, call.slot)
        self.emit(call, "OrderActionRecord", self.action(call, user, order, "Place", "None"))
        values = {"ts": call.now_s, "user": user.key, "order": self.accounts.order(order)}
        self.emit(call, "OrderRecord", values)
        return order

    def check_user(self, user: User) -> None:
        if user.status & BEING_LIQUIDATED:
            raise Refused("UserIsBeingLiquidated")
        if user.status & BANKRUPT:
            raise Refused("UserBankrupt")

    def check_place(self, user: User, market: PerpMarket, params: dict[str, Any]) -> None:
        if len(user.orders) >= ORDERS_MAX:
            raise Refused("MaxNumberOfOrders")
        wanted = params["userOrderId"]
        if wanted and any(one.user_order_id == wanted for one in user.orders.values()):
            raise Refused("UserOrderIdAlreadyInUse", f"user_order_id {wanted}")
        if params["marketType"] != "Perp":
            raise Refused("InvalidOrderMarketType")
        if market.status == "Initialized":
            raise Refused("MarketBeingInitialized")
        if market.status in ("Settlement", "Delisted"):
            raise Refused("MarketPlaceOrderPaused", market.status)
        if params["baseAssetAmount"] < market.step:
            raise Refused("OrderAmountTooSmall", f"{params['baseAssetAmount']} < {market.step}")

    def check_order(self, order: Order, market: PerpMarket) -> None:
        if order.kind not in ("Limit", "Market"):
            if order.kind == "Oracle" and order.ioc:
                raise Refused("InvalidOrderIOC")
            raise Refused("InvalidOrder", f"the stand-in does not do {order.kind} orders")
        if order.kind == "Market" and order.ioc:
            raise Refused("InvalidOrderIOC")
        if order.ioc and order.post_only:
            raise Refused("InvalidOrderIOCPostOnly")
        if order.kind == "Limit" and order.price == 0:
            raise Refused("InvalidOrderLimitPrice")
        if not order.reduce_only and order.base < market.min_order_size:
            raise Refused("InvalidOrderMinOrderSize")

    def crossing_post_only(self, order: Order, market: PerpMarket, oracle: int, wish: str) -> None:
        """A post-only order must not meet the AMM."""
        if order.post_only:
            amm = matching.amm_price(market, oracle, order.side)
            if (order.price - amm) * order.side >= 0 and wish == "MustPostOnly":
                raise Refused("PlacePostOnlyLimitFailure")

    def cancel(self, call: Call, user: User, order: Order, why: str) -> None:
        del user.orders[order.order_id]
        self.emit(call, "OrderActionRecord", self.action(call, user, order, "Cancel", why))

    def action(self, call: Call, user: User, order: Order, action: str, why: str) -> dict[str, Any]:
        """An OrderActionRecord of one order; a post-only order speaks as maker."""
        role = "maker" if order.post_only else "taker"
        feed = self.world.perps[order.market].feed
        return {
            "ts": call.now_s,
            "action": action,
            "actionExplanation": why,
            "marketIndex": order.market,
            "marketType": "Perp",
            "oraclePrice": self.world.oracles[feed].price,
            role: user.key,
        } | matching.order_part(role, order)

    def pay_funding(self, call: Call, user: User, index: int) -> None:
        """Settle what a position owes since it last paid: -(now - last) x base, in quote."""
        if user.base(index) == 0:
            return
        position, market = user.position(index), call.draft.perp(index)
        now = market.funding_long if position.base > 0 else market.funding_short
        if now == position.last_funding:
            return
        paid = -matching.toward_zero((now - position.last_funding) * position.base, 10**12)
        values = {
            "ts": call.now_s,
            "userAuthority": user.authority,
            "user": user.key,
            "marketIndex": index,
            "fundingPayment": paid,
            "baseAssetAmount": position.base,
            "userLastCumulativeFunding": position.last_funding,
            "ammCumulativeFundingLong": market.funding_long,
            "ammCumulativeFundingShort": market.funding_short,
        }
        self.emit(call, "FundingPaymentRecord", values)
        position.quote += paid
        position.break_even += paid
        position.last_funding = now
        user.cumulative_funding += paid


def recorded(user: User, order: Order) -> dict[str, Any]:
    """An order as the stand-in's own books keep it."""
    return {
        "user": user.key,
        "order_id": order.order_id,
        "market": order.market,
        "side": order.side,
        "base": order.base,
        "price": order.price,
        "filled": order.filled,
        "quote_filled": order.quote_filled,
        "reduce_only": order.reduce_only,
        "ioc": order.ioc,
        "max_ts": order.max_ts,
        "user_order_id": order.user_order_id,
    }
