"""What is asked of a model, and all that may come back: closed types, the same live and in replay.

How probable an event is and how sure the model is of its own answer are different numbers, and
stand in different fields everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Side: TypeAlias = Literal["long", "short", "flat"]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Regime: TypeAlias = Literal[
    "unknown", "trend_up", "trend_down", "range", "high_volatility", "crash"
]
RATIONALE_CHARS_MAX, EVIDENCE_MAX, CODE_CHARS_MAX = 2_000, 16, 20_000


class Message(NamedTuple):
    """One turn of a conversation; ``role`` is system, user or assistant."""

    role: str
    text: str


class Text(NamedTuple):
    """Something read from outside, by an id that an answer may cite as evidence."""

    id: str
    text: str


class Answer(BaseModel):
    """Base of what a model may answer. Every field is required, no other key is taken."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    def cited(self) -> tuple[str, ...]:
        """Ids of the texts it rests on; each must have been in the prompt."""
        return ()


class Opinion(Answer):
    """What to do in one instrument, and how sure the model is of it.

    On an event contract long is YES and short is NO. ``confidence`` in [0, 1] says nothing about
    how probable YES is.
    """

    side: Side
    confidence: Fraction
    rationale: Annotated[str, Field(max_length=RATIONALE_CHARS_MAX)]
    evidence: Annotated[tuple[str, ...], Field(max_length=EVIDENCE_MAX)]

    def cited(self) -> tuple[str, ...]:
        return self.evidence


class Forecast(Opinion):
    """An opinion that also states ``probability``, the chance of YES, in [0, 1]."""

    probability: Fraction


class Program(Answer):
    """Python that decides a question, and what it was meant to do; it runs in a sandbox alone."""

    plan: Annotated[str, Field(max_length=RATIONALE_CHARS_MAX)]
    code: Annotated[str, Field(min_length=1, max_length=CODE_CHARS_MAX)]


class Proposal(Answer):
    """Rules to trade by, as the text of a JSON object, and the reading of the market behind it."""

    regime: Regime
    confidence: Fraction
    insight: Annotated[str, Field(max_length=RATIONALE_CHARS_MAX)]
    rules: Annotated[str, Field(min_length=2, max_length=CODE_CHARS_MAX)]


SCHEMAS: Mapping[str, type[Answer]] = {
    "opinion": Opinion,
    "forecast": Forecast,
    "program": Program,
    "proposal": Proposal,
}
"""Answers by the name a prompt asks for. Whoever composes an Advisor may give it more."""


class Outcome(StrEnum):
    """How a question ended; only OK has an answer."""

    OK = "ok"
    MALFORMED = "malformed"  # the reply is not what the schema and the question allow
    CUT = "cut"  # the reply was longer than it may be, and ends in the middle
    DECLINED = "declined"  # the model will not answer
    TIMEOUT = "timeout"
    THROTTLED = "throttled"  # 429 until patience ended, or a pause longer than that
    CONNECTION = "connection"  # unreachable, reset, or cut off before the reply was whole
    HTTP_ERROR = "http_error"
    REFUSED_BUDGET = "refused_budget"  # not asked: no money, or no price, for it


@dataclass(slots=True, kw_only=True)
class Question:
    """One question of the loop.

    ``id`` is unique and never reused; ``ts`` (unix ms, UTC) is when it was raised; ``side`` is what
    the strategy wants. ``prompt`` is ``name`` or ``name/version``; ``context`` fills its
    placeholders. ``sample`` tells apart questions that are asked several times. ``turns`` go on a
    conversation, see :meth:`after`. An ``agent`` is wanted to decide it by a program.
    """

    id: str
    book: str
    instrument: str
    ts: int
    side: Side
    model: str
    prompt: str
    context: Mapping[str, Any]
    sample: int = 0
    turns: tuple[Message, ...] = ()
    agent: bool = False

    def after(self, reply: "Reply", complaint: str) -> "Question":
        """The same question, having shown the model its reply and what is wrong with it."""
        turns = (Message("assistant", reply.raw), Message("user", complaint))
        return replace(self, turns=self.turns + turns)


@dataclass(slots=True, kw_only=True)
class Reply:
    """How a question ended, with everything an audit asks for, failures included.

    ``latency_ms`` runs from the question to its end, waiting and retries included: an opinion is
    known at ``question.ts + latency_ms``. ``cost_micros`` counts every attempt. ``prompt`` is
    ``name/version`` and ``arms`` the weights it was drawn by, if it was. ``key`` is the call's
    place in the cassette. ``contaminated``: the model may have read of what came after ``ts``.
    """

    question: Question
    outcome: Outcome
    reason: str
    answer: Answer | None
    model: str
    prompt: str
    prompt_hash: str
    arms: Mapping[str, int]
    key: str
    messages: tuple[Message, ...]
    raw: str
    latency_ms: int
    tokens_in: int
    tokens_out: int
    cost_micros: int
    attempts: int
    contaminated: bool
    replayed: bool = field(compare=False)
