"""A stand-in for OpenAI's chat completions, as strict about schemas as the strictest server."""

from dataclasses import dataclass, field
from typing import Any

from standin_http import Fault, StandinHttp

KEY = "sk-standin"
MODEL = "gpt-standin"
REFUSED = frozenset({"minimum", "maximum", "maxLength", "minLength", "maxItems", "pattern"})


@dataclass(eq=False)
class StandinOpenAI(StandinHttp):
    """``usage`` is what it says a call took: tokens in and out, or None to keep silent about it.

    With ``refusal`` the model declines in these words.
    """

    usage: tuple[int, int] | None = (120, 30)
    refusal: str = ""
    spent: list[tuple[int, int]] = field(default_factory=list)

    def answer(self, path: str, body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        if self.heads[-1].get("authorization") != f"bearer {KEY}":
            return 401, {"error": {"message": "Incorrect API key provided"}}
        if path != "/v1/chat/completions" or body["model"] != MODEL:
            return 404, {"error": {"message": "not found"}}
        wanted = body["response_format"]["json_schema"]
        if not wanted["strict"] or not strict(wanted["schema"]):
            return 400, {"error": {"message": "Invalid schema for response_format"}}
        message = {"role": "assistant", "content": self.content(body, fault), "refusal": None}
        if self.refusal:
            message |= {"content": None, "refusal": self.refusal}
        finish = "length" if fault is Fault.CUT else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        reply = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL}
        if self.usage:
            tokens_in, tokens_out = self.usage
            self.spent.append(self.usage)
            counts = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
            reply["usage"] = counts | {"total_tokens": tokens_in + tokens_out}
        return 200, reply | {"choices": [choice]}


def strict(schema: Any) -> bool:
    """Every object closed, every key required, no bound anywhere."""
    if isinstance(schema, list):
        return all(strict(inner) for inner in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        closed = schema.get("additionalProperties") is False
        whole = set(schema.get("required", [])) == set(schema["properties"])
        return closed and whole and all(strict(one) for one in schema["properties"].values())
    return not REFUSED & set(schema) and all(strict(inner) for inner in schema.values())
