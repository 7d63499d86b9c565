"""How a report writes numbers, times and names, so that the page and the picture agree.

Every text that comes from data passes ``escape`` before it reaches HTML or a chart.
"""

from datetime import UTC, datetime
from html import escape as escape_html

from core.model import MICROS_PER_UNIT
from risk.gate import Rule

DASH = "–"
MINUS = "−"

RULES = {
    Rule.PRICE_UNKNOWN: "no usable price of the instrument was known",
    Rule.NOT_A_NUMBER: "quantity, limit or equity was not a finite number",
    Rule.MARKET_CLOSED: "the instrument had resolved or closed",
    Rule.NOT_REDUCING: "a reduce-only order would not have shrunk the position",
    Rule.HALTED: "the halt latch was down: nothing new until an operator resumes",
    Rule.REDUCE_ONLY: "the desk was reducing: positions may only shrink",
    Rule.SIZE_ZERO: "the size came out as nothing",
    Rule.STALE_DATA: "the last bar was too old",
    Rule.STALE_QUOTE: "the last quote was too old, or there was none",
    Rule.TICK_OR_LOT: "quantity not in whole lots, or limit not on a tick",
    Rule.PRICE_COLLAR: "the price was too far from the oracle",
    Rule.ORDER_NOTIONAL: "the order was larger than one order may be",
    Rule.ORDER_TOO_SMALL: "the order was smaller than the venue or our limits take",
    Rule.ORDER_RISK: "the order's worst-case loss was beyond its limit",
    Rule.DUPLICATE: "an equal order was sent a moment before",
    Rule.ORDER_RATE: "too many orders in this minute",
    Rule.PENDING_NOTIONAL: "too much was already waiting to be filled",
    Rule.INSTRUMENT_EXPOSURE: "the instrument's notional would pass its limit",
    Rule.STRATEGY_EXPOSURE: "the strategy's notional would pass its limit",
    Rule.CLUSTER_RISK: "instruments that lose together would risk too much",
    Rule.GROSS_EXPOSURE: "gross notional would pass its limit",
    Rule.LEVERAGE: "gross notional would exceed the leverage allowed on equity",
    Rule.MARGIN: "the margin needed would exceed the equity",
    Rule.DAILY_LOSS: "the day's loss had reached its limit",
    Rule.DRAWDOWN: "the drawdown had reached its limit",
    Rule.LOSING_STREAK: "too many losses in a row",
    Rule.COOLDOWN: "too soon after the last exit",
    Rule.VOLUME_SHARE: "too large a share of the last bar's volume",
    Rule.LINK_DOWN: "the feed of this instrument is down: we are blind",
    Rule.CORRELATED_EXPOSURE: "too much would be held in instruments that move together",
}
"""What each rule of the gate means, in the past tense of a report."""


def escape(text: object) -> str:
    """Text made safe for HTML and for the tags a chart understands."""
    return escape_html(str(text), quote=True)


def spaced(name: str) -> str:
    """``stop_loss`` as ``stop loss``."""
    return name.replace("_", " ")


def rule_text(name: str) -> str:
    """What a rule means, by its lower-case name; a rule without a text stands for itself."""
    known = {rule.name.lower(): text for rule, text in RULES.items()}
    return known.get(name, spaced(name))


def signed(text: str) -> str:
    """The typographic minus, as wide as a plus; nothing has no sign."""
    nothing = not any(digit in text for digit in "123456789")
    return text.lstrip("+-") if nothing else text.replace("-", MINUS)


def amount(value: float, *, plus: bool = False) -> str:
    """Quote with two decimals; fewer once they say nothing."""
    decimals = 0 if abs(value) >= 1e6 else 2
    return signed(f"{value:{'+' if plus else ''},.{decimals}f}")


def money(micros: int, *, plus: bool = False) -> str:
    """Micros as quote."""
    return amount(micros / MICROS_PER_UNIT, plus=plus)


def percent(fraction: float | None, decimals: int = 1, *, plus: bool = False) -> str:
    """A fraction as a percentage, a dash for None."""
    if fraction is None:
        return DASH
    return signed(f"{fraction:{'+' if plus else ''}.{decimals}%}")


def ratio(value: float | None) -> str:
    """Two decimals, a dash for None."""
    return DASH if value is None else signed(f"{value:.2f}")


def plain(value: object) -> str:
    """A parameter as people write it: ``0.05``, ``120,000``, ``60``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DASH if value in (None, "") else str(value)
    return signed(f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}")


def instant(ts_ms: int) -> str:
    """``2025-05-04 15:33`` in UTC, seconds only where there are some."""
    moment = datetime.fromtimestamp(ts_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S" if moment.second else "%Y-%m-%d %H:%M")


def counted(count: int, noun: str) -> str:
    """``1 day``, ``2 days``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def lasted(duration_ms: float) -> str:
    """A duration in its two largest units: ``3 d 4 h``."""
    minutes = round(duration_ms / 60_000)
    days, hours = minutes // 1440, minutes // 60 % 24
    parts = [(days, "d"), (hours, "h"), (minutes % 60, "min")]
    told = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(told[:2]) or "0 min"
