"""A stand-in for an Ollama server: chat with a format and streaming, its models, and faults."""

from dataclasses import dataclass
from typing import Any

from standin_http import Fault, StandinHttp

MODEL = "llama3.1:8b"
TOKENS_IN, TOKENS_OUT = 120, 30
_STAMP = "2025-05-04T00:00:00.000000000Z"


@dataclass(eq=False)
class StandinOllama(StandinHttp):
    """It refuses what the real one refuses: an unknown model, and a format that is no schema."""

    def answer(self, path: str, body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        if path == "/api/tags":
            return 200, {"models": [{"model": MODEL, "modified_at": _STAMP, "size": 4_700_000_000}]}
        if body.get("model") != MODEL:
            return 404, {"error": f"model '{body.get('model')}' not found"}
        if path == "/api/show":
            return 200, {"modelfile": "", "details": {"family": "llama"}, "model_info": {}}
        if path != "/api/chat":
            return 404, {"error": "not found"}
        form = body.get("format")
        if form is not None and form != "json" and "properties" not in form:
            return 400, {"error": "invalid format"}
        return 200, self._chat(body, fault)

    def _chat(self, body: dict[str, Any], fault: Fault | None) -> Any:
        content = self.content(body, fault)
        last = {
            "done": True,
            "done_reason": "length" if fault is Fault.CUT else "stop",
            "total_duration": 1_000_000,
            "prompt_eval_count": TOKENS_IN,
            "eval_count": TOKENS_OUT,
        }
        if not body.get("stream"):
            return _part(body, content) | last
        half = len(content) // 2
        return [_part(body, content[:half]), _part(body, content[half:]), _part(body, "") | last]


def _part(body: dict[str, Any], content: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"model": body["model"], "created_at": _STAMP, "message": message, "done": False}
