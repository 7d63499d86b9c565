"""Rules from a model: a reading of the market, and from it rules in the language of the product.

Nothing a model writes here is code. Its rules are data that a parser reads, and what the parser
says against them is what the model is shown to mend them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import LockstepError
from forecasting.advisor import Advisor
from forecasting.parsing import RAW_CHARS_MAX
from forecasting.questions import Outcome, Proposal, Question, Reply, Text
from forecasting.text import any_json, canonical

REPAIRS_MAX = 2

Check = Callable[[Mapping[str, Any]], list[str]]
"""What is wrong with rules, nothing where they can be traded."""


class NoProposal(LockstepError):
    """A model brought no rules that can be traded; says what it failed at last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The rule language, as a model has to be told it: schema of the JSON, and of conditions."""

    schema: Mapping[str, Any]
    about: str
    check: Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """Rules that passed the check, what they rest on, and each reply on the way to them."""

    rules: Mapping[str, Any]
    proposal: Proposal
    replies: tuple[Reply, ...]

    @property
    def cost_micros(self) -> int:
        """What all the replies cost."""
        return sum(reply.cost_micros for reply in self.replies)


async def propose(
    advisor: Advisor, question: Question, language: Language, *, repairs_max: int = REPAIRS_MAX
) -> Proposed:
    """Ask for rules until they pass, at most so many times again.

    ``question.context`` has what the prompt wants but ``schema`` and ``language``. Raises
    NoProposal, and what an advisor raises.
    """
    told = {
        "schema": [Text("schema", canonical(language.schema))],
        "language": [Text("language", language.about)],
    }
    asked = replace(question, context=dict(question.context) | told)
    prompt, _ = advisor.prompt_of(asked)
    replies: list[Reply] = []
    for _ in range(1 + repairs_max):
        reply = await advisor.ask(asked)
        replies.append(reply)
        if isinstance(reply.answer, Proposal):
            rules, errors = _read(reply.answer.rules, language.check)
            if not errors:
                return Proposed(rules=rules, proposal=reply.answer, replies=tuple(replies))
        else:
            errors = [reply.reason]
        if not _mendable(reply):
            break
        asked = asked.after(reply, prompt.complain("\n".join(errors)))
    last = replies[-1].outcome if replies[-1].answer is None else "rules that cannot be traded"
    raise NoProposal(f"{question.model} gave {last} after {len(replies)} calls: {errors[0]}")


def _mendable(reply: Reply) -> bool:
    """Whether showing the model its reply can help."""
    written = reply.outcome in (Outcome.OK, Outcome.MALFORMED, Outcome.CUT)
    return written and len(reply.raw) <= RAW_CHARS_MAX


def _read(text: str, check: Check) -> tuple[Mapping[str, Any], list[str]]:
    try:
        rules = any_json(text)
    except (ValueError, RecursionError) as error:
        return {}, [f"rules: not JSON: {error}"]
    if not isinstance(rules, dict):
        return {}, ["rules: not a JSON object"]
    return rules, check(rules)
