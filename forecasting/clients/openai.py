"""OpenAI's chat completions with structured outputs, and every server that is compatible.

The body is read by us: the library takes whatever a server sends for what it should have sent.
"""

import re
from typing import Any

import openai
from pydantic import BaseModel, Field, ValidationError

from forecasting.calls import Completion, Failure, Request
from forecasting.clients.bounded import bound
from forecasting.clients.status import failure_of
from forecasting.questions import Outcome
from forecasting.registry import Service

# Strict servers refuse schemas with bounds; ours are kept when the reply is parsed.
_BOUND = re.compile(r"m(in|ax)(imum|Length|Items)|exclusiveM(in|ax)imum|pattern|format|default")


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class OpenAI:
    """A client of one compatible server."""

    def __init__(self, service: Service, credential: str = "") -> None:
        self._service = service
        self._client = openai.AsyncOpenAI(
            api_key=credential or "none",
            base_url=service.url,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=openai.Timeout(None, connect=service.connect_timeout_s),
                follow_redirects=False,
                event_hooks={"response": [bound]},
            ),
        )

    async def complete(self, request: Request) -> Completion:
        """Ask once."""
        body = await self._post(request)
        choice = body.choices[0]
        usage = body.usage
        return Completion(
            text=choice.message.refusal or choice.message.content or "",
            tokens_in=usage.prompt_tokens if usage else None,
            tokens_out=usage.completion_tokens if usage else None,
            cut=choice.finish_reason == "length",
            declined=bool(choice.message.refusal) or choice.finish_reason == "content_filter",
        )

    async def _post(self, request: Request) -> _Body:
        create: Any = self._client.chat.completions.with_raw_response.create
        try:
            reply = await create(
                model=request.model.id,
                messages=[{"role": role, "content": text} for role, text in request.messages],
                response_format=_response_format(request),
                extra_body=self._service.extra_body or None,
                **{self._service.output_key: request.output_tokens_max},
                **request.model.parameters.given(request.sample),
            )
        except openai.APIStatusError as error:
            reply = error.response
            raise failure_of(reply.status_code, reply.headers, reply.text) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, Failure):
                raise error.__cause__ from None
            cause = type(error.__cause__ or error).__name__
            # only a request that never left is surely free
            billed = cause not in ("ConnectError", "ConnectTimeout")
            reason = f"{'lost' if billed else 'cannot be reached'}: {cause}"
            raise Failure(Outcome.CONNECTION, reason, retry=True, billed=billed) from None
        text = reply.http_response.text
        try:
            return _Body.model_validate_json(text)
        except ValidationError:
            reason = "not the protocol of chat completions"
            raise Failure(Outcome.MALFORMED, reason, billed=True, raw=text[:4_000]) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _response_format(request: Request) -> dict[str, Any]:
    schema = {"name": request.schema_name, "strict": True, "schema": _unbounded(request.schema)}
    return {"type": "json_schema", "json_schema": schema}


def _unbounded(schema: Any) -> Any:
    """The schema without bounds; a property may well be called as one of them."""
    if isinstance(schema, list):
        return [_unbounded(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: inner for name, inner in schema.items() if not _BOUND.fullmatch(name)}
    return {
        name: {key: _unbounded(value) for key, value in inner.items()}
        if name in ("properties", "$defs")
        else _unbounded(inner)
        for name, inner in kept.items()
    }
