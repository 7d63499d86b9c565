"""Histories: the recorded events of one instrument, and the one block a replay runs over.

Whatever the market, a file ends here as the same thing, so replay, statistics and reports know
nothing of file formats. Everything is ordered by ``ts_known``: that rule removes look-ahead.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.errors import DataError
from core.events import make_events
from core.model import EVENT, PAYLOAD, Kind, Records

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]

_CARRIERS = (Kind.BAR, Kind.QUOTE, Kind.FORECAST)
_WORDS = EVENT.itemsize // 8
_GAPS_SHOWN = 5


@dataclass(frozen=True)
class Gap:
    """A run of missing bars: the open time of the first one, and how many."""

    start_ms: int
    bars: int


@dataclass(frozen=True)
class Quality:
    """What reading a file met. ``rows_read == rows_used + duplicates + sum(skipped.values())``.

    ``blanked`` counts refused cells of optional columns; their rows stay. ``unsorted`` counts rows
    earlier than the row before them. ``first_ms`` is the first bar's open, ``last_ms`` the last
    bar's close. ``gap_largest`` is in bars; ``gaps_first`` shows the first few.
    """

    rows_read: int = 0
    rows_used: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    blanked: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0
    unsorted: int = 0
    gaps: int = 0
    bars_missing: int = 0
    gap_largest: int = 0
    gaps_first: tuple[Gap, ...] = ()
    first_ms: int = 0
    last_ms: int = 0
    notes: tuple[str, ...] = ()

    def note(self, *texts: str) -> "Quality":
        """The same with more remarks for the reader."""
        return replace(self, notes=(*self.notes, *texts))

    def spanning(self, opens: Times, interval_ms: int) -> "Quality":
        """The same with span and gaps measured over sorted bar open times."""
        if len(opens) == 0:
            return self
        missing = np.diff(opens) // interval_ms - 1
        at = np.flatnonzero(missing > 0)
        shown = [Gap(int(opens[i]) + interval_ms, int(missing[i])) for i in at[:_GAPS_SHOWN]]
        return replace(
            self,
            gaps=len(at),
            bars_missing=int(missing[at].sum()),
            gap_largest=int(missing[at].max(initial=0)),
            gaps_first=tuple(shown),
            first_ms=int(opens[0]),
            last_ms=int(opens[-1]) + interval_ms,
        )


@dataclass(frozen=True)
class Contract:
    """What the data say of a binary: when it is due to resolve (0: not told), and the event whose
    other contracts it shares its fate with."""

    expires_ms: int = 0
    cluster: str = ""


@dataclass(frozen=True, eq=False)
class History:
    """Recorded events of one instrument, read-only, sorted by ``ts_known`` then kind.

    ``fields`` names the ``MARKET_FIELDS`` the data really carries: a column of NaN is not carried.
    ``contract`` is None for a perpetual.
    """

    events: Records
    interval_ms: int
    fields: frozenset[str]
    quality: Quality
    contract: Contract | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the event bytes, hex."""
        return hashlib.sha256(_words(self.events).data).hexdigest()

    @property
    def bars(self) -> Records:
        """The BAR events, a copy of shape (bars,)."""
        return select(self.events, self.events["kind"] == Kind.BAR)

    @property
    def bar_count(self) -> int:
        """How many BAR events there are."""
        return int(np.count_nonzero(self.events["kind"] == Kind.BAR))


def make_bars(opens: Times, interval_ms: int, **prices: ArrayLike) -> Records:
    """BAR events from open times (ms): known one interval later, at the close."""
    return make_events(Kind.BAR, opens + interval_ms, opens, **prices)


def make_funding(
    ts: Times, rate: Floats, hours: Floats | float, settle_price: ArrayLike
) -> Records:
    """Settlements of ``rate`` (fraction of notional longs pay) and the hourly rate they reveal.

    The rate becomes known with the settlement, so its QUOTE carries the same stamp.
    """
    settled = make_events(
        Kind.FUNDING, ts, rate=rate, interval_hours=hours, settle_price=settle_price
    )
    return stack([settled, make_events(Kind.QUOTE, ts, funding_rate=rate / hours)])


