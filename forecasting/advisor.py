"""Ask a question, get a reply: the one function that live runs and replays share.

A reply comes from the cassette, or where there is a caller from a model and then into the
cassette. Without a caller what was never recorded is an error, and no model can be reached.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from core.errors import ConfigError
from forecasting.caller import Call, Caller
from forecasting.calls import Request, key_of, messages_of
from forecasting.cassette import Cassette, Entry
from forecasting.errors import CassetteMiss
from forecasting.parsing import Malformed, parse
from forecasting.prompting import Prompt, Prompts
from forecasting.questions import SCHEMAS, Answer, Outcome, Question, Reply
from forecasting.registry import Model, Registry
from forecasting.text import canonical, digest

Arms = Mapping[str, Mapping[str, int]]
Place = Callable[[int, Outcome], int]
"""The latency to record of a call that ended so, at least the one measured."""
_NO_ARMS: Mapping[str, int] = {}


def unplaced(latency_ms: int, _outcome: Outcome) -> int:
    """The latency as it was measured."""
    return latency_ms


class _Head(NamedTuple):
    """What all calls of one model and schema share, and its hash."""

    value: dict[str, Any]
    hash: str


class Advisor:
    """``arms`` gives, by prompt name, the weights its versions are drawn by."""

    def __init__(
        self,
        *,
        prompts: Prompts,
        registry: Registry,
        cassette: Cassette,
        caller: Caller | None = None,
        arms: Arms | None = None,
        schemas: Mapping[str, type[Answer]] = SCHEMAS,
    ) -> None:
        self.prompts, self.registry, self.cassette = prompts, registry, cassette
        self.arms, self.schemas = arms or {}, schemas
        self._caller = caller
        self._heads: dict[tuple[str, str, int], _Head] = {}
        self._asking: dict[str, anyio.Lock] = {}
        for prompt in (one for versions in prompts.by_name.values() for one in versions.values()):
            if prompt.answer not in schemas:
                raise ConfigError(f"prompt {prompt.label}: no schema is called '{prompt.answer}'")

    async def close(self) -> None:
        """Let go of what it calls with, if it calls."""
        if self._caller is not None:
            await self._caller.close()

    async def ask(self, question: Question, place: Place = unplaced) -> Reply:
        """How the question ends; a model's failure is an outcome, never an exception.

        ``place`` may make a call's latency longer before it is recorded: live, where no answer may
        be due before one that was heard, so that a replay has them in the same order.
        CassetteMiss in a replay for a call never recorded; PromptError and UnknownName for a
        question that cannot be put.
        """
        prompt, arms = self.prompt_of(question)
        filled = prompt.fill(question.context)
        told = filled.told
        if question.turns:
            told = canonical([*filled.messages, *question.turns])
        entry = self.cassette.get(self._key(question, prompt, told))
        replayed = entry is not None
        if entry is None:
            request = self._request(question, prompt, told)
            if self._caller is None:
                raise self._miss(question, request, prompt)
            # the same call asked twice at once is one call
            async with self._asking.setdefault(request.key, anyio.Lock()):
                entry = self.cassette.get(request.key)
                replayed = entry is not None
                if entry is None:
                    call = await self._caller.call(request)
                    entry = self._entry(request, prompt, arms, call, filled.evidence, place)
                    await anyio.to_thread.run_sync(self.cassette.add, entry)
            self._asking.pop(request.key, None)
        return self._reply(question, entry, prompt, arms, replayed=replayed)

    def prompt_of(self, question: Question) -> tuple[Prompt, Mapping[str, int]]:
        """The prompt version a question gets, and the weights it was drawn by, if it was."""
        name = question.prompt.partition("/")[0]
        arms = self.arms.get(name, _NO_ARMS) if name == question.prompt else _NO_ARMS
        return self.prompts.choose(question.prompt, question.id, arms), arms

    def _key(self, question: Question, prompt: Prompt, told: str) -> str:
        return key_of(self._head(question.model, prompt).hash, told, question.sample)

    def _head(self, name: str, prompt: Prompt) -> _Head:
        key = name, prompt.answer, prompt.output_tokens_max
        head = self._heads.get(key)
        if head is None:
            model, schema = self.registry.model(name), self.schemas[prompt.answer]
            tokens_max = max(model.output_tokens_max, prompt.output_tokens_max)
            value = _head(model, prompt.answer, schema.model_json_schema(), tokens_max)
            head = self._heads[key] = _Head(value, digest(canonical(value)))
        return head

    def _request(self, question: Question, prompt: Prompt, told: str) -> Request:
        head = self._head(question.model, prompt).value
        return Request(
            name=question.model,
            model=self.registry.model(question.model),
            schema_name=prompt.answer,
            schema=head["schema"],
            head=head,
            messages=messages_of(told),
            sample=question.sample,
            output_tokens_max=head["output_tokens_max"],
            key=self._key(question, prompt, told),
        )

    def _entry(
        self,
        request: Request,
        prompt: Prompt,
        arms: Mapping[str, int],
        call: Call,
        offered: frozenset[str],
        place: Place,
    ) -> Entry:
        """What is kept of a call, with its reply parsed once and for all."""
        outcome, reason, answer = call.outcome, call.reason, None
        if outcome is Outcome.OK:
            try:
                parsed = parse(call.raw, self.schemas[prompt.answer], offered)
                answer = parsed.model_dump(mode="json")
            except Malformed as error:
                outcome, reason = Outcome.MALFORMED, str(error)
        return Entry(
            key=request.key,
            head=dict(request.head),
            messages=request.messages,
            sample=request.sample,
            prompt=prompt.label,
            prompt_hash=prompt.hash,
            arms=dict(arms),
            outcome=outcome,
            reason=reason,
            raw=call.raw,
            answer=answer,
            latency_ms=place(call.latency_ms, outcome),
            tokens_in=call.tokens_in,
            tokens_out=call.tokens_out,
            cost_micros=call.cost_micros,
            attempts=call.attempts,
        )

    def _reply(
        self,
        question: Question,
        entry: Entry,
        prompt: Prompt,
        arms: Mapping[str, int],
        *,
        replayed: bool,
    ) -> Reply:
        answer = None
        if entry.answer is not None:
            # it was parsed strictly when it was recorded, and its hash says it is still that
            answer = self.schemas[prompt.answer].model_validate(entry.answer, strict=False)
        return Reply(
            question=question,
            outcome=entry.outcome,
            reason=entry.reason,
            answer=answer,
            model=question.model,
            prompt=prompt.label,
            prompt_hash=prompt.hash,
            arms=arms,
            key=entry.key,
            messages=entry.messages,
            raw=entry.raw,
            latency_ms=entry.latency_ms,
            tokens_in=entry.tokens_in,
            tokens_out=entry.tokens_out,
            cost_micros=entry.cost_micros,
            attempts=entry.attempts,
            contaminated=self.registry.contaminated(question.model, question.ts),
            replayed=replayed,
        )

    def _miss(self, question: Question, request: Request, prompt: Prompt) -> CassetteMiss:
        return CassetteMiss(
            f"{self.cassette.folder}: holds no call {request.key[:12]}: question {question.id} "
            f"({question.book}, {question.instrument}, ts {question.ts}) to {question.model} with "
            f"prompt {prompt.label}: record it with --record"
        )


def _head(
    model: Model, schema_name: str, schema: dict[str, Any], output_tokens_max: int
) -> dict[str, Any]:
    """What makes a call another one, beside its conversation."""
    return {
        "service": model.service,
        "model": model.id,
        "parameters": model.parameters.given(0),
        "output_tokens_max": output_tokens_max,
        "schema_name": schema_name,
        "schema": schema,
    }
