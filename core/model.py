"""The nouns as NumPy record types: one memory layout, read by name in Python and compiled code.

Times are unix milliseconds, UTC. Money is an integer number of *micros* (millionths of the quote
currency), so sums are exact and do not depend on their order. Prices, quantities and rates are
floats; quantities are signed (positive is long). A missing float is NaN.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

type_float, type_int, type_code = "f8", "i8", "i4"

Records = NDArray[Any]
"""A structured array of one of the types below."""

MICROS_PER_UNIT = 1_000_000


def joined(parts: Sequence[Records], dtype: np.dtype[Any]) -> Records:
    """One new array of all rows, copied as bytes: NumPy copies records field by field, which takes
    twelve times as long."""
    raw = [np.ascontiguousarray(part).view("u1") for part in parts if len(part)]
    return np.concatenate(raw).view(dtype) if raw else np.empty(0, dtype)


class Kind(IntEnum):
    """Kinds of event. At one instant they are applied in this order: what is owed, then what is
    known, then what ends, then the bar a strategy acts on."""

    FUNDING = 1
    QUOTE = 2
    FORECAST = 3
    RESOLUTION = 4
    LINK = 5
    COMMAND = 6
    FILL = 7
    BAR = 8
    OPINION = 9


class Result(IntEnum):
    """Kinds of outcome."""

    DECISION = 1
    APPROVED = 2
    REFUSED = 3
    FILL = 4
    FUNDING = 5
    TRADE = 6
    CANCELLED = 7
    MODE = 8
    QUESTION = 10
    OPINION = 11


class Verdict(IntEnum):
    """What became of a question. Only AGREED lets an entry pass; HEARD is an answer to a question
    of the schedule. The rest is no trade, each for its own reason."""

    AGREED = 0
    HEARD = 1
    DISAGREED = 2
    UNSURE = 3
    LATE = 4
    WITHDRAWN = 5
    MALFORMED = 6
    UNREACHABLE = 7
    OVER_BUDGET = 8


class InstrumentKind(IntEnum):
    """A perpetual marks to a price; a binary settles at 1 or 0 and its price is a probability."""

    PERP = 0
    BINARY = 1


class FeeModel(IntEnum):
    """How a venue charges: a share of the notional, or Kalshi's ``rate * C * p * (1 - p)`` rounded
    up to the cent."""

    PROPORTIONAL = 0
    QUADRATIC = 1


class Mode(IntEnum):
    """The halt latch. REDUCING and HALTED both let positions shrink only; HALTED also cancels
    working orders, closes books that are to be closed, and only an operator's command lifts it."""

    ACTIVE = 0
    REDUCING = 1
    HALTED = 2


class Command(IntEnum):
    """What an operator may say; every command is an event, hence journaled and replayable. FLATTEN
    is a HALT that also closes every book."""

    HALT = 1
    REDUCE_ONLY = 2
    RESUME = 3
    CLOSE = 4
    FLATTEN = 5


class OrderStyle(IntEnum):
    """IOC takes what is there up to a collar price; LIMIT rests at its price until it expires."""

    IOC = 0
    LIMIT = 1


class OrderStatus(IntEnum):
    """Life of an order inside the step; FREE marks an unused row."""

    FREE = 0
    WORKING = 1
    SENT = 2


class ExitReason(IntEnum):
    """Why a fill happened."""

    SIGNAL = 0
    TAKE_PROFIT = 1
    STOP_LOSS = 2
    TRAILING_STOP = 3
    LIQUIDATION = 4
    SETTLEMENT = 5
    COMMAND = 6
    HALT = 7


_BAR = ("open", "high", "low", "close", "volume")
_PRICES, _BOOK = ("mark", "oracle"), ("bid", "ask", "bid_depth", "ask_depth")
_QUOTE = (*_PRICES, *_BOOK, "open_interest", "funding_rate")

MARKET_FIELDS = (*_BAR, *_QUOTE, "probability", "hours_left", "opinion")
"""What is known of an instrument now: price fields in quote per unit, volume and depths in units,
``funding_rate`` as fraction per hour, ``probability`` of YES, ``hours_left`` to resolution,
``opinion`` of an advisor as side times confidence, in [-1, 1]."""

