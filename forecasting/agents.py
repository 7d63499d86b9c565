"""Agents: a model writes Python that decides, a sandbox runs it, and its decision is an opinion.

An agent stands wherever an advisor does, and answers the same questions. Each of its steps is kept
in the cassette, the runs of the sandbox as well, so that a replay needs neither model nor sandbox.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio
import anyio.to_thread

from forecasting.advisor import Advisor, Place, unplaced
from forecasting.calls import key_of
from forecasting.cassette import Cassette, Entry
from forecasting.errors import CassetteMiss
from forecasting.parsing import RAW_CHARS_MAX, Malformed, parse
from forecasting.prompting import Prompt, Prompts
from forecasting.questions import Answer, Message, Outcome, Program, Question, Reply, Text
from forecasting.registry import Registry
from forecasting.sandbox.port import End, Limits, Ran, Sandbox
from forecasting.text import any_json, canonical, digest

REPAIRS_MAX = 2
_WRITTEN = frozenset({Outcome.OK, Outcome.MALFORMED, Outcome.CUT})
_FAILED = frozenset(Outcome) - {Outcome.OK, Outcome.REFUSED_BUDGET}
_OUTCOMES = {
    End.TIMEOUT: Outcome.TIMEOUT,
    End.UNAVAILABLE: Outcome.CONNECTION,
    End.REFUSED_BUDGET: Outcome.REFUSED_BUDGET,
}


@dataclass(slots=True, kw_only=True)
class Decided(Reply):
    """A reply of an agent: its last step's, with latency, tokens, cost and attempts of all.

    ``steps`` are the keys of its steps in the cassette, in turn. ``ends`` says how each run of code
    ended, ``code_hash`` is of the program whose decision it is, empty where it is nobody's.
    ``fallback``: no program brought a decision, and the model was asked directly.
    """

    steps: tuple[str, ...]
    ends: tuple[End, ...]
    code_hash: str
    fallback: bool


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of the sandbox, as the cassette has it."""

    key: str
    end: End
    reason: str
    answer: Answer | None
    latency_ms: int
    cost_micros: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class _Case:
    """What all steps of one question share: what is told, and what may be answered."""

    asked: Question
    prompt: Prompt
    context: str
    schema: type[Answer]
    offered: frozenset[str]


class Agent:
    """``ask`` as an advisor's: ``question.prompt`` is the direct prompt, of which the agent takes
    the context and the schema of the answer, and which it falls back on.

    ``prompt`` asks for the program, ``name`` or ``name/version``. Without a sandbox a run that was
    never recorded is a CassetteMiss; whoever records chooses a sandbox first, or refuses.
    """

    def __init__(
        self,
        advisor: Advisor,
        sandbox: Sandbox | None,
        *,
        prompt: str = "agent",
        repairs_max: int = REPAIRS_MAX,
        limits: Limits | None = None,
    ) -> None:
        self.advisor, self.sandbox = advisor, sandbox
        self.prompt, self.repairs_max = prompt, repairs_max
        self.limits = limits or Limits()
        self._running: dict[str, anyio.Lock] = {}

    @property
    def prompts(self) -> Prompts:
        return self.advisor.prompts

    @property
    def registry(self) -> Registry:
        return self.advisor.registry

    @property
    def cassette(self) -> Cassette:
        return self.advisor.cassette

    async def close(self) -> None:
        """Let go of what the advisor calls with."""
        await self.advisor.close()

    async def ask(self, question: Question, place: Place = unplaced) -> Decided:
        """The decision of the first program that brings one, or the direct answer after all.

        Only the step that ends it is placed, by the latency of all. A model that cannot be
        reached, or will not answer, is not asked another way. Raises as an advisor does.
        """
        case = self._case(question)
        asked, steps = case.asked, list[Reply | _Run]()
        for _ in range(1 + self.repairs_max):
            reply = await self.advisor.ask(asked, _ending(place, steps, _WRITTEN))
            steps.append(reply)
            error = reply.reason
            if isinstance(reply.answer, Program):
                run = await self._run(case, reply.answer.code, _ending(place, steps, _FAILED))
                steps.append(run)
                if run.answer is not None:
                    code_hash = digest(reply.answer.code)
                    return _decided(question, steps, run.answer, code_hash=code_hash)
                if run.end is End.REFUSED_BUDGET:
                    refused = _decided(question, steps, None)
                    return replace(refused, outcome=Outcome.REFUSED_BUDGET, reason=run.reason)
                if run.end is End.UNAVAILABLE:
                    break
                error = run.reason
            elif reply.outcome not in _WRITTEN:
                return _decided(question, steps, None)
            if len(reply.raw) > RAW_CHARS_MAX:
                break
            asked = asked.after(reply, case.prompt.complain(error))
        reply = await self.advisor.ask(question, _ending(place, steps, frozenset()))
        return _decided(question, [*steps, reply], reply.answer, fallback=True)

    def _case(self, question: Question) -> _Case:
        direct, _ = self.advisor.prompt_of(question)
        offered = direct.fill(question.context).evidence
        facts = direct.facts(question.context)
        schema = self.advisor.schemas[direct.answer]
        context = canonical(facts)
        told = {
            "context": [Text("context", context)],
            "schema": [Text("schema", canonical(schema_of(facts)))],
            "answer": [Text("answer", canonical(schema.model_json_schema()))],
        }
        asked = replace(question, prompt=self.prompt, context=told)
        return _Case(asked, self.advisor.prompt_of(asked)[0], context, schema, offered)

    async def _run(self, case: _Case, code: str, place: Place) -> _Run:
        """One run, from the cassette if it is there: the same code on the same facts is one run."""
        head = {
            "service": "sandbox",
            "model": "python",
            "limits": _limits(self.limits),
            "schema": case.schema.model_json_schema(),
            "offered": sorted(case.offered),
        }
        messages = (Message("code", code), Message("context", case.context))
        key = key_of(digest(canonical(head)), canonical(messages), case.asked.sample)
        async with self._running.setdefault(key, anyio.Lock()):
            kept = self.cassette.get(key)
            entry = kept or await self._enter(case, key, head, messages, place)
        self._running.pop(key, None)
        end = End(any_json(entry.raw)["end"])
        answer = entry.answer and case.schema.model_validate(entry.answer, strict=False)
        return _Run(
            key=key,
            end=end,
            reason=entry.reason,
            answer=answer or None,
            latency_ms=entry.latency_ms,
            cost_micros=entry.cost_micros,
            replayed=kept is not None,
        )

    async def _enter(
        self,
        case: _Case,
        key: str,
        head: dict[str, Any],
        messages: tuple[Message, ...],
        place: Place,
    ) -> Entry:
        """Run, judge what came of it, and keep both."""
        if self.sandbox is None:
            raise CassetteMiss(
                f"{self.cassette.folder}: holds no run {key[:12]} of the program for question "
                f"{case.asked.id}: record it with --record"
            )
        code, context = (message.text for message in messages)
        ran = await self.sandbox.run(code, context.encode(), self.limits)
        answer, reason = _judged(ran, case)
        outcome = Outcome.OK if answer else _OUTCOMES.get(ran.end, Outcome.MALFORMED)
        kept = {"end": ran.end, "sandbox": self.sandbox.name, "result": ran.result}
        entry = Entry(
            key=key,
            head=head,
            messages=messages,
            sample=case.asked.sample,
            prompt=case.prompt.label,
            prompt_hash=case.prompt.hash,
            arms={},
            outcome=outcome,
            reason=reason,
            raw=canonical(kept | {"printed": ran.printed}),
            answer=answer.model_dump(mode="json") if answer else None,
            latency_ms=place(round(ran.seconds * 1_000), outcome),
            tokens_in=0,
            tokens_out=0,
            cost_micros=ran.cost_micros,
            attempts=1,
        )
        await anyio.to_thread.run_sync(self.cassette.add, entry)
        return entry


