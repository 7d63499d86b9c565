"""Every error the product raises on purpose, in one tree: a caller can be as narrow as it likes.

    LockstepError
    ├── ConfigError          a setting, flag or key is wrong                       exit code 2
    │   └── UnknownName      a name that is not known, with the nearest one
    ├── DataError            a file holds nothing usable, or cannot be read        exit code 3
    ├── MissingInput         a strategy needs what the data does not carry         exit code 4
    ├── StrategyError        a strategy raised, or returned what is not a decision exit code 5
    └── JournalError         the database refuses, or its schema is another        exit code 6
        └── JournalUnreachable   it cannot be reached now: to be tried again       exit code 7

Programmer errors are not here: they are assertions, and they crash.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class LockstepError(Exception):
    """Base of the tree; ``exit_code`` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(LockstepError):
    """A setting, flag or key is wrong."""

    exit_code = 2


class UnknownName(ConfigError):
    """A name nobody registered; the message suggests the nearest known one."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(known)
        near = get_close_matches(name, choices, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(choices)}"
        super().__init__(f"unknown {what} '{name}': {hint}")
        self.name = name


class DataError(LockstepError):
    """A file holds nothing usable, or cannot be read."""

    exit_code = 3


class MissingInput(LockstepError):
    """A strategy needs a market field that the data does not carry."""

    exit_code = 4


class StrategyError(LockstepError):
    """A strategy raised, or returned something that is not a decision."""

    exit_code = 5


class JournalError(LockstepError):
    """The journal's database refuses, or its schema is not ours."""

    exit_code = 6


class JournalUnreachable(JournalError):
    """The journal's database cannot be reached now, or is held by another: an outage passes."""

    exit_code = 7
