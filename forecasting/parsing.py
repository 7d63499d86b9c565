"""A model's reply becomes an answer or a reason why it does not; nothing in between is repaired."""

from collections.abc import Collection
from typing import TypeVar

from pydantic import ValidationError

from forecasting.questions import Answer
from forecasting.text import any_json

RAW_CHARS_MAX = 64_000
Kind = TypeVar("Kind", bound=Answer)


class Malformed(Exception):
    """The reply is not an answer; says why in a few words."""


def parse(raw: str, schema: type[Kind], offered: Collection[str]) -> Kind:
    """The answer, which must be the whole reply; it may cite only the evidence offered."""
    if len(raw) > RAW_CHARS_MAX:
        raise Malformed(f"longer than {RAW_CHARS_MAX:,} characters")
    try:
        value = any_json(raw)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    try:
        answer = schema.model_validate_json(raw)
    except ValidationError as error:
        raise Malformed(_first(error)) from None
    unknown = [repr(cited[:40]) for cited in answer.cited() if cited not in offered]
    if unknown:
        raise Malformed(f"evidence that was not offered: {', '.join(unknown)}")
    return answer


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in found["loc"])[:60]
    return f"{where}: {found['msg']}" if where else found["msg"]
