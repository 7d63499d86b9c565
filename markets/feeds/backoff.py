"""Waits between attempts: exponential, bounded, and jittered so that many clients do not return at
the same instant to a venue that just came back."""

from collections.abc import Callable


class Backoff:
    """The n-th wait lies in [half, whole] of ``first_s * 2**n``, and never above ``longest_s``."""

    def __init__(self, first_s: float, longest_s: float, random: Callable[[], float]) -> None:
        assert 0 < first_s <= longest_s, (first_s, longest_s)
        self.first_s, self.longest_s = first_s, longest_s
        self._random = random
        self._whole = first_s

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        whole, self._whole = self._whole, min(2 * self._whole, self.longest_s)
        return whole * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Begin again at the first wait: the last attempt succeeded."""
        self._whole = self.first_s
