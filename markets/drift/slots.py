"""The age of a book in slots: a server cut off from its chain tells old books with new stamps.

It serves on, and its clock ticks on; only the slot of its books stands still.
"""

from markets.feeds.link import Trouble

SLOT_MS = 400
"""How long the chain means a slot to last; it is seldom faster."""

_AHEAD_MAX = 16


class SlotClock:
    """The newest slot seen, and how many must have passed since.

    ``behind_max``: a book older than this many slots is stale. ``ahead_max``: one this far beyond
    what can have passed is not believed, unless many in a row say the same.
    """

    def __init__(self, behind_max: int = 50, ahead_max: int = 1_000) -> None:
        self.behind_max, self.ahead_max = behind_max, ahead_max
        self.slot = 0
        self._at_ms = 0
        self._ahead = 0

    def age(self, slot: int, now_ms: int) -> int:
        """Slots from this one to where the chain must be; negative when it is further."""
        return self.slot + max(now_ms - self._at_ms, 0) // SLOT_MS - slot

    def judge(self, slot: int, now_ms: int) -> Trouble | None:
        """What is wrong with a book of this slot that is told now; None if nothing is."""
        age = self.age(slot, now_ms)
        if self.slot and age < -self.ahead_max:
            self._ahead += 1
            if self._ahead <= _AHEAD_MAX:
                return Trouble.FROM_THE_FUTURE
        self._ahead = 0
        if slot > self.slot:
            # a chain that stood still and goes on is fresh again
            self.slot, self._at_ms = slot, now_ms
            return None
        return Trouble.STALE_SLOT if age > self.behind_max else None
