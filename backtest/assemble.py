"""Puts an engine together from a setup: the one place where the gate, the venue and books meet.

Replay and the live daemon both build their engine here, so they cannot differ in wiring.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.compiled import address_of
from core.engine import Book, Engine, Terms
from core.errors import ConfigError, UnknownName
from core.instrument import Instrument
from core.model import (
    ACCOUNT,
    BOOK,
    DESK,
    EXECUTION,
    INSTRUMENT,
    INTENT,
    LEGS,
    MARKET,
    ORDER,
    POSITION,
)
from core.state import Ports
from core.strategy import Use
from execution.planner import plan
from execution.simulated import match, protect
from risk.gate import review
from risk.halt import watch
from risk.limits import LIMITS, SIZING, Limits, Sizing, SizingRule, limits_records, sizing_records
from risk.sizing import size
from strategies.features import atr, realized_vol
from strategies.regimes import REGIME

VOLATILITY_WINDOW = 60
ATR_WINDOW = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSetup:
    """A book with the limits and the sizing it trades under."""

    book: Book
    sizing: Sizing = field(default_factory=Sizing)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything that decides a run besides its events: what the config hash covers."""

    instruments: tuple[Instrument, ...]
    books: tuple[BookSetup, ...]
    equity: float = 10_000.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        names = [instrument.name for instrument in self.instruments]
        if len(set(names)) != len(names):
            raise ConfigError(f"an instrument is named twice: {', '.join(names)}")
        labels = [setup.book.name for setup in self.books]
        if len(set(labels)) != len(labels):
            raise ConfigError(f"a book is named twice: {', '.join(labels)}")
        if not self.books:
            raise ConfigError("nothing to run: name at least one strategy")
        if self.equity <= 0:
            raise ConfigError(f"equity must be above zero, got {self.equity}")
        for setup in self.books:
            if setup.book.instrument not in names:
                raise UnknownName("instrument", setup.book.instrument, names)
        if len(self._correlation_spans) > 1:
            raise ConfigError(
                "limit correlation_bars differs between books: correlation is estimated once"
            )

    @property
    def _correlation_spans(self) -> set[float]:
        limits = [setup.limits for setup in self.books]
        return {one.correlation_bars for one in limits if one.correlated_notional_max > 0}

    @property
    def correlation_bars(self) -> int:
        """The span over which correlation is estimated, 0 where no book is limited by it."""
        return int(max(self._correlation_spans, default=0))


def ports() -> Ports:
    """The compiled functions the step is given."""
    return Ports(
        plan=address_of(plan, "RRRR:f", POSITION, BOOK, INSTRUMENT, LEGS),
        size=address_of(size, "RRRR:f", INTENT, INSTRUMENT, DESK, SIZING),
        review=address_of(review, "RRRR:i", INTENT, DESK, LIMITS, INSTRUMENT),
        watch=address_of(watch, "RR:i", ACCOUNT, LIMITS),
        match=address_of(match, "RRRR:f", ORDER, MARKET, INSTRUMENT, EXECUTION),
        protect=address_of(protect, "RRRR:f", POSITION, MARKET, INSTRUMENT, EXECUTION),
    )


def sizing_inputs(setup: BookSetup) -> tuple[Use | None, Use | None]:
    """The volatility and the ATR that a book's sizing rule reads, if any."""
    rule = setup.sizing.rule
    volatility = realized_vol(window=VOLATILITY_WINDOW) if rule == SizingRule.VOLATILITY else None
    return volatility, atr(window=ATR_WINDOW) if rule == SizingRule.ATR_RISK else None


def _threshold(limits: Limits) -> float | None:
    return limits.correlation_above if limits.correlated_notional_max > 0 else None


def assemble(
    setup: Setup, carried: Mapping[str, frozenset[str]], *, tell_all: bool = False
) -> Engine:
    """An engine for this setup; ``carried`` names the market fields each instrument's data has.

    ``tell_all`` writes a row for every decision, not only for those that differ from the last.
    Raises MissingInput when a strategy needs a field that is not carried.
    """
    inputs = [sizing_inputs(book) for book in setup.books]
    limits = [book.limits for book in setup.books]
    terms = Terms(
        ports=ports(),
        limits=limits_records([*limits, setup.limits]),
        sizing=sizing_records([(book.sizing, book.limits) for book in setup.books]),
        regime=REGIME(),
        volatility=[volatility for volatility, _ in inputs],
        atr=[true_range for _, true_range in inputs],
        flatten=[setup.limits.flatten_on_halt or one.flatten_on_halt for one in limits],
        correlation=[_threshold(one) for one in limits],
        correlation_bars=setup.correlation_bars,
    )
    return Engine(
        setup.instruments,
        [book.book for book in setup.books],
        terms,
        equity=setup.equity,
        carried=carried,
        tell_all=tell_all,
    )
