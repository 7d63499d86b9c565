"""Secrets kept out of everything that is written: by the name of their key, and by their value.

A name alone is not enough: a venue's client puts the key into an error's text, and an HTTP client
logs a URL that carries a token. So whoever reads a secret tells it here, and the value, in each
spelling that a log line could give it, is replaced wherever it turns up.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "[hidden]"
LINE_OF_SECRET_MIN = 12
DEPTH_MAX = 12

_KEY = re.compile(
    r"secret|passw|passphrase|authorization|cookie|credential|mnemonic|seedphrase|signature|privatekey|signingkey"
    r"|apikey|accesskey|bearer|token$"
)
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]")
_CARRIERS = (
    # the password of a URL, and what follows the scheme of a header
    (re.compile(r"(://[^/\s:@]*:)[^@/\s]+(@)"), rf"\1{HIDDEN}\2"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), rf"\1 {HIDDEN}"),
)


def names_a_secret(key: object) -> bool:
    """Whether a key says that its value is secret: ``api_key``, ``Authorization``, ``bot-token``;
    not ``tokens`` or ``token_id``, which count and name."""
    return bool(_KEY.search(_NOT_IN_A_NAME.sub("", str(key).lower())))


class Secrets:
    """The values that must not be seen, and the way to take them out of a text or an event."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._spellings: set[str] = set()
        self._found: re.Pattern[str] | None = None
        self.add(*values)

    def add(self, *values: str) -> None:
        """Hide these from now on; an empty one is nothing to hide."""
        for value in values:
            if value.strip():
                self._spellings.update(_spellings(value))
        if self._spellings:
            longest_first = sorted(self._spellings, key=len, reverse=True)
            self._found = re.compile("|".join(longest_first))

    def hide(self, text: str) -> str:
        """The text without any secret."""
        for carrier, instead in _CARRIERS:
            text = carrier.sub(instead, text)
        return self._found.sub(HIDDEN, text) if self._found else text

    def clean(self, value: Any, depth: int = 0) -> Any:
        """The same with every text in it hidden, however deep, and every value of a secret key."""
        if isinstance(value, str):
            return self.hide(value)
        if value is None or isinstance(value, bool | int | float):
            return self._clean_number(value)
        if depth >= DEPTH_MAX:
            return self.hide(repr(value))
        if isinstance(value, Mapping):
            return {self.hide(str(k)): self._entry(k, v, depth) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.clean(item, depth + 1) for item in value]
        return self.hide(
            value.decode(errors="replace") if isinstance(value, bytes) else repr(value)
        )

    def _clean_number(self, value: float | None) -> Any:
        """A secret may be all digits; ``-1`` and ``True`` are none."""
        if value is None or isinstance(value, bool) or not self._found:
            return value
        return HIDDEN if self._found.fullmatch(str(value)) else value

    def _entry(self, key: object, value: Any, depth: int) -> Any:
        return HIDDEN if names_a_secret(key) else self.clean(value, depth + 1)


SECRETS = Secrets()
"""Those this process has read: whoever reads one adds it, whatever writes a line hides them."""


def _spellings(value: str) -> Iterator[str]:
    """Patterns of a secret in a text, a URL, JSON, a Python literal or a header. A key of several
    lines is found line by line too, for a traceback indents them."""
    value = value.strip()
    lines = [line.strip() for line in value.splitlines()]
    for part in {value, *(line for line in lines if len(line) >= LINE_OF_SECRET_MIN)}:
        yield "".join(map(_spelled, part))
        yield re.escape(base64.b64encode(part.encode()).decode())


def _spelled(char: str) -> str:
    """One character, plain or escaped as often as it may have been quoted inside other quotes."""
    if char.isascii() and char.isalnum():
        return char
    units = char.encode("utf-16-be").hex()
    ways = [
        rf"\\*{re.escape(char)}",
        "".join(rf"\\+u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4)),
        rf"\\+(?:x|u0000|U000)(?i:{ord(char):02x})",
        f"(?i:{re.escape(quote(char, safe=''))})",
    ]
    named = {"\n": r"\\+n", "\t": r"\\+t", "\r": r"\\+r", "\\": r"\\+", " ": r"\+"}
    return f"(?:{'|'.join([*ways, *filter(None, [named.get(char)])])})"
