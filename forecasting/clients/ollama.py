"""Ollama's own protocol, whose ``format`` forces the reply into the grammar of the schema."""

from typing import Any

import httpx
from ollama import AsyncClient

from forecasting.calls import Completion, Failure, Request
from forecasting.clients.bounded import bound
from forecasting.clients.status import failure_of
from forecasting.questions import Outcome
from forecasting.registry import Service


class Ollama:
    """A client of one Ollama server."""

    def __init__(self, service: Service, credential: str = "") -> None:
        self._client = AsyncClient(
            host=service.url,
            headers={"authorization": f"Bearer {credential}"} if credential else None,
            # the whole call has a deadline of its own, and a model may think long before a byte
            timeout=httpx.Timeout(None, connect=service.connect_timeout_s),
            follow_redirects=False,
            event_hooks={"response": [bound, _check]},
        )

    async def complete(self, request: Request) -> Completion:
        """Ask once."""
        options: dict[str, Any] = request.model.parameters.given(request.sample)
        try:
            reply = await self._client.chat(
                model=request.model.id,
                messages=[{"role": role, "content": text} for role, text in request.messages],
                format=dict(request.schema),
                options=options | {"num_predict": request.output_tokens_max},
            )
        except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout) as error:
            reason = f"cannot be reached: {type(error).__name__}"
            raise Failure(Outcome.CONNECTION, reason, retry=True) from None
        except httpx.HTTPError as error:
            reason = f"lost: {type(error).__name__}"
            raise Failure(Outcome.CONNECTION, reason, retry=True, billed=True) from None
        except ValueError as error:
            reason = f"not Ollama's protocol: {type(error).__name__}"
            raise Failure(Outcome.MALFORMED, reason, billed=True) from None
        return Completion(
            text=reply.message.content or "",
            tokens_in=reply.prompt_eval_count,
            tokens_out=reply.eval_count,
            cut=reply.done_reason == "length",
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]


async def _check(response: httpx.Response) -> None:
    """Here and not from the library's error, which has lost the headers."""
    if not response.is_success:
        await response.aread()
        raise failure_of(response.status_code, response.headers, response.text)
