"""What Drift says of a market and its oracle, and whether that oracle may be traded on.

The program checks the same when an order lands; checked here as well, an order is refused in
milliseconds and by the same code, and no price collar is drawn around a price nobody vouches for.
"""

from dataclasses import dataclass
from typing import Any

from core.errors import DataError
from markets.drift.layout import decode, variant, wide
from markets.drift.units import PRICE_PRECISION

_LAZER = {"PythLazer": 1, "PythLazer1K": 1_000, "PythLazer1M": 10**6, "PythLazerStableCoin": 1}
"""Sources whose account is a PythLazerOracle, and how many units their price is of."""

_CONFIDENCE_OF_TIER = {"C": 2, "Speculative": 10, "HighlySpeculative": 50, "Isolated": 50}
_STABLE_REACH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Perp:
    """A perpetual market, in the program's integers."""

    index: int
    name: str
    status: str
    tier: str
    oracle: str
    source: str
    step: int
    tick: int
    size_min: int
    margin_initial: int
    margin_maintenance: int
    twap: int
    twap_5min: int
    stale_slots: int
    funding_long: int
    funding_short: int
    funding_ms: int
    """When it last settled funding."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """A price and its confidence (1e6), and the slot they were posted in."""

    price: int
    confidence: int
    slot: int


@dataclass(frozen=True, slots=True)
class Rails:
    """The exchange's limits on oracles: slots, 1e-6 parts, and a plain ratio."""

    amm_slots: int
    margin_slots: int
    confidence_max: int
    volatile_ratio: int
    twap_divergence: int


@dataclass(frozen=True, slots=True)
class Spot:
    """A spot market as far as collateral needs it."""

    oracle: str
    deposit_interest: int
    borrow_interest: int
    decimals: int


def read_perp(data: bytes) -> Perp:
    """A PerpMarket account."""
    told = decode("PerpMarket", data)
    amm = told["amm"]
    past = amm["historicalOracleData"]
    return Perp(
        index=int(told["marketIndex"]),
        name=text(told["name"]),
        status=variant("MarketStatus", int(told["status"])),
        tier=variant("ContractTier", int(told["contractTier"])),
        oracle=key_text(amm["oracle"]),
        source=variant("OracleSource", int(amm["oracleSource"])),
        step=int(amm["orderStepSize"]),
        tick=int(amm["orderTickSize"]),
        size_min=int(amm["minOrderSize"]),
        margin_initial=int(told["marginRatioInitial"]),
        margin_maintenance=int(told["marginRatioMaintenance"]),
        twap=int(past["lastOraclePriceTwap"]),
        twap_5min=int(past["lastOraclePriceTwap5min"]),
        stale_slots=int(amm["oracleSlotDelayOverride"]),
        funding_long=wide(amm["cumulativeFundingRateLong"]),
        funding_short=wide(amm["cumulativeFundingRateShort"]),
        funding_ms=int(amm["lastFundingRateTs"]) * 1_000,
    )


def read_spot(data: bytes) -> Spot:
    """A SpotMarket account."""
    told = decode("SpotMarket", data)
    return Spot(
        oracle=key_text(told["oracle"]),
        deposit_interest=wide(told["cumulativeDepositInterest"], signed=False),
        borrow_interest=wide(told["cumulativeBorrowInterest"], signed=False),
        decimals=int(told["decimals"]),
    )


def read_rails(state: bytes) -> Rails:
    """The guard rails of the State account."""
    rails = decode("State", state)["oracleGuardRails"]
    valid = rails["validity"]
    return Rails(
        amm_slots=int(valid["slotsBeforeStaleForAmm"]),
        margin_slots=int(valid["slotsBeforeStaleForMargin"]),
        confidence_max=int(valid["confidenceIntervalMaxSize"]),
        volatile_ratio=int(valid["tooVolatileRatio"]),
        twap_divergence=int(rails["priceDivergence"]["oracleTwap5minPercentDivergence"]),
    )


def market_count(state: bytes) -> int:
    """How many perpetual markets there are, from the State account."""
    return int(decode("State", state)["numberOfMarkets"])


def exchange_status(state: bytes) -> int:
    """The bits of what the exchange has paused, from the State account."""
    return int(decode("State", state)["exchangeStatus"])


def readable(source: str) -> bool:
    """Whether ``read_oracle`` knows a source."""
    return source in _LAZER


def read_oracle(source: str, data: bytes) -> Oracle:
    """An oracle account. DataError where its source is none we read: it must not be guessed at."""
    if not readable(source):
        raise DataError(f"oracle source {source} is not read: only {', '.join(_LAZER)}")
    told = decode("PythLazerOracle", data)
    scale = 10 ** abs(int(told["exponent"]))
    parts = PRICE_PRECISION * _LAZER[source]
    price, confidence = int(told["price"]) * parts // scale, int(told["conf"]) * parts // scale
    if source == "PythLazerStableCoin":
        near = abs(price - PRICE_PRECISION) < min(confidence, _STABLE_REACH)
        price = PRICE_PRECISION if near else price
    return Oracle(price, confidence, int(told["postedSlot"]))


def oracle_fault(oracle: Oracle, market: Perp, rails: Rails, slot: int) -> str | None:
    """Name of the worst thing wrong with an oracle, worst first, by the program's own rules.

    Too far from its own five-minute average, a fill would be of nothing and without an error;
    that is told as PriceBandsBreached.
    """
    if oracle.price <= 0:
        return "OracleNonPositive"
    low, high = sorted((oracle.price, max(market.twap, 1)))
    age = slot - oracle.slot
    if high // low > rails.volatile_ratio:
        return "OracleTooVolatile"
    confidence_max = rails.confidence_max * _CONFIDENCE_OF_TIER.get(market.tier, 1)
    if max(oracle.confidence, 1) * PRICE_PRECISION // oracle.price > confidence_max:
        return "OracleTooUncertain"
    if age > rails.margin_slots:
        return "OracleStaleForMargin"
    if age > (market.stale_slots or rails.amm_slots):
        return "OracleStaleForAMM"
    apart = abs(oracle.price - market.twap_5min) * PRICE_PRECISION
    if apart > rails.twap_divergence * max(market.twap_5min, 1):
        return "PriceBandsBreached"
    return None


def key_text(raw: Any) -> str:
    """A public key of a record, as text."""
    from solders.pubkey import Pubkey

    return str(Pubkey.from_bytes(bytes(raw)))


def text(raw: Any) -> str:
    """A name of a record."""
    return bytes(raw).decode("utf-8", "replace").rstrip("\0 ")
