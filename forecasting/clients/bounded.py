"""A bound on what a service may send: a reply that does not end must not fill our memory."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2

from forecasting.calls import Failure
from forecasting.questions import Outcome

BODY_BYTES_MAX = 2**20


class _Bounded(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """A body of either library, up to the bound."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > BODY_BYTES_MAX:
                reason = f"a body beyond {BODY_BYTES_MAX:,} bytes"
                raise Failure(Outcome.MALFORMED, reason, billed=True)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def bound(response: Any) -> None:
    """A hook on every response, before its body is read."""
    response.stream = _Bounded(response.stream)
