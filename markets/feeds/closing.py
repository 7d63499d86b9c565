"""When a candle is final: the one decision that must never be made too early nor twice.

A venue repeats the candle it is building. It is final once the venue has begun a later one on the
same unbroken connection and its time has passed the close by a little more, so that stragglers
count; or once the venue, asked after the close, tells it. No clock of ours ever closes a candle by
itself. All of this is folded from messages here, without I/O, so that it can be tested by itself.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markets.feeds.link import Trouble

_REMEMBERED = 16
_FORMING_MAX = 4


class Candle(NamedTuple):
    """A candle as the venue tells it, growing or final. ``open_ms`` is its open time."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingRules:
    """Milliseconds of venue time after the close of a candle.

    ``settle_ms``: before it no candle is final. ``grace_ms``: after it the venue is asked, if its
    stream has not said. ``absent_ms``: after it a candle the venue does not know never was (some
    venues publish a minute without trades only seconds later). ``future_ms``: how far a candle may
    open ahead of the venue's time. With ``confirm`` the venue is asked about every candle.
    """

    settle_ms: int = 250
    grace_ms: int = 2_000
    absent_ms: int = 15_000
    future_ms: int = 10_000
    confirm: bool = False
    bars_pending_max: int = 5_000


class BarCloser:
    """Candles of one instrument: growing ones in, final ones out, each once and in order."""

    def __init__(
        self,
        interval_ms: int,
        open_ms: int,
        rules: ClosingRules,
        count: Callable[[Trouble], None],
    ) -> None:
        assert open_ms % interval_ms == 0, (open_ms, interval_ms)
        self.interval_ms, self.rules = interval_ms, rules
        # open time of the first candle that is not final yet: all before it are known
        self.open_ms = open_ms
        self._count = count
        self._forming: dict[int, Candle] = {}
        self._final: deque[Candle] = deque()
        self._past: deque[Candle] = deque(maxlen=_REMEMBERED)

    @property
    def close_ms(self) -> int:
        """When the next candle to be closed ends."""
        return self.open_ms + self.interval_ms

    def offer(self, candle: Candle, told_ms: int, venue_ms: int) -> None:
        """A candle from the stream, at the venue's time by the stream and by the best estimate;
        one that is not taken is counted."""
        if candle.open_ms % self.interval_ms:
            self._count(Trouble.MISALIGNED)
        elif candle.open_ms > venue_ms + self.rules.future_ms:
            self._count(Trouble.FROM_THE_FUTURE)
        elif candle.open_ms < self.open_ms:
            self._count(self._lateness(candle))
        elif self._is_over(candle, told_ms):
            # it was not heard to its end, and a correction of it must not pass for that end
            self._count(Trouble.LATE)
        else:
            self._grow(candle)

    def tell(self, told_ms: int) -> None:
        """The stream has shown this venue time: close what it makes final."""
        while self._ended(told_ms) and self.open_ms in self._forming and not self._is_full:
            if self.rules.confirm:
                return
            self._close(self._forming[self.open_ms])

    def forget(self) -> None:
        """The connection is gone: what it told of unfinished candles may lack their end."""
        self._forming.clear()

    def wants(self, told_ms: int, venue_ms: int) -> bool:
        """Whether the venue must be asked: by its stream's time, and by the best estimate."""
        if self._is_full:
            return False
        return venue_ms >= self.close_ms + self.rules.grace_ms or self._ended(told_ms)

    def settle(self, candles: Sequence[Candle], until_ms: int, venue_ms: int) -> None:
        """The venue's answer: all candles that open from ``open_ms`` and before ``until_ms``, known
        at a venue time of at least ``venue_ms``."""
        known = {candle.open_ms: candle for candle in candles}
        while self.open_ms < until_ms and venue_ms >= self.close_ms + self.rules.settle_ms:
            candle = known.get(self.open_ms)
            if candle is not None:
                self._close(candle)
                self._count(Trouble.BACKFILLED)
            elif venue_ms >= self.close_ms + self.rules.absent_ms:
                self._pass_over()
            else:
                return

    def take(self, until_ms: int) -> list[Candle]:
        """Final candles that ended by then, oldest first; each is handed out once."""
        taken = []
        while self._final and self._final[0].open_ms + self.interval_ms <= until_ms:
            taken.append(self._final.popleft())
        return taken

    @property
    def _is_full(self) -> bool:
        return len(self._final) >= self.rules.bars_pending_max

    def _is_over(self, candle: Candle, told_ms: int) -> bool:
        latest_ms = max(told_ms, *self._forming, 0)
        return latest_ms >= candle.open_ms + self.interval_ms + self.rules.settle_ms

    def _ended(self, told_ms: int) -> bool:
        """Whether the stream shows a later candle, and time enough since the close."""
        return told_ms >= self.close_ms + self.rules.settle_ms and any(
            open_ms > self.open_ms for open_ms in self._forming
        )

    def _grow(self, candle: Candle) -> None:
        known = self._forming.get(candle.open_ms)
        if known == candle:
            self._count(Trouble.DUPLICATE)
        elif known is not None and (candle.trades, candle.volume) < (known.trades, known.volume):
            self._count(Trouble.OUT_OF_ORDER)
        else:
            if candle.open_ms < max(self._forming, default=candle.open_ms):
                self._count(Trouble.OUT_OF_ORDER)
            self._forming[candle.open_ms] = candle
            # while the oldest cannot be closed, the next ones need not be kept either
            if len(self._forming) > _FORMING_MAX:
                del self._forming[min(self._forming)]

    def _lateness(self, candle: Candle) -> Trouble:
        final = next((past for past in self._past if past.open_ms == candle.open_ms), None)
        if final is None or (candle.trades, candle.volume) < (final.trades, final.volume):
            return Trouble.LATE
        return Trouble.DUPLICATE if candle == final else Trouble.LATE_CORRECTION

    def _close(self, candle: Candle) -> None:
        self._final.append(candle)
        self._past.append(candle)
        self._step()

    def _pass_over(self) -> None:
        self._count(Trouble.BAR_ABSENT)
        self._step()

    def _step(self) -> None:
        self._forming.pop(self.open_ms, None)
        self.open_ms += self.interval_ms
