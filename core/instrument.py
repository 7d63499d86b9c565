"""What is traded, and on what terms: a perpetual and an event contract differ only in kind."""

from dataclasses import dataclass

from core.errors import ConfigError
from core.model import FeeModel, InstrumentKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """Terms of one instrument. Costs are on by default; zero them only on purpose.

    ``tick`` and ``lot`` are the steps of price and size. ``fee_rate`` and ``fee_rate_maker`` are
    fractions of the notional, or the coefficient of ``C * p * (1 - p)`` under the quadratic model.
    A taker pays ``half_spread_bps`` of the price plus ``half_spread`` in price units, then
    ``slippage_bps``, then ``impact`` bar ranges times the square root of its share of the volume.
    ``participation`` caps a fill at that share of the bar's volume. ``leverage`` sets the isolated
    margin of a perpetual, ``maintenance`` the ratio at which it is liquidated. ``cluster`` names
    the event whose instruments lose together, ``expires_ts`` (unix ms, 0: never) when it is due to
    resolve. An ``external`` instrument's orders go to an outside venue, which answers with FILL
    events; all others fill in the simulated venue.
    """

    name: str
    kind: InstrumentKind = InstrumentKind.PERP
    tick: float = 1e-6
    lot: float = 1e-6
    notional_min: float = 0.0
    fee_model: FeeModel = FeeModel.PROPORTIONAL
    fee_rate: float = 0.0005
    fee_rate_maker: float = 0.0002
    half_spread_bps: float = 1.0
    half_spread: float = 0.0
    slippage_bps: float = 2.0
    impact: float = 0.0
    participation: float = 0.1
    leverage: float = 5.0
    maintenance: float = 0.03
    liquidation_fee_rate: float = 0.01
    cluster: str = ""
    expires_ts: int = 0
    external: bool = False

    def __post_init__(self) -> None:
        if self.tick <= 0 or self.lot <= 0:
            raise ConfigError(f"instrument {self.name}: tick and lot must be above zero")
        if not 0 < self.participation <= 1:
            raise ConfigError(f"instrument {self.name}: participation must lie in (0, 1]")
        if self.leverage < 1 or not 0 <= self.maintenance < 1 / self.leverage:
            raise ConfigError(
                f"instrument {self.name}: leverage must be at least 1 and maintenance below "
                f"1 / leverage, got {self.leverage} and {self.maintenance}"
            )
        costs = (self.fee_rate, self.half_spread_bps, self.half_spread, self.slippage_bps)
        if min(*costs, self.impact) < 0:
            raise ConfigError(f"instrument {self.name}: a cost is negative")

    @property
    def costs_on(self) -> bool:
        """Whether a taker pays a fee and something for crossing the spread."""
        return self.fee_rate > 0 and (self.half_spread_bps + self.half_spread) > 0


def binary(name: str, *, cluster: str = "") -> Instrument:
    """A Kalshi-like event contract: cent ticks, whole contracts, quadratic fee, one cent spread."""
    return Instrument(
        name=name,
        kind=InstrumentKind.BINARY,
        tick=0.01,
        lot=1.0,
        fee_model=FeeModel.QUADRATIC,
        fee_rate=0.07,
        fee_rate_maker=0.0,
        half_spread_bps=0.0,
        half_spread=0.01,
        slippage_bps=0.0,
        leverage=1.0,
        maintenance=0.0,
        cluster=cluster or name,
    )
