"""The real client libraries over real sockets: every fault ends in a typed outcome."""

import socket
from pathlib import Path

import anyio
import pytest
from advised import Sums, advised, question
from standin_http import GOOD, Fault
from standin_ollama import MODEL, StandinOllama
from standin_openai import StandinOpenAI

from forecasting.prompting import FOLDER, Prompts
from forecasting.questions import Opinion, Outcome

pytestmark = pytest.mark.anyio
SERVICES = {"local": StandinOllama, "paid": StandinOpenAI}
ENDS = {
    Fault.HANG: Outcome.TIMEOUT,
    Fault.DRIP: Outcome.TIMEOUT,
    Fault.RESET: Outcome.CONNECTION,
    Fault.TRUNCATED: Outcome.CONNECTION,
    Fault.LENGTH_TOO_LONG: Outcome.CONNECTION,
    Fault.TOO_MANY: Outcome.THROTTLED,
    Fault.SERVER_ERROR: Outcome.HTTP_ERROR,
    Fault.BAD_REQUEST: Outcome.HTTP_ERROR,
    Fault.REDIRECT: Outcome.HTTP_ERROR,
    Fault.CUT: Outcome.CUT,
}
RETRIED = {
    Fault.RESET,
    Fault.TRUNCATED,
    Fault.LENGTH_TOO_LONG,
    Fault.TOO_MANY,
    Fault.SERVER_ERROR,
}


@pytest.mark.parametrize("model", SERVICES)
async def test_a_good_reply_is_an_answer_with_its_figures(tmp_path: Path, model: str) -> None:
    standin = SERVICES[model]()
    async with advised(tmp_path, standin) as advisor:
        reply = await advisor.ask(question(model=model))
    assert reply.outcome is Outcome.OK
    assert reply.answer == Opinion(side="long", confidence=0.7, rationale="it rises", evidence=())
    assert (reply.raw, reply.attempts, reply.replayed) == (GOOD, 1, False)
    assert (reply.tokens_in, reply.tokens_out) == (120, 30)
    assert reply.cost_micros == (96 if model == "paid" else 0)
    assert [message.role for message in reply.messages] == ["system", "user"]
    assert reply.prompt == "ai_gate/v1"


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("model", SERVICES)
async def test_every_fault_ends_in_a_typed_outcome(
    tmp_path: Path, model: str, fault: Fault
) -> None:
    standin = SERVICES[model](faults=iter([fault] * 3))
    with anyio.fail_after(20):
        patience_s = 1.2 if ENDS.get(fault) is Outcome.TIMEOUT else 10.0
        async with advised(tmp_path, standin, timeout_s=patience_s) as advisor:
            asked = question(model=model)
            reply, again = await advisor.ask(asked), await advisor.ask(asked)
    assert reply.outcome is ENDS.get(fault, Outcome.MALFORMED), reply.reason
    assert reply.answer is None
    assert reply.reason
    assert standin.endless_bytes < 20 * 2**20
    assert len(standin.requests) == (3 if fault in RETRIED else 1)
    assert again.replayed
    assert again == reply


@pytest.mark.parametrize("fault", sorted(RETRIED))
@pytest.mark.parametrize("model", SERVICES)
async def test_a_passing_failure_is_asked_again(tmp_path: Path, model: str, fault: Fault) -> None:
    standin = SERVICES[model](faults=iter([fault, fault]))
    async with advised(tmp_path, standin) as advisor:
        reply = await advisor.ask(question(model=model))
    assert (reply.outcome, reply.attempts) == (Outcome.OK, 3)


