"""Text from outside: what may be kept of it, and how it is shown.

A reason with a line break forges a line of the log, one with an escape forges a terminal, and one
that turns the writing direction reads as another. All of these are control characters to Unicode.
"""

import unicodedata

_BREAKS = ("Zl", "Zp")


def is_plain(text: str) -> bool:
    """No control, format, unassigned or line-breaking character."""
    return not any(_controls(letter) for letter in text)


def shown(text: object, most: int = 500) -> str:
    """The same with such characters replaced, cut to a length: safe on a terminal or in a line."""
    given = str(text)
    kept = given if len(given) <= most else given[: most - 1] + "…"
    return "".join(" " if letter in "\n\t" else _visible(letter) for letter in kept)


def _visible(letter: str) -> str:
    return "\N{REPLACEMENT CHARACTER}" if _controls(letter) else letter


def _controls(letter: str) -> bool:
    category = unicodedata.category(letter)
    return category.startswith("C") or category in _BREAKS
