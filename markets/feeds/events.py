"""What is known of several instruments, as events of the loop.

A row leads with the instrument's place in the feed; a quote or a settlement then with the time (ms)
at which it is told.
"""

from collections.abc import Sequence

import numpy as np

from core.events import make_events
from core.model import Kind, Records
from markets.feeds.closing import Candle
from markets.feeds.funding import Settlement
from markets.feeds.quotes import Quote
from markets.history import make_bars, make_funding


def bar_events(bars: Sequence[tuple[int, Candle]], interval_ms: int) -> Records:
    """Closed bars, known at their close."""
    opens = np.array([bar.open_ms for _, bar in bars], np.int64)
    names = ("open", "high", "low", "close", "volume")
    columns = {name: [getattr(bar, name) for _, bar in bars] for name in names}
    events = make_bars(opens, interval_ms, **columns)
    events["instrument"] = [at for at, _ in bars]
    return events


def quote_events(quotes: Sequence[tuple[int, int, Quote]]) -> Records:
    """Quotes, known at the close they were the last before."""
    columns = {name: [getattr(quote, name) for _, _, quote in quotes] for name in Quote._fields}
    told = columns.pop("told_ms")
    events = make_events(Kind.QUOTE, [close_ms for _, close_ms, _ in quotes], told, **columns)
    events["instrument"] = [at for at, _, _ in quotes]
    return events


def funding_events(settled: Sequence[tuple[int, int, Settlement]]) -> Records:
    """Settlements and the rates they reveal, dated by the venue's own stamp."""
    known = np.array([known_ms for _, known_ms, _ in settled], np.int64)
    rates = np.array([row.rate for _, _, row in settled], float)
    prices = np.array([row.price for _, _, row in settled], float)
    events = make_funding(known, rates, 1.0, prices)
    events["instrument"] = np.tile([at for at, _, _ in settled], 2)
    events["ts_event"] = np.tile([row.time_ms for _, _, row in settled], 2)
    return events