def stack(parts: Iterable[Records]) -> Records:
    """One writable block of all parts, in the order given."""
    raw = [_words(part) for part in parts]
    return _events(np.concatenate(raw) if raw else np.empty((0, _WORDS), np.int64))


def select(events: Records, which: Flags | Places) -> Records:
    """Events by mask or index. Plain indexing of EVENT copies its 40 fields one by one."""
    return _events(_words(events)[which])


def in_order(events: Records) -> Records:
    """Events by (ts_known, kind, instrument), stable; events already in order are handed back."""
    keys = (events["instrument"], events["kind"], events["ts_known"])
    return events if _is_sorted(keys) else select(events, np.lexsort(keys))


def assemble(
    parts: Sequence[Records], interval_ms: int, quality: Quality, contract: Contract | None = None
) -> History:
    """A History of all parts; the time left of a contract is known where its end is."""
    # one part needs no copy: a year of minutes is 46 MB
    events = in_order(parts[0] if len(parts) == 1 else stack(parts))
    events.setflags(write=False)
    due = {"hours_left"} if contract is not None and contract.expires_ms else set()
    return History(events, interval_ms, _fields(events) | due, quality, contract)


def merge(histories: Sequence[History]) -> Records:
    """One block of all events, ``instrument`` being the place in ``histories``.

    Ordered by (ts_known, kind, instrument), shape (events,). The block of one history is its own.
    """
    if len(histories) == 1:
        return histories[0].events
    events = stack(history.events for history in histories)
    sizes = [len(history.events) for history in histories]
    events["instrument"] = np.repeat(np.arange(len(sizes)), sizes)
    return in_order(events)


def crop(history: History, start_ms: int | None = None, end_ms: int | None = None) -> History:
    """The events of ``(start_ms, end_ms]``: bars that open at or after start and close by end.

    Crops that share an edge share no event. DataError when no bar is left.
    """
    first, last = history.quality.first_ms, history.quality.last_ms
    start, end = first if start_ms is None else start_ms, last if end_ms is None else end_ms
    events, known = history.events, history.events["ts_known"]
    inside = (known > start) & (known <= end)
    bar = events["kind"] == Kind.BAR
    inside &= ~bar | (events["ts_event"] >= start)
    if not (inside & bar).any():
        raise DataError(
            f"no bar between {utc(start)} and {utc(end)}: the data has {utc(first)} to {utc(last)}"
        )
    opens = events["ts_event"][inside & bar]
    quality = history.quality.spanning(opens, history.interval_ms)
    return assemble([select(events, inside)], history.interval_ms, quality, history.contract)


def utc(ts_ms: int) -> str:
    """A time as people read it: ``2025-05-04T15:33:00Z``."""
    text = datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(timespec="auto")
    return text.replace("+00:00", "Z")


def _words(events: Records) -> NDArray[np.int64]:
    return np.ascontiguousarray(events).view(np.int64).reshape(-1, _WORDS)


def _events(words: NDArray[np.int64]) -> Records:
    return words.reshape(-1).view(EVENT)


def _is_sorted(keys: Sequence[NDArray[Any]]) -> bool:
    """Whether rows ascend by the last key, then the one before it, and so on."""
    tied = np.ones(max(len(keys[0]) - 1, 0), np.bool_)
    for key in reversed(keys):
        before, after = key[:-1], key[1:]
        if (tied & (after < before)).any():
            return False
        tied &= after == before
    return True


def _fields(events: Records) -> frozenset[str]:
    kinds = events["kind"]
    return frozenset(
        name
        for kind in _CARRIERS
        if (of_kind := kinds == kind).any()
        for name in PAYLOAD[kind]
        if not np.isnan(events[name][of_kind]).all()
    )