PAYLOAD: Mapping[Kind, tuple[str, ...]] = {
    # `rate` is the fraction of notional longs pay at this stamp; `settle_price` NaN: last mark
    Kind.FUNDING: ("rate", "interval_hours", "settle_price"),
    Kind.QUOTE: _QUOTE,
    Kind.FORECAST: ("probability",),
    Kind.RESOLUTION: ("value",),
    # 1: the feed of this instrument is live, 0: we are blind
    Kind.LINK: ("up",),
    Kind.COMMAND: ("command", "book"),
    # `code`: why the venue ended an order short, 0 for none
    Kind.FILL: ("order", "fill_quantity", "fill_price", "fill_fee", "final", "code"),
    Kind.BAR: _BAR,
    # `verdict` AGREED for an answer that can be read, whatever it says; `side` in [-1, 1]: short or
    # long, 0 neither; `share` in [0, 1]: how much of the size it allows; `chance` of YES
    Kind.OPINION: ("question", "verdict", "side", "certainty", "share", "chance"),
}
"""What each kind of event carries, all floats."""

_HEADER = (
    ("ts_known", type_int),
    ("ts_event", type_int),
    ("kind", type_code),
    ("instrument", type_code),
)
HEADER_BYTES = sum(np.dtype(kind).itemsize for _, kind in _HEADER)


def _event_type() -> np.dtype[Any]:
    """A record whose payloads overlap, as in a C union."""
    names, formats = (list(column) for column in zip(*_HEADER, strict=True))
    offsets = np.cumsum([0, *(np.dtype(kind).itemsize for kind in formats)][:-1]).tolist()
    for fields in PAYLOAD.values():
        names += fields
        formats += [type_float] * len(fields)
        offsets += [HEADER_BYTES + 8 * place for place in range(len(fields))]
    size = HEADER_BYTES + 8 * max(len(fields) for fields in PAYLOAD.values())
    layout: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    return np.dtype(layout)


EVENT = _event_type()
"""One dated fact. ``ts_event``: when it happened (a bar: its open time). ``ts_known``: the first
moment we could have acted on it (a bar: its close time). Which payload holds follows ``kind``."""

QUOTED, VOLUME, ORACLE, PROBABILITY, HOURS_LEFT, OPINION = (
    MARKET_FIELDS.index(name)
    for name in ("mark", "volume", "oracle", "probability", "hours_left", "opinion")
)

MARKET = np.dtype([(name, type_float) for name in MARKET_FIELDS])

INSTRUMENT = np.dtype(
    [
        ("kind", type_int),
        ("fee_model", type_int),
        ("external", type_int),
        ("cluster", type_int),
        ("open", type_int),
        ("linked", type_int),
        ("expires_ts", type_int),
        ("bar_ts", type_int),
        ("quote_ts", type_int),
        ("tick", type_float),
        ("lot", type_float),
        ("notional_min", type_float),
        ("fee_rate", type_float),
        ("fee_rate_maker", type_float),
        ("half_spread_bps", type_float),
        ("half_spread", type_float),
        ("slippage_bps", type_float),
        ("impact", type_float),
        ("participation", type_float),
        ("leverage", type_float),
        ("maintenance", type_float),
        ("liquidation_fee_rate", type_float),
        ("price", type_float),
        ("regime", type_float),
        # where its rows stand in the engine's arrays
        ("values_at", type_int),
        ("nodes_at", type_int),
        ("nodes_end", type_int),
        ("books_at", type_int),
        ("books_end", type_int),
    ]
)
"""Terms of an instrument, and the little of its state that is not in MARKET."""