def _judged(ran: Ran, case: _Case) -> tuple[Answer | None, str]:
    """The decision as the schema and the question allow it, or what is wrong, for the model."""
    if ran.result is None:
        said = f"\nIt printed:\n{ran.printed}" if ran.printed.strip() else ""
        return None, f"{ran.end}: {ran.reason}{said}"
    try:
        return parse(ran.result, case.schema, case.offered), ""
    except Malformed as error:
        return None, f"decide returned what is no answer: {error}"


def _ending(place: Place, steps: Sequence[Reply | _Run], more: frozenset[Outcome]) -> Place:
    """The place of the next step: the agent's own, unless the step's outcome asks for ``more``."""
    spent_ms = sum(step.latency_ms for step in steps)

    def placed(latency_ms: int, outcome: Outcome) -> int:
        if outcome in more:
            return latency_ms
        return place(spent_ms + latency_ms, outcome) - spent_ms

    return placed


def _decided(
    question: Question,
    steps: list[Reply | _Run],
    answer: Answer | None,
    *,
    code_hash: str = "",
    fallback: bool = False,
) -> Decided:
    replies = [step for step in steps if isinstance(step, Reply)]
    last = replies[-1]
    return Decided(
        question=question,
        outcome=last.outcome,
        reason=last.reason,
        answer=answer,
        model=last.model,
        prompt=last.prompt,
        prompt_hash=last.prompt_hash,
        arms=last.arms,
        key=last.key,
        messages=last.messages,
        raw=last.raw,
        latency_ms=sum(step.latency_ms for step in steps),
        tokens_in=sum(reply.tokens_in for reply in replies),
        tokens_out=sum(reply.tokens_out for reply in replies),
        cost_micros=sum(step.cost_micros for step in steps),
        attempts=sum(reply.attempts for reply in replies),
        contaminated=last.contaminated,
        replayed=all(step.replayed for step in steps),
        steps=tuple(step.key for step in steps),
        ends=tuple(step.end for step in steps if isinstance(step, _Run)),
        code_hash=code_hash,
        fallback=fallback,
    )


def schema_of(value: Any) -> dict[str, Any]:
    """A JSON schema that a JSON value fits; of a list the first item speaks for all."""
    match value:
        case None:
            return {"type": "null"}
        case bool():
            return {"type": "boolean"}
        case int() | float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array", "items": schema_of(value[0])} if value else {"type": "array"}
        case _:
            inner = {name: schema_of(part) for name, part in value.items()}
            return {"type": "object", "properties": inner}


def _limits(limits: Limits) -> Mapping[str, float]:
    return {
        "seconds": limits.seconds,
        "memory_bytes": limits.memory_bytes,
        "printed_bytes": limits.printed_bytes,
        "result_bytes": limits.result_bytes,
    }


class Panel:
    """An advisor, and an agent for the questions that want one: an advisor to whoever asks."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.prompts, self.registry = agent.prompts, agent.registry
        self.cassette = agent.cassette

    async def ask(self, question: Question, place: Place = unplaced) -> Reply:
        """As an advisor's."""
        asked = self._agent if question.agent else self._agent.advisor
        return await asked.ask(question, place)

    async def close(self) -> None:
        """Let go of what the advisor calls with."""
        await self._agent.close()
