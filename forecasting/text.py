"""Text made comparable and harmless: one spelling of JSON to hash, and no hidden characters.

The hidden ones are listed by code point, because what Python calls printable changes with its
version and a prompt must have the same bytes under each.
"""

import hashlib
import json
import re
from typing import Any

# Cc but tab and newline, Cf (zero width, direction, tags), Zl, Zp, surrogates, variation selectors.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
CUT = " [cut]"

canonical = json.JSONEncoder(
    ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode
"""The one JSON spelling of a value: sorted keys, no spaces, ASCII. ValueError for NaN."""


def digest(text: str) -> str:
    """SHA-256 of a text, as 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def plain(text: str, chars_max: int) -> str:
    """The text without hidden characters, at most so long; what was cut off is marked."""
    # a megabyte of zero-width characters must not cost a megabyte of work
    shown = _HIDDEN.sub("", text[: 4 * chars_max].replace("\r\n", "\n").replace("\r", "\n")).strip()
    if len(shown) <= chars_max and len(text) <= 4 * chars_max:
        return shown
    return shown[: max(chars_max - len(CUT), 0)] + CUT


def any_json(value: Any) -> Any:
    """Parse JSON, no more than its standard: ValueError for NaN, Infinity, a key given twice."""
    return json.loads(value, object_pairs_hook=_unique, parse_constant=_refuse)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
