"""Reading the small things people type: names in file names, and ranges of time."""

import re
from datetime import UTC, datetime
from pathlib import Path

from core.errors import ConfigError

_TAIL = re.compile(r"-[0-9]+(ms|s|m|h|d|w)(-futures|-spot)?$")
_STAMP = r"(?:\d{13}|\d{10}|\d{8}|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?Z?)?)"
_RANGE = re.compile(rf"({_STAMP})?-({_STAMP})?")


def instrument_of(path: Path) -> str:
    """The instrument a file name speaks of: ``SOL_USDT-1m-futures.feather`` is ``SOL_USDT``."""
    name = path.name.removesuffix(".gz")
    return _TAIL.sub("", name.rsplit(".", 1)[0] if "." in name else name) or "instrument"


def parse_timerange(text: str) -> tuple[int | None, int | None]:
    """Start and end in unix ms, None where open. The end is where it stops, not its last day.

    ``20250504-20250510``, ``2025-05-04/2025-05-10T12:00``, ``20250504-``, ``-1746316800``.
    """
    found = _RANGE.fullmatch(text.strip())
    parts = text.strip().split("/") if "/" in text else list(found.groups()) if found else []
    if len(parts) != 2 or not any(parts):
        raise _refusal(text)
    start, end = (_stamp(part, text) if part else None for part in parts)
    if start is not None and end is not None and start >= end:
        raise ConfigError(f"--timerange {text}: it ends before it starts")
    return start, end


def _stamp(part: str, text: str) -> int:
    if part.isdigit() and len(part) in (10, 13):
        return int(part) * (1000 if len(part) == 10 else 1)
    try:
        when = datetime.fromisoformat(part)
    except ValueError as error:
        raise _refusal(text) from error
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def _refusal(text: str) -> ConfigError:
    return ConfigError(
        f"--timerange {text}: write 20250504-20250510, 2025-05-04/2025-05-10, or leave one end open"
    )
