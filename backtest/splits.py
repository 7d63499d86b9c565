"""Cuts of history for fitting and judging, by event time: when it was known, not which row it is.

An observation spans from the moment it was decided at to the moment its outcome was known. Fitting
on one whose span touches the days that judge it is looking ahead, whatever the order of the rows;
and rows of several instruments at one moment belong on one side. Source: López de Prado, "Advances
in Financial Machine Learning" (2018), chapters 7 and 12.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError

SPLITS_MAX = 1_000
"""Each is fitted, so more would take for ever and say no more."""

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Spans:
    """Observations in any order: ``begins`` and ``ends`` in unix ms, shape (observations,)."""

    begins: Ints
    ends: Ints

    def __post_init__(self) -> None:
        if len(self.begins) != len(self.ends) or (self.ends < self.begins).any():
            raise ConfigError("an observation must end when it begins, or later")

    def touching(self, first_ms: int, last_ms: int) -> Flags:
        """Which observations have any moment in common with [first_ms, last_ms]."""
        found: Flags = (self.begins <= last_ms) & (self.ends >= first_ms)
        return found


@dataclass(frozen=True, eq=False)
class Split:
    """Places of the observations to fit on and to judge by, each in ascending order."""

    train: Ints
    test: Ints


@dataclass(frozen=True, eq=False)
class Window:
    """A step of a walk forward: what to fit on, and [begin_ms, end_ms) to judge by.

    ``train_begin_ms`` is where the fitting may begin to look, unix ms.
    """

    train_begin_ms: int
    begin_ms: int
    end_ms: int
    split: Split


def walk_forward(
    spans: Spans,
    *,
    train_ms: int,
    test_ms: int,
    anchored: bool = False,
    embargo_ms: int = 0,
) -> Iterator[Window]:
    """Windows of ``test_ms`` that follow each other without a gap, each after ``train_ms`` to fit.

    ``anchored`` fits on everything since the beginning, else on the last ``train_ms``. An
    observation whose outcome was not known ``embargo_ms`` before the test begins is not fitted on.
    The last window may be short; every observation that begins after the first training is judged
    exactly once. ConfigError when history is too short for one window.
    """
    if train_ms <= 0 or test_ms <= 0 or embargo_ms < 0:
        raise ConfigError("a walk forward needs spans above zero and an embargo of zero or more")
    if len(spans.begins) == 0 or np.ptp(spans.begins) < train_ms:
        raise ConfigError("history is shorter than the first training of the walk forward")
    first, last = int(spans.begins.min()), int(spans.begins.max())
    for begin in range(first + train_ms, last + 1, test_ms):
        since = first if anchored else begin - train_ms
        known = (spans.begins >= since) & (spans.ends < begin - embargo_ms)
        judged = (spans.begins >= begin) & (spans.begins < begin + test_ms)
        split = Split(np.flatnonzero(known), np.flatnonzero(judged))
        yield Window(since, begin, begin + test_ms, split)


@dataclass(frozen=True, eq=False)
class Combinatorial:
    """Every choice of test groups. ``groups`` names each observation's group; ``tested`` has the
    groups of each split; ``paths``, shape (paths, groups), the split that judges a group on a path.

    A path is one whole history, judged out of sample throughout. ``barred``, shape (groups,
    observations), is what must not be fitted on when that group judges, itself included.
    """

    groups: Ints
    barred: Flags
    tested: tuple[tuple[int, ...], ...]
    paths: Ints

    def split(self, place: int) -> Split:
        """One of the splits; made when asked for, because all of them are many times the data."""
        chosen = list(self.tested[place])
        kept = ~self.barred[chosen].any(axis=0)
        return Split(np.flatnonzero(kept), np.flatnonzero(np.isin(self.groups, chosen)))


def combinatorial(spans: Spans, *, groups: int, tests: int, embargo_ms: int = 0) -> Combinatorial:
    """Combinatorial purged cross-validation: C(groups, tests) splits, ``tests / groups`` of them
    paths. Groups are runs of equally many moments.

    Purged: what touches a test group's span. Embargoed: what begins within ``embargo_ms`` after it.
    """
    if not 0 < tests < groups:
        raise ConfigError(f"{tests} test groups of {groups}: choose at least one, and not all")
    if comb(groups, tests) > SPLITS_MAX:
        raise ConfigError(
            f"{tests} test groups of {groups} are {comb(groups, tests):,} splits: "
            f"at most {SPLITS_MAX:,}"
        )
    moments, place = np.unique(spans.begins, return_inverse=True)
    if len(moments) < groups:
        raise ConfigError(f"{len(moments)} moments cannot make {groups} groups")
    group = place.astype(np.int64) * groups // len(moments)
    barred = np.stack([_barred(spans, group == g, embargo_ms) for g in range(groups)])
    tested = tuple(combinations(range(groups), tests))
    return Combinatorial(group, barred, tested, _paths(tested, groups, tests))


def _barred(spans: Spans, mine: Flags, embargo_ms: int) -> Flags:
    """Observations that must not be fitted on when this group judges."""
    first, last = int(spans.begins[mine].min()), int(spans.ends[mine].max())
    return spans.touching(first, last + embargo_ms)


def _paths(tested: Sequence[tuple[int, ...]], groups: int, tests: int) -> Ints:
    paths = np.zeros((comb(groups - 1, tests - 1), groups), np.int64)
    seen = [0] * groups
    for split, chosen in enumerate(tested):
        for group in chosen:
            paths[seen[group], group] = split
            seen[group] += 1
    return paths


def held_out(instruments: Sequence[str], share: float, key: str) -> tuple[str, ...]:
    """Instruments that no search may see, about ``share`` of them and at least one.

    Each name is drawn by its own hash under ``key``, so a new instrument changes no other's side.
    ConfigError when none would be left to search on.
    """
    if not 0 < share < 1:
        raise ConfigError(f"the share held out must lie between 0 and 1, got {share}")

    def draw(name: str) -> float:
        digest = hashlib.sha256(f"{key}\n{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    chosen = [name for name in instruments if draw(name) < share]
    chosen = chosen or sorted(instruments, key=draw)[:1]
    if len(chosen) == len(instruments):
        raise ConfigError("holding these instruments out leaves none to search on")
    return tuple(chosen)
