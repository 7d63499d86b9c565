"""Durations: every spelling there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from markets.intervals import as_interval_ms, format_interval, parse_interval


@given(st.integers(1, 10**9 - 1))
def test_a_formatted_interval_parses_back(interval_ms: int) -> None:
    assert parse_interval(format_interval(interval_ms)) == interval_ms


@pytest.mark.parametrize(
    ("text", "interval_ms"), [("5m", 300_000), (" 1h ", 3_600_000), ("1d", 86_400_000), ("9ms", 9)]
)
def test_durations_parse(text: str, interval_ms: int) -> None:
    assert parse_interval(text) == interval_ms


@pytest.mark.parametrize("text", ["", "5", "m", "0m", "-1m", "1.5h", "5 m", "1y", "\uff15m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write one such as"):
        parse_interval(text)


def test_milliseconds_are_taken_as_they_are_unless_not_positive() -> None:
    assert as_interval_ms(5) == as_interval_ms("5ms") == 5
    with pytest.raises(ConfigError, match="not positive"):
        as_interval_ms(0)
