"""The world as Drift's account bytes, and the lookup tables beside it."""

from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from typing import Any

from standin_drift.layout import Layout, key_bytes
from standin_drift.world import (
    LONG,
    PRICE,
    QUOTE_FEED,
    Oracle,
    Order,
    PerpMarket,
    Position,
    Stats,
    User,
    World,
)

LOOKUP_PROGRAM = "AddressLookupTab1e1111111111111111111111111"
LOOKUP_TABLES = (
    "Fpys8GRa5RBWfyeN7AaDUwFGD1zkDCA4z3t4CJLV8dfL",
    "EiWSskK5HXnBTptiS5DH6gpAJRVNQ3cAhTKBGaiaysAb",
)
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
INTEREST = 10**10
RESERVE = 10**15
REMEMBERED = slice(0, 4)
"""The fields of an oracle that its market repeats: all but the slot, which changes always."""

SIDES = {LONG: "Long", -LONG: "Short"}


class Accounts:
    """Encodes every account of a world; ``encode`` of one never depends on another's bytes."""

    def __init__(self, world: World, layout: Layout, mint: str) -> None:
        self.world, self.layout, self.mint = world, layout, mint
        self.written: dict[str, tuple[Any, bytes]] = {}

    def all(self) -> dict[str, bytes]:
        """Every account of the program by its address; only what changed is written anew."""
        world = self.world
        held = sum(max(one.collateral, 0) for one in world.users.values())
        oracles = {feed: astuple(one) for feed, one in world.oracles.items()}
        quote = oracles[QUOTE_FEED][REMEMBERED]
        out = {
            world.state_key: self.once("state", (world.state, len(world.users)), self.state),
            world.spot_key(0): self.once("spot", (held, quote), self.spot),
        }
        for feed, one in world.oracles.items():
            key = world.oracle_key(feed)
            out[key] = self.once(key, oracles[feed], partial(self.oracle, one))
        for index, market in world.perps.items():
            key, seen = world.perp_key(index), oracles[market.feed][REMEMBERED]
            out[key] = self.once(key, (market, seen), partial(self.perp, market))
        for key, user in world.users.items():
            out[key] = self.once(key, (user,), partial(self.user, user))
        for key, stats in world.stats.items():
            out[key] = self.once(key, (stats,), partial(self.stats, stats))
        return out

    def once(self, name: str, of: Any, write: Callable[[], bytes]) -> bytes:
        """The bytes written last time, if they are of the same."""
        known = self.written.get(name)
        if known is None or known[0] != of:
            known = self.written[name] = (of, write())
        return known[1]

    def lookup_tables(self) -> dict[str, bytes]:
        """Two tables: State and oracles in one, markets in the other."""
        world = self.world
        first = [world.state_key, *(world.oracle_key(feed) for feed in world.oracles)]
        second = [world.spot_key(0), *(world.perp_key(at) for at in world.perps)]
        head = (1).to_bytes(4, "little") + (2**64 - 1).to_bytes(8, "little") + bytes(44)
        return {
            table: head + b"".join(map(key_bytes, keys))
            for table, keys in zip(LOOKUP_TABLES, (first, second), strict=True)
        }

    def state(self) -> bytes:
        state = self.world.state
        (fee, fee_of), (rebate, rebate_of) = state.fee, state.rebate
        tier = {
            "feeNumerator": fee,
            "feeDenominator": fee_of,
            "makerRebateNumerator": rebate,
            "makerRebateDenominator": rebate_of,
            "referrerRewardDenominator": 1,
            "refereeFeeDenominator": 1,
        }
        fees = {"feeTiers": [tier] * 10, "fillerRewardStructure": {"rewardDenominator": 1}}
        rails = {
            "priceDivergence": {
                "markOraclePercentDivergence": PRICE // 10,
                "oracleTwap5minPercentDivergence": state.oracle_twap_divergence,
            },
            "validity": {
                "slotsBeforeStaleForAmm": state.slots_before_stale_for_amm,
                "slotsBeforeStaleForMargin": state.slots_before_stale_for_margin,
                "confidenceIntervalMaxSize": state.confidence_max,
                "tooVolatileRatio": state.too_volatile_ratio,
            },
        }
        values = {
            "signer": self.world.at("drift_signer"),
            "perpFeeStructure": fees,
            "spotFeeStructure": fees,
            "oracleGuardRails": rails,
            "numberOfSubAccounts": len(self.world.users),
            "numberOfMarkets": state.number_of_markets,
            "numberOfSpotMarkets": 1,
            "minPerpAuctionDuration": state.min_perp_auction_duration,
            "exchangeStatus": state.exchange_status,
            "liquidationMarginBufferRatio": 200,
        }
        return self.layout.account("State", values)

    def oracle(self, oracle: Oracle) -> bytes:
        """Pyth Lazer with exponent -8, as its feeds have."""
        values = {
            "price": oracle.price * 100,
            "conf": oracle.conf * 100,
            "exponent": -8,
            "postedSlot": oracle.slot,
            "publishTime": oracle.slot * 400_000,
        }
        return self.layout.account("PythLazerOracle", values)

    def perp(self, market: PerpMarket) -> bytes:
        oracle = self.world.oracles[market.feed]
        reserves = ("baseAssetReserve", "quoteAssetReserve", "sqrtK", "askBaseAssetReserve")
        reserves += ("askQuoteAssetReserve", "bidBaseAssetReserve", "bidQuoteAssetReserve")
        amm = dict.fromkeys(reserves, RESERVE) | {
            "oracle": self.world.oracle_key(market.feed),
            "oracleSource": "PythLazer",
            "historicalOracleData": history(oracle),
            "pegMultiplier": oracle.price,
            "concentrationCoef": PRICE,
            "baseAssetAmountLong": market.base_long,
            "baseAssetAmountShort": market.base_short,
            "baseAssetAmountWithAmm": market.base_long + market.base_short,
            "maxOpenInterest": market.max_open_interest,
            "cumulativeFundingRateLong": market.funding_long,
            "cumulativeFundingRateShort": market.funding_short,
            "lastFundingRate": market.funding_rate,
            "lastFundingRateTs": market.funding_s,
            "lastFundingRateLong": market.funding_rate,
            "lastFundingRateShort": market.funding_rate,
            "lastFundingOracleTwap": oracle.twap,
            "fundingPeriod": 3_600,
            "lastMarkPriceTwap": oracle.twap,
            "lastMarkPriceTwap5min": oracle.twap5,
            "lastBidPriceTwap": oracle.twap,
            "lastAskPriceTwap": oracle.twap,
            "orderStepSize": market.step,
            "orderTickSize": market.tick,
            "minOrderSize": market.min_order_size,
            "baseSpread": market.amm_spread * 2,
            "longSpread": market.amm_spread,
            "shortSpread": market.amm_spread,
            "maxFillReserveFraction": 1,
            "maxSlippageRatio": 50,
            "lastOracleValid": True,
        }
        values = {
            "pubkey": self.world.perp_key(market.index),
            "amm": amm,
            "name": market.name.ljust(32).encode(),
            "marketIndex": market.index,
            "status": market.status,
            "contractType": "Perpetual",
            "contractTier": "A",
            "pausedOperations": market.paused_operations,
            "marginRatioInitial": market.margin_initial,
            "marginRatioMaintenance": market.margin_maintenance,
            "unrealizedPnlInitialAssetWeight": 10_000,
            "unrealizedPnlMaintenanceAssetWeight": 10_000,
            "nextFillRecordId": market.next_fill_id,
            "lastFillPrice": market.last_fill_price,
        }
        return self.layout.account("PerpMarket", values)

    def spot(self) -> bytes:
        world = self.world
        weights = ("initialAssetWeight", "maintenanceAssetWeight")
        weights += ("initialLiabilityWeight", "maintenanceLiabilityWeight")
        values: dict[str, Any] = dict.fromkeys(weights, 10_000) | {
            "pubkey": world.spot_key(0),
            "oracle": world.oracle_key(QUOTE_FEED),
            "oracleSource": "PythLazerStableCoin",
            "historicalOracleData": history(world.oracles[QUOTE_FEED]),
            "mint": self.mint,
            "vault": world.at("spot_market_vault", bytes(2)),
            "name": "USDC".ljust(32).encode(),
            "depositBalance": sum(max(one.collateral, 0) for one in world.users.values()) * 1_000,
            "cumulativeDepositInterest": INTEREST,
            "cumulativeBorrowInterest": INTEREST,
            "decimals": 6,
            "status": "Active",
            "assetTier": "Collateral",
        }
        return self.layout.account("SpotMarket", values)

    def user(self, user: User) -> bytes:
        deposit = {
            "scaledBalance": abs(user.collateral) * 1_000,
            "cumulativeDeposits": user.deposits,
            "balanceType": "Deposit" if user.collateral >= 0 else "Borrow",
        }
        markets = sorted(user.markets())
        values = {
            "authority": user.authority,
            "delegate": user.delegate,
            "name": user.name.ljust(32).encode(),
            "spotPositions": [deposit],
            "perpPositions": [self.position(user, market) for market in markets],
            "orders": [self.order(one) for one in user.orders.values()],
            "totalDeposits": user.deposits,
            "settledPerpPnl": user.settled_pnl,
            "cumulativePerpFunding": user.cumulative_funding,
            "nextOrderId": user.next_order_id,
            "subAccountId": user.sub_account,
            "status": user.status,
            "openOrders": len(user.orders),
            "hasOpenOrder": bool(user.orders),
        }
        return self.layout.account("User", values)

    def position(self, user: User, market: int) -> dict[str, Any]:
        one = user.positions.get(market, Position(market))
        return {
            "lastCumulativeFundingRate": one.last_funding,
            "baseAssetAmount": one.base,
            "quoteAssetAmount": one.quote,
            "quoteBreakEvenAmount": one.break_even,
            "quoteEntryAmount": one.entry,
            "openBids": user.open_base(market, LONG),
            "openAsks": user.open_base(market, -LONG),
            "settledPnl": one.settled_pnl,
            "marketIndex": market,
            "openOrders": sum(order.market == market for order in user.orders.values()),
        }

    def order(self, order: Order, status: str = "Open") -> dict[str, Any]:
        return {
            "slot": order.slot,
            "price": order.price,
            "baseAssetAmount": order.base,
            "baseAssetAmountFilled": order.filled,
            "quoteAssetAmountFilled": order.quote_filled,
            "auctionStartPrice": order.auction_start,
            "auctionEndPrice": order.auction_end,
            "maxTs": order.max_ts,
            "orderId": order.order_id,
            "marketIndex": order.market,
            "status": status,
            "orderType": order.kind,
            "marketType": "Perp",
            "userOrderId": order.user_order_id,
            "existingPositionDirection": SIDES[order.existing_side],
            "direction": SIDES[order.side],
            "reduceOnly": order.reduce_only,
            "postOnly": order.post_only,
            "immediateOrCancel": order.ioc,
            "auctionDuration": order.auction_duration,
        }

    def stats(self, stats: Stats) -> bytes:
        values = {
            "authority": stats.authority,
            "fees": {"totalFeePaid": stats.fees_paid, "totalFeeRebate": stats.rebates},
            "makerVolume30d": stats.maker_volume,
            "takerVolume30d": stats.taker_volume,
            "numberOfSubAccounts": stats.sub_accounts,
            "numberOfSubAccountsCreated": stats.sub_accounts,
        }
        return self.layout.account("UserStats", values)


def history(oracle: Oracle) -> dict[str, int]:
    return {
        "lastOraclePrice": oracle.price,
        "lastOracleConf": oracle.conf,
        "lastOraclePriceTwap": oracle.twap,
        "lastOraclePriceTwap5min": oracle.twap5,
    }
