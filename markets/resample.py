"""Resampling: bars of a longer interval from bars of a shorter one.

A bucket with a bar missing would look like a whole bar of a calmer market, so it is left out.
"""

from dataclasses import replace

import numpy as np

from core.errors import DataError
from core.model import Kind, Records
from markets.history import (
    Flags,
    History,
    Places,
    Quality,
    assemble,
    make_bars,
    select,
)
from markets.intervals import format_interval


def resample(history: History, interval_ms: int, *, partial: bool = False) -> History:
    """Bars of ``interval_ms``, aligned to the UTC epoch; other events are untouched.

    Volume is summed. Only buckets with every bar count, unless ``partial``. DataError when the
    interval is no multiple of the bars', bars straddle a bucket's edge, or no bucket is left.
    """
    if interval_ms == history.interval_ms:
        return history
    ratio, rest = divmod(interval_ms, history.interval_ms)
    names = format_interval(history.interval_ms), format_interval(interval_ms)
    if ratio < 1 or rest:
        raise DataError(f"{names[0]} bars cannot become {names[1]} bars: ask for a multiple")
    bars = history.bars
    bucket = bars["ts_event"] // interval_ms
    if ((bars["ts_known"] - 1) // interval_ms != bucket).any():
        raise DataError(f"{names[0]} bars straddle the edges of {names[1]} bars: cannot resample")
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    counts = np.diff(starts, append=len(bars))
    kept = np.ones(len(starts), np.bool_) if partial else counts == ratio
    if not kept.any():
        raise DataError(f"no {names[1]} bucket has all its {ratio} bars of {names[0]}")
    coarse = select(_fold(bars, starts, interval_ms), kept)
    dropped = int(counts[~kept].sum())
    quality = _recount(history, dropped).note(f"resampled from {names[0]} to {names[1]}")
    others = select(history.events, _not_bars(history.events))
    span = quality.spanning(coarse["ts_event"], interval_ms)
    return assemble([others, coarse], interval_ms, span, history.contract)


def _fold(bars: Records, starts: Places, step: int) -> Records:
    lasts = np.append(starts[1:], len(bars)) - 1
    return make_bars(
        bars["ts_event"][starts] // step * step,
        step,
        open=bars["open"][starts],
        high=np.maximum.reduceat(bars["high"], starts),
        low=np.minimum.reduceat(bars["low"], starts),
        close=bars["close"][lasts],
        volume=np.add.reduceat(bars["volume"], starts),
    )


def _recount(history: History, dropped: int) -> Quality:
    quality = history.quality
    if not dropped:
        return quality
    skipped = {**quality.skipped, "in an incomplete bucket": dropped}
    return replace(quality, rows_used=quality.rows_used - dropped, skipped=skipped)


def _not_bars(events: Records) -> Flags:
    return np.asarray(events["kind"] != Kind.BAR)