POSITION = np.dtype(
    [
        # what a strategy sees: `core.strategy.VISIBLE`
        ("quantity", type_float),
        ("entry", type_float),
        ("target", type_float),
        ("gain", type_float),
        ("bars_held", type_float),
        ("best", type_float),
        # what it aims at, and what is under way
        ("wanted", type_float),
        ("spent", type_float),
        ("pending", type_float),
        ("working", type_int),
        # protective exits, fractions of the entry, 0 for none
        ("take_profit", type_float),
        ("stop_loss", type_float),
        ("trailing_stop", type_float),
        # while a bar stays between them the venue need not be asked
        ("guard_low", type_float),
        ("guard_high", type_float),
        # what the gate asks of the past
        ("order_ts", type_int),
        ("order_quantity", type_float),
        ("exit_ts", type_int),
        ("losses_in_row", type_int),
        # money
        ("per_entry", type_float),
        ("cost_micros", type_int),
        ("realised_micros", type_int),
        ("fees_micros", type_int),
        ("funding_micros", type_int),
        ("unrealised_micros", type_int),
        ("notional_micros", type_int),
        ("spread_micros", type_int),
        ("slippage_micros", type_int),
        # the open trade
        ("opened_ts", type_int),
        ("trade_quantity", type_float),
        ("trade_entry", type_float),
        ("trade_net_micros", type_int),
        ("trade_fees_micros", type_int),
        ("trade_regime", type_int),
        # the last refusal told: (rule, target), rule 0 for none
        ("refused", type_int),
        ("refused_target", type_float),
        # the last decision told, and a running digest of all of them
        ("decision", type_int),
        ("decided", type_float),
        ("reason", type_int),
        ("digest", "u8"),
        # the signed share of size an advisor agreed to, the questions open, and when they were put
        ("agreed", type_float),
        ("asked", type_int),
        ("asked_target", type_float),
        ("asked_confidence", type_float),
        ("asked_ts", type_int),
        ("consulted", type_int),
        ("consulted_ts", type_int),
        # closed trades as returns on their entry notional, for Kelly
        ("trades", type_int),
        ("return_mean", type_float),
        ("return_m2", type_float),
    ]
)
"""A book: the virtual position of one strategy in one instrument, and its accounts."""

BOOK = np.dtype(
    [
        ("instrument", type_int),
        ("strategy", type_int),
        ("decide", type_int),
        ("plain", type_int),
        ("inputs_at", type_int),
        ("inputs_end", type_int),
        ("features_at", type_int),
        ("params_at", type_int),
        ("volatility_at", type_int),
        ("atr_at", type_int),
        ("style", type_int),
        ("ttl_bars", type_int),
        ("offset", type_float),
        ("take_profit", type_float),
        ("stop_loss", type_float),
        ("trailing_stop", type_float),
        # a halt closes it; instruments correlated above this count as one, NaN: it does not matter
        ("flatten", type_int),
        ("correlation", type_float),
        # see `core.engine.Advice`
        ("consent", type_int),
        ("consult_ms", type_int),
        ("answer_ms_max", type_int),
        ("confidence_min", type_float),
    ]
)
"""How a book is wired: indices into the engine's arrays and the settings of its orders."""

NODE = np.dtype(
    [
        ("update", type_int),
        ("source", type_int),
        ("answer", type_int),
        ("memory_at", type_int),
        ("params_at", type_int),
    ]
)
"""One incremental accumulator: its update, where it reads, where it answers, its memory."""

ORDER = np.dtype(
    [
        ("id", type_int),
        ("status", type_int),
        ("book", type_int),
        ("instrument", type_int),
        ("style", type_int),
        ("reduce_only", type_int),
        ("born_ts", type_int),
        ("bars_left", type_int),
        ("decision", type_int),
        ("exit", type_int),
        ("quantity", type_float),
        ("limit", type_float),
        ("reference", type_float),
    ]
)
"""A working order; ``quantity`` is what is left, ``reference`` the price it was decided at."""

INTENT = np.dtype(
    [
        ("reduce_only", type_int),
        ("target", type_float),
        ("confidence", type_float),
        ("quantity", type_float),
        ("price", type_float),
        ("limit", type_float),
        ("volatility", type_float),
        ("atr", type_float),
        ("probability", type_float),
    ]
)
"""What a book wants to do next; ``volatility`` as fraction per bar, ``atr`` in price."""

