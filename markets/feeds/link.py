"""The state of the line to a venue, for metrics and for the gate.

What goes wrong on the line is counted here by a reason of a closed set, so that a metric can carry
it as a label.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

SKEW_WINDOW_MS = 60_000
_AHEAD_MAX = 16


class Trouble(StrEnum):
    """Everything a feed counts."""

    # the line
    CLOSED = "closed"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    TIMEOUT = "timeout"
    HANDSHAKE = "handshake"
    # a message that is refused
    NOT_JSON = "not json"
    BAD_SHAPE = "bad shape"
    BAD_NUMBER = "bad number"
    IMPOSSIBLE_BAR = "impossible bar"
    CROSSED_BOOK = "crossed book"
    UNKNOWN_CHANNEL = "unknown channel"
    UNKNOWN_COIN = "unknown coin"
    WRONG_INTERVAL = "wrong interval"
    MISALIGNED = "misaligned"
    FROM_THE_FUTURE = "from the future"
    VENUE_ERROR = "venue error"
    # a message that is readable and changes nothing
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out of order"
    STALE_SLOT = "stale slot"
    RECORDS_MISSING = "records missing"
    LATE = "late"
    LATE_CORRECTION = "late correction"
    # bars and settlements
    BACKFILLED = "backfilled"
    BAR_ABSENT = "bar absent"
    SETTLEMENT_ABSENT = "settlement absent"
    # requests
    RETRIED = "request retried"
    THROTTLED = "request throttled"
    FAILED = "request failed"


@dataclass
class Link:
    """What is known of one line. ``now_s`` is a clock that never steps back, in any thread."""

    now_s: Callable[[], float]
    connected: bool = False
    connections: int = 0
    messages: int = 0
    counts: Counter[Trouble] = field(default_factory=Counter)
    data_s: float | None = None
    skew_ms: int | None = None
    behind_ms: int | None = None

    def count(self, trouble: Trouble, times: int = 1) -> None:
        """Count something that went wrong."""
        self.counts[trouble] += times

    def opened(self) -> None:
        """A connection stands."""
        self.connected = True
        self.connections += 1

    def lost(self, trouble: Trouble) -> None:
        """A connection, or an attempt at one, ended."""
        self.connected = False
        self.count(trouble)

    def heard(self) -> None:
        """A message with data came in."""
        self.messages += 1
        self.data_s = self.now_s()

    @property
    def reconnects(self) -> int:
        """Connections after the first one."""
        return max(self.connections - 1, 0)

    @property
    def age_s(self) -> float | None:
        """Seconds since the last message with data; None before the first."""
        return None if self.data_s is None else self.now_s() - self.data_s


class VenueClock:
    """The venue's time, told from its messages and our own clock.

    A stamp we receive is older than the venue's time at that moment, never newer, so the greatest
    difference to our clock in the last minute or two is the best estimate, and it errs towards an
    earlier venue time: a bar is then closed a little late rather than too soon.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_local_ms = now_ms
        self.told_ms = 0
        self._window, self._ahead = -1, 0
        self._best: tuple[int | None, int | None] = (None, None)

    def accepts(self, venue_ms: int, future_ms: int) -> bool:
        """Observe a stamp unless it lies further ahead than that. Many such in a row are right,
        and our own clock was set back."""
        self._ahead = self._ahead + 1 if venue_ms > self.now_ms() + future_ms else 0
        if 0 < self._ahead <= _AHEAD_MAX:
            return False
        self.observe(venue_ms)
        return True

    def observe(self, venue_ms: int) -> None:
        """A stamp of the venue's that was just received."""
        local_ms = self.now_local_ms()
        window, (last, before) = local_ms // SKEW_WINDOW_MS, self._best
        if window != self._window:
            # after a pause, or a step of our clock, older windows say nothing any more
            last, before = None, last if abs(window - self._window) == 1 else None
            self._window = window
        offset = venue_ms - local_ms
        self._best = offset if last is None else max(last, offset), before
        self.told_ms = max(self.told_ms, venue_ms)

    @property
    def skew_ms(self) -> int | None:
        """How far our clock is ahead of the venue's, latency included; None before any stamp."""
        known = [offset for offset in self._best if offset is not None]
        return -max(known) if known else None

    def now_ms(self) -> int:
        """The venue's time now, at least the latest stamp; our own clock before any stamp."""
        return max(self.now_local_ms() - (self.skew_ms or 0), self.told_ms)