@pytest.mark.parametrize("model", SERVICES)
async def test_a_service_that_is_not_there_ends_in_an_outcome(tmp_path: Path, model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with advised(tmp_path, SERVICES[model](), url=nobody) as advisor:
        reply = await advisor.ask(question(model=model))
    assert (reply.outcome, reply.attempts) == (Outcome.CONNECTION, 3)
    assert "cannot be reached" in reply.reason
    assert reply.cost_micros == 0


@pytest.mark.parametrize("model", SERVICES)
@pytest.mark.parametrize("retry_after", ["1", "Sun, 04 May 2025 00:00:01 GMT"])
async def test_a_pause_is_kept_by_all_callers(tmp_path: Path, model: str, retry_after: str) -> None:
    standin = SERVICES[model](faults=iter([Fault.TOO_MANY]), retry_after=retry_after)
    async with advised(tmp_path, standin) as advisor, anyio.create_task_group() as tasks:
        tasks.start_soon(advisor.ask, question(0, model=model))
        with anyio.fail_after(5):
            await standin.asked.wait()
        await anyio.sleep(0.5)
        tasks.start_soon(advisor.ask, question(1, model=model))
    first, *later = standin.arrivals_s
    assert len(later) == 2
    assert min(later) - first >= 0.99


@pytest.mark.parametrize("model", SERVICES)
async def test_a_pause_beyond_the_deadline_fails_at_once(tmp_path: Path, model: str) -> None:
    standin = SERVICES[model](faults=iter([Fault.TOO_MANY]), retry_after="900")
    async with advised(tmp_path, standin) as advisor:
        with anyio.fail_after(5):
            replies = [await advisor.ask(question(at, model=model)) for at in range(2)]
    assert [reply.outcome for reply in replies] == [Outcome.THROTTLED] * 2
    assert len(standin.requests) == 1


async def test_the_request_says_what_the_registry_and_the_prompt_declare(tmp_path: Path) -> None:
    ollama, openai = StandinOllama(), StandinOpenAI()
    async with advised(tmp_path, ollama) as advisor:
        await advisor.ask(question(sample=3))
    sent = ollama.requests[0]
    options = {"temperature": 0.0, "seed": 10, "num_ctx": 8192, "num_predict": 800}
    assert (sent["model"], sent["stream"], sent["options"]) == (MODEL, False, options)
    assert sent["format"]["additionalProperties"] is False
    more = {"output_key": "max_tokens", "extra_body": {"provider": {"require_parameters": True}}}
    async with advised(tmp_path, openai, **more) as advisor:
        await advisor.ask(question(model="paid"))
    sent = openai.requests[0]
    assert (sent["max_tokens"], sent["provider"]) == (800, {"require_parameters": True})
    assert "max_completion_tokens" not in sent


@pytest.mark.parametrize("model", SERVICES)
@pytest.mark.parametrize(
    ("prompt", "given", "allowed"), [(2_500, 800, 2_500), (0, 800, 800), (2_500, 9_000, 9_000)]
)
async def test_a_prompt_whose_answer_is_long_is_allowed_more(
    tmp_path: Path, model: str, prompt: int, given: int, allowed: int
) -> None:
    """Asked for on the wire, held in the budget, part of the key, and named where it was not
    enough."""
    shipped = (FOLDER / "ai_gate" / "v1.toml").read_text()
    file = tmp_path / "prompts" / "ai_gate" / "v1.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f"output_tokens_max = {prompt}\n{shipped}")
    standin, sums = SERVICES[model](faults=iter([Fault.CUT, Fault.HANG])), Sums()
    async with advised(
        tmp_path / "cassette",
        standin,
        sums=sums,
        prompts=Prompts(tmp_path / "prompts"),
        output_tokens_max=given,
        timeout_s=1.0,
    ) as advisor:
        cut = await advisor.ask(question(0, model=model))
        lost = await advisor.ask(question(1, model=model))
        entry = advisor.cassette.get(cut.key)
    body = standin.requests[0]
    asked = body["options"]["num_predict"] if model == "local" else body["max_completion_tokens"]
    assert asked == allowed
    assert (cut.outcome, cut.answer, cut.raw) == (Outcome.CUT, None, GOOD)
    assert cut.reason == f"cut off at {allowed:,} tokens, the most it may write"
    assert entry is not None
    assert entry.head["output_tokens_max"] == allowed
    if model == "paid":
        # never answered: all that was held is spent, and the most it may write is in it
        sent = sum(len(message.text.encode()) for message in lost.messages)
        held = 0.4 * sent + 1.6 * allowed
        assert held < lost.cost_micros < held + 1_000


async def test_a_model_that_declines_is_told_from_one_that_fails(tmp_path: Path) -> None:
    standin = StandinOpenAI(refusal="I cannot help with trading.")
    async with advised(tmp_path, standin) as advisor:
        reply = await advisor.ask(question(model="paid"))
    assert (reply.outcome, reply.raw) == (Outcome.DECLINED, "I cannot help with trading.")


async def test_the_stand_in_speaks_the_rest_of_the_protocol() -> None:
    from ollama import AsyncClient, ResponseError

    standin = StandinOllama()
    async with standin.open(), AsyncClient(host=standin.url) as client:
        assert (await client.list()).models[0].model == MODEL
        assert (await client.show(MODEL)).details is not None
        parts = [part async for part in await client.chat(MODEL, [], stream=True)]
        assert "".join(part.message.content or "" for part in parts) == GOOD
        assert [part.done for part in parts] == [False, False, True]
        with pytest.raises(ResponseError, match="not found"):
            await client.chat("other", [])


@pytest.mark.parametrize("model", SERVICES)
async def test_a_conversation_goes_on_with_the_models_error(tmp_path: Path, model: str) -> None:
    standin = SERVICES[model](faults=iter([Fault.OUT_OF_RANGE]))
    async with advised(tmp_path, standin) as advisor:
        first = await advisor.ask(question(model=model))
        mended = await advisor.ask(first.question.after(first, first.reason))
    assert (first.outcome, mended.outcome) == (Outcome.MALFORMED, Outcome.OK)
    assert "confidence" in first.reason
    roles = [turn["role"] for turn in standin.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert standin.requests[1]["messages"][2]["content"] == first.raw
