"""Reading what comes from outside: checked for shape, number and sense; what is wrong is named.

A reader raises ``Unreadable``, which never leaves a market's package: it is counted under the name
of what was wrong, and the row is left out.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from markets.feeds.link import Trouble

TIME_MS_MAX = 4_102_444_800_000  # the year 2100

Row = TypeVar("Row")


class Unreadable(Exception):
    """Something from outside is not what it should be."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.value)
        self.trouble = trouble


class Reading(NamedTuple, Generic[Row]):
    """What a message held; ``refused`` names what was wrong with the parts that are left out."""

    messages: Sequence[Row]
    refused: Sequence[Trouble] = ()


def read_rows(rows: Any, reader: Callable[[Any], Row]) -> tuple[list[Row], list[Trouble]]:
    """The records of a list, and what was wrong with those left out."""
    if not isinstance(rows, list):
        return [], [Trouble.BAD_SHAPE]
    good: list[Row] = []
    refused = []
    for row in rows:
        try:
            good.append(reader(row))
        except Unreadable as error:
            refused.append(error.trouble)
    return good, refused


def as_json(text: str | bytes) -> Any:
    """A JSON value."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable(Trouble.NOT_JSON) from None


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise Unreadable(Trouble.BAD_SHAPE)
    return value


def as_text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise Unreadable(Trouble.BAD_SHAPE)
    return value


def as_count(value: Any) -> int:
    """A whole number, zero or above."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Unreadable(Trouble.BAD_NUMBER)
    return value


def as_time(value: Any) -> int:
    """Unix milliseconds."""
    time_ms = as_count(value)
    if not 0 < time_ms < TIME_MS_MAX:
        raise Unreadable(Trouble.BAD_NUMBER)
    return time_ms


def as_number(value: Any) -> float:
    """A finite number, written as decimal text or plainly."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unreadable(Trouble.BAD_NUMBER)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise Unreadable(Trouble.BAD_NUMBER) from None
    if not math.isfinite(number):
        raise Unreadable(Trouble.BAD_NUMBER)
    return number


def as_price(value: Any) -> float:
    """A number above zero."""
    price = as_number(value)
    if price <= 0:
        raise Unreadable(Trouble.BAD_NUMBER)
    return price


def as_amount(value: Any) -> float:
    """A number, zero or above."""
    amount = as_number(value)
    if amount < 0:
        raise Unreadable(Trouble.BAD_NUMBER)
    return amount
