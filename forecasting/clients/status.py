"""What a status other than 200 means, whichever library met it."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from forecasting.calls import Failure
from forecasting.questions import Outcome

_TOO_MANY, _SERVER_FAULT = 429, 500
_RAW_CHARS_MAX = 4_000


def failure_of(status: int, headers: Mapping[str, str], body: str) -> Failure:
    """The failure; a busy or broken server may be asked again, one that says no may not."""
    outcome = Outcome.THROTTLED if status == _TOO_MANY else Outcome.HTTP_ERROR
    return Failure(
        outcome,
        f"status {status}",
        retry=status == _TOO_MANY or status >= _SERVER_FAULT,
        pause_s=pause_s(headers),
        raw=body[:_RAW_CHARS_MAX],
    )


def pause_s(headers: Mapping[str, str]) -> float:
    """``Retry-After``: seconds, or a date, which counts from the server's own; 0 where neither."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        until, now = (parsedate_to_datetime(date) for date in (text, headers.get("date", "")))
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
