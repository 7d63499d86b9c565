"""Whether we see each instrument: the gate must know of blindness before it costs money.

A line that stands may still say nothing, of one instrument or of all, so an instrument is in sight
only while the line stands and everything a live instrument shows goes on moving. What moves is told
by the feed, which knows its market; how long it may rest is told by the bars: one is due every
interval, and half an interval more is for stragglers, so silence is noticed within two. It comes
into sight when the feed has caught up with it: what a feed begins with, and what was missed while
we were away, is the past, to be learnt from and not to be traded.
"""

from collections.abc import Sequence
from typing import Protocol

import anyio
import numpy as np
import structlog
from numpy.typing import NDArray

from daemon.live.service import Clock, Service
from markets.feeds.link import Link

LOOK_S = 1.0
PATIENCE_INTERVALS = 1.5

log = structlog.get_logger(__name__)


class Watched(Protocol):
    """A feed that tells what it hears. ``marks``: a row of counts or times an instrument, each of
    which rises while that instrument is alive. ``behind_ms``: how old the newest that was handed
    out of an instrument is, by the venue's time."""

    link: Link

    def marks(self) -> NDArray[np.int64]: ...
    def behind_ms(self) -> NDArray[np.int64]: ...


class Sight:
    """When each mark of a feed last moved, on the given clock."""

    def __init__(self, feed: Watched, interval_ms: int, clock: Clock) -> None:
        self._feed, self._clock = feed, clock
        self._patience_ms = PATIENCE_INTERVALS * interval_ms
        self._marks = feed.marks()
        self._moved_ms = np.full(self._marks.shape, clock(), np.int64)

    def look(self, in_sight: Sequence[bool]) -> NDArray[np.bool_]:
        """Which instruments are in sight now, and of those that were not, which are back."""
        marks, now_ms = self._feed.marks(), self._clock()
        self._moved_ms[marks != self._marks] = now_ms
        self._marks = marks
        rested_ms = (now_ms - self._moved_ms).max(axis=1)
        alive = (rested_ms < self._patience_ms) & self._feed.link.connected
        return np.asarray(alive & (in_sight | (self._feed.behind_ms() < self._patience_ms)))


async def watch_sight(
    service: Service, feed: Watched, interval_ms: int, clock: Clock, look_s: float = LOOK_S
) -> None:
    """Tell the gate, for ever, when an instrument goes out of sight and when it is back."""
    sight = Sight(feed, interval_ms, clock)
    while True:
        await anyio.sleep(look_s)
        for instrument, up in enumerate(sight.look(service.in_sight).tolist()):
            await service.link(instrument, up)
