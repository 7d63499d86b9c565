"""One call of a model, whoever serves it: what goes out, what comes back, how it fails."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from forecasting.questions import Message, Outcome
from forecasting.registry import Model
from forecasting.text import canonical, digest

_TOKENS_PER_MESSAGE, _TOKENS_PER_CALL = 32, 128


def key_of(head: str, told: str, sample: int) -> str:
    """The key of a call: ``head`` is the hash of model, parameters and schema as one JSON, ``told``
    the canonical JSON of its messages."""
    return digest(f"{head}\n[{told},{sample}]")


def messages_of(told: str) -> tuple[Message, ...]:
    """The messages of a conversation in JSON."""
    return tuple(Message(role, text) for role, text in json.loads(told))


class Request(NamedTuple):
    """A call in full. What tools returned stands in ``messages``, so it is in the key as well."""

    name: str
    model: Model
    schema_name: str
    schema: Mapping[str, Any]
    head: Mapping[str, Any]
    messages: tuple[Message, ...]
    sample: int
    output_tokens_max: int
    key: str

    @property
    def tokens_in_max(self) -> int:
        """No tokenizer makes more than one token of a byte; the rest is for the chat's frame."""
        size = sum(len(message.text.encode()) for message in self.messages)
        frame = _TOKENS_PER_MESSAGE * len(self.messages) + _TOKENS_PER_CALL
        return size + len(canonical(self.schema)) + frame


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote. ``tokens_*`` are None where the service does not tell."""

    text: str
    tokens_in: int | None
    tokens_out: int | None
    cut: bool = False
    declined: bool = False


class Failure(Exception):
    """A call that brought nothing. ``billed``: the service may charge for it all the same."""

    def __init__(
        self,
        outcome: Outcome,
        reason: str,
        *,
        retry: bool = False,
        billed: bool = False,
        pause_s: float = 0.0,
        raw: str = "",
    ) -> None:
        super().__init__(reason)
        self.outcome, self.reason, self.raw = outcome, reason, raw
        self.retry, self.billed, self.pause_s = retry, billed, pause_s


class Client(Protocol):
    """Speaks one service's protocol. It never retries, and raises nothing but Failure."""

    async def complete(self, request: Request) -> Completion: ...

    async def close(self) -> None: ...
