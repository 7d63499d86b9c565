"""Durations as people write them (``5m``, ``1h``) and as the core counts them (milliseconds)."""

import re

from core.errors import ConfigError

_UNIT_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d|w)")


def parse_interval(text: str) -> int:
    """Milliseconds of ``30s``, ``5m``, ``1h``, ``1d``, ``1w``; anything else is a ConfigError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"'{text}' is not a duration: write one such as 30s, 5m, 1h or 1d")
    return int(found[1]) * _UNIT_MS[found[2]]


def format_interval(interval_ms: int) -> str:
    """The shortest exact text for a positive number of milliseconds: 300000 is ``5m``."""
    assert interval_ms > 0, interval_ms
    unit = next(u for u in reversed(_UNIT_MS) if interval_ms % _UNIT_MS[u] == 0)
    return f"{interval_ms // _UNIT_MS[unit]}{unit}"


def as_interval_ms(interval: int | str) -> int:
    """Accept either spelling: a duration text, or milliseconds."""
    if isinstance(interval, str):
        return parse_interval(interval)
    if interval <= 0:
        raise ConfigError(f"an interval of {interval} ms is not positive")
    return interval