LEGS = np.dtype(
    [
        ("wanted", type_float),
        ("reduce", type_float),
        ("reduce_limit", type_float),
        ("increase", type_float),
        ("increase_limit", type_float),
    ]
)
"""The planner's working record: the quantity wanted, and the two orders that lead to it."""

EXECUTION = np.dtype(
    [
        ("quantity", type_float),
        ("price", type_float),
        ("exit", type_int),
        ("fee_micros", type_int),
        ("spread_micros", type_int),
        ("slippage_micros", type_int),
    ]
)
"""The simulated venue's answer: one fill and what it cost."""

DESK = np.dtype(
    [
        ("mode", type_int),
        ("instrument_open", type_int),
        ("linked", type_int),
        ("losses_in_row", type_int),
        ("orders_minute", type_int),
        ("trades", type_int),
        ("since_exit_ms", type_float),
        ("since_repeat_ms", type_float),
        ("data_age_ms", type_float),
        ("quote_age_ms", type_float),
        ("equity", type_float),
        ("day_return", type_float),
        ("drawdown", type_float),
        ("oracle", type_float),
        ("bar_volume", type_float),
        ("position", type_float),
        ("order_notional", type_float),
        ("order_risk", type_float),
        ("instrument_notional", type_float),
        ("strategy_notional", type_float),
        ("gross_notional", type_float),
        ("pending_notional", type_float),
        ("cluster_risk", type_float),
        ("correlated_notional", type_float),
        ("margin", type_float),
        ("return_mean", type_float),
        ("return_variance", type_float),
    ]
)
"""The desk as the gate sees it, in quote, with this intent and all open orders counted as filled.
``order_risk`` and ``cluster_risk`` are worst-case losses: stop or margin of a perpetual, stake of
a binary."""

ACCOUNT = np.dtype(
    [
        ("now", type_int),
        ("seq", type_int),
        ("day_end_ts", type_int),
        ("mode", type_int),
        ("mode_rule", type_int),
        ("mode_end_ts", type_int),
        # while HALTED every book is closed, by an operator's word
        ("flatten", type_int),
        ("orders", type_int),
        ("working", type_int),
        # one past the last row of ORDER in use
        ("orders_end", type_int),
        ("decisions", type_int),
        ("questions", type_int),
        ("minute", type_int),
        ("orders_minute", type_int),
        ("failed", type_int),
        ("start_micros", type_int),
        ("cash_micros", type_int),
        ("realised_micros", type_int),
        ("unrealised_micros", type_int),
        ("fees_micros", type_int),
        ("funding_micros", type_int),
        ("notional_micros", type_int),
        ("day_start_micros", type_int),
        ("peak_micros", type_int),
        # below it the halt latch must look
        ("alarm_micros", type_int),
    ]
)
"""The one account all books share; equity is start + realised + unrealised - fees - funding."""

OUTCOME = np.dtype(
    [
        ("seq", type_int),
        ("ts", type_int),
        ("kind", type_code),
        ("book", type_code),
        ("reason", type_code),
        ("rule", type_code),
        ("regime", type_code),
        ("exit", type_code),
        ("order", type_int),
        ("decision", type_int),
        ("target", type_float),
        ("confidence", type_float),
        ("quantity", type_float),
        ("price", type_float),
        ("limit", type_float),
        ("position", type_float),
        ("entry", type_float),
        ("opened_ts", type_int),
        ("amount_micros", type_int),
        ("fee_micros", type_int),
        ("spread_micros", type_int),
        ("slippage_micros", type_int),
        ("equity_micros", type_int),
    ]
)
"""One thing the step did. ``amount_micros``: what a FILL realised, a FUNDING paid, a TRADE earned
net of its fees and funding. ``order`` and ``decision`` lead from a fill back to its signal; of a
QUESTION and an OPINION ``order`` is the question's number, and ``rule`` the Verdict."""

TRACK = np.dtype([("equity_micros", type_int), ("notional_micros", type_int), ("regime", type_int)])
"""Kept for every event: equity, gross exposure, and the regime of the event's instrument."""
