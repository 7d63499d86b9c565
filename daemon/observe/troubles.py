"""Troubles of a line, named in the log: what its metrics count, one line for all since the last.

A feed counts thousands of times a minute when a venue misbehaves; a line for each would bury all
others, and none would leave the operator with a number and no moment.
"""

from collections import Counter
from typing import Any

import anyio
import structlog

from daemon.observe.lines import Line
from markets.feeds.link import Trouble

LOOK_S = 5.0
SKEW_MS_MAX = 500
"""As the alert on ``lockstep_clock_skew_seconds`` has it."""

HARMLESS = frozenset(
    {
        *(Trouble.DUPLICATE, Trouble.OUT_OF_ORDER, Trouble.LATE, Trouble.LATE_CORRECTION),
        *(Trouble.BACKFILLED, Trouble.BAR_ABSENT),
    }
)
"""What a healthy line does now and then."""

log = structlog.get_logger(__name__)


class Troubles:
    """Looks at one feed's line from time to time, and tells what is new."""

    def __init__(self, feed: str, line: Line) -> None:
        self._feed, self._line = feed, line
        self._seen: Counter[Any] = Counter(line.counts)
        self._skewed = False

    def look(self) -> None:
        """Tell what was counted since the last look, and when our clock began or ceased to differ
        from the venue's."""
        counts = Counter(self._line.counts)
        new, self._seen = counts - self._seen, counts
        if new:
            tell = log.info if HARMLESS.issuperset(new) else log.warning
            named = {str(trouble).replace(" ", "_"): times for trouble, times in new.items()}
            tell("line troubled", feed=self._feed, **named)
        skew_ms = self._line.skew_ms
        skewed = skew_ms is not None and abs(skew_ms) > SKEW_MS_MAX
        if skewed != self._skewed:
            self._skewed = skewed
            tell = log.warning if skewed else log.info
            tell("clock skewed" if skewed else "clock agrees", feed=self._feed, skew_ms=skew_ms)

    async def run(self, look_s: float = LOOK_S) -> None:
        """Look for ever."""
        while True:
            await anyio.sleep(look_s)
            self.look()
