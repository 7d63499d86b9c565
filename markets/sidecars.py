"""Sidecars: funding and mark prices that freqtrade keeps in files beside the candles.

A perpetual without its funding is another instrument, so ``read_market`` joins what lies beside a
candle file and says so in the quality notes. Stamps are kept as they are, a millisecond late too:
that is when the fact was known.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import DataError
from core.events import make_events
from core.model import Kind, Records
from markets.candles import parse_candles, read_candles
from markets.history import Floats, History, Times, assemble, make_funding, select
from markets.tables import NO_TIME, read_table

_HOUR_MS = 3_600_000
_CANDLES = re.compile(r"(?P<market>.+)-[0-9]+[a-z]+-futures(?P<suffix>\.[a-z.]+)")
_RATE_MAX = 1.0
_SETTLE_LATE_MS_MAX = 60_000


@dataclass(frozen=True)
class Sidecar:
    """Events of one sibling file, and a line for the quality notes."""

    events: Records
    note: str


def find_sidecars(path: str | Path) -> tuple[Path | None, Path | None]:
    """Funding and mark files beside ``X-1m-futures.feather``; the longest interval wins."""
    path = Path(path)
    found = _CANDLES.fullmatch(path.name)
    if found is None:
        return None, None
    funding, mark = (_sibling(path, found, part) for part in ("funding_rate", "mark"))
    return funding, mark


def read_market(
    path: str | Path, *, interval: int | str | None = None, sidecars: bool = True
) -> History:
    """As ``read_candles``, with the funding and mark files beside it unless ``sidecars=False``."""
    history = read_candles(path, interval=interval)
    funding, mark = find_sidecars(path) if sidecars else (None, None)
    marks = read_marks(mark) if mark else None
    parts = [marks] if marks else []
    if funding:
        parts.insert(0, read_funding(funding, marks))
    return join(history, parts) if parts else history


def read_funding(path: str | Path, marks: Sidecar | None = None) -> Sidecar:
    """FUNDING and QUOTE events of ``*-8h-funding_rate`` files: the rate stands in ``open``.

    The rate is a fraction per settlement; the hours between settlements are the most common step.
    ``settle_price`` is the mark that closed within the minute before the stamp, else NaN. DataError
    when no row is usable.
    """
    table = read_table(Path(path))
    table.require(("date", "open"), "a funding file")
    stamps, _ = table.times("date")
    rates, _ = table.numbers("open")
    good = (stamps != NO_TIME) & (np.abs(rates) < _RATE_MAX)
    if not good.any():
        raise DataError(f"{path}: no usable funding rate in column 'open'")
    stamps, at = np.unique(stamps[good], return_index=True)
    hours = _settlement_hours(stamps)
    events = make_funding(stamps, rates[good][at], hours, _settle_prices(stamps, marks))
    dropped = table.rows + table.malformed - len(stamps)
    note = f"funding every {hours:g} h from {Path(path).name}"
    return Sidecar(events, note + (f", {dropped} rows skipped" if dropped else ""))


def read_marks(path: str | Path) -> Sidecar:
    """QUOTE events of mark candles: a mark is known at its candle's close, not before."""
    history = parse_candles(read_table(Path(path)))
    bars = history.bars
    events = make_events(Kind.QUOTE, bars["ts_known"], mark=bars["close"])
    dropped = sum(history.quality.skipped.values()) + history.quality.duplicates
    note = f"mark from {Path(path).name}"
    return Sidecar(events, note + (f", {dropped} rows skipped" if dropped else ""))


def join(history: History, sidecars: Sequence[Sidecar]) -> History:
    """The history with the sidecars' events of its own span, and a note for each."""
    quality = history.quality
    parts = []
    for sidecar in sidecars:
        known = sidecar.events["ts_known"]
        inside = (known >= quality.first_ms) & (known <= quality.last_ms)
        parts.append(select(sidecar.events, inside))
        stamps = len(np.unique(known[inside]))
        quality = quality.note(f"{sidecar.note}: {stamps} stamps inside")
    return assemble([*parts, history.events], history.interval_ms, quality, history.contract)


def _sibling(path: Path, found: re.Match[str], part: str) -> Path | None:
    market, suffix = re.escape(found["market"]), re.escape(found["suffix"])
    name = re.compile(rf"{market}-([0-9]+)([a-z]+)-{part}{suffix}")
    matches = [(name.fullmatch(other.name), other) for other in sorted(path.parent.iterdir())]
    ranked = [(match[2], int(match[1]), other) for match, other in matches if match]
    return max(ranked)[2] if ranked else None


def _settlement_hours(stamps: Times) -> float:
    if len(stamps) < 2:
        return 8.0
    steps, counts = np.unique(np.rint(np.diff(stamps) / _HOUR_MS), return_counts=True)
    return max(float(steps[np.argmax(counts)]), 1.0)


def _settle_prices(stamps: Times, marks: Sidecar | None) -> Floats:
    prices = np.full(len(stamps), np.nan)
    if marks is None or not len(marks.events):
        return prices
    known = marks.events["ts_known"]
    at = np.maximum(np.searchsorted(known, stamps, "right") - 1, 0)
    late = stamps - known[at]
    near = (late >= 0) & (late <= _SETTLE_LATE_MS_MAX)
    prices[near] = marks.events["mark"][at[near]]
    return prices
