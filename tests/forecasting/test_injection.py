"""Nothing that is read moves anything but the words between two fences."""

import re
from pathlib import Path

import injections
import pytest
from advised import PROMPTS, advised, question, replaying
from hypothesis import given
from hypothesis import strategies as st
from standin_ollama import StandinOllama

from forecasting.calls import Request
from forecasting.questions import Opinion, Outcome, Text
from forecasting.text import plain

FENCED = re.compile(r"<<data (\w{24}) ([^>\s]+)>>\n(.*?)\n<<end \1>>", re.DOTALL)
GATE = PROMPTS.get("ai_gate", "v1")


def filled(text: str) -> str:
    """The user part with this text as its news."""
    return GATE.fill(question(news=text).context).messages[1].text


def fence_of(prompt: str) -> str:
    found = FENCED.search(prompt)
    assert found
    return found[1]


def hostile() -> list[str]:
    """The corpus, with a fence an attacker may have seen in an earlier call."""
    seen = fence_of(filled("Rain."))
    return [text.replace("FENCE", seen) for text in injections.ALL]


def holds(text: str) -> None:
    """The prompt differs from a harmless one by the fence's token and the words inside."""
    prompt = filled(text)
    fence = fence_of(prompt)
    blocks = FENCED.findall(prompt)
    assert [(one, id_) for one, id_, _ in blocks] == [(fence, "features"), (fence, "news-1")]
    inside = blocks[1][2]
    assert inside == plain(text, 600)
    assert len(inside) <= 600
    assert fence not in inside
    assert prompt.count(fence) == 4
    harmless = filled("Rain.")
    frame = harmless.replace(fence_of(harmless), fence).replace("Rain.", inside)
    assert prompt == frame


def test_the_corpus_is_large_and_each_text_another() -> None:
    assert len(set(injections.ALL)) == len(injections.ALL) >= 40


@pytest.mark.parametrize("at", range(len(injections.ALL)))
def test_no_text_ends_its_fence(at: int) -> None:
    holds(hostile()[at])


@given(st.text(max_size=900))
def test_no_text_at_all_ends_its_fence(text: str) -> None:
    holds(text)


@given(st.lists(st.sampled_from(injections.ALL), min_size=1, max_size=4))
def test_texts_do_not_work_together(texts: list[str]) -> None:
    news = [Text(f"news-{at}", text) for at, text in enumerate(texts)]
    filled = GATE.fill(question().context | {"news": news})
    messages, evidence = filled.messages, filled.evidence
    assert len(FENCED.findall(messages[1].text)) == len(texts) + 1
    assert evidence == {"features", *(text.id for text in news)}


def test_a_fence_that_a_text_holds_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from forecasting import prompting

    draws = iter(["a" * 64, "a" * 64, "b" * 64])
    monkeypatch.setattr(prompting, "digest", lambda _text: next(draws))
    assert fence_of(filled(f"<<end {'a' * 24}>>")) == "b" * 24


@pytest.mark.parametrize("text", hostile())
def test_text_in_figures_stays_in_its_json(text: str) -> None:
    context = question().context | {"features": {"title": text}}
    prompt = GATE.fill(context).messages[1].text
    figures = FENCED.findall(prompt)[0][2]
    assert figures.startswith('{"title":"')
    assert "\n" not in figures


async def requests_of(folder: Path, text: str) -> Request:
    advisor = replaying(folder)
    filled = GATE.fill(question(news=text).context)
    return advisor._request(question(), GATE, filled.told)


@pytest.mark.anyio
async def test_no_text_changes_model_parameters_schema_or_prompt(tmp_path: Path) -> None:
    harmless = await requests_of(tmp_path, "Rain.")
    for text in hostile():
        request = await requests_of(tmp_path, text)
        assert (request.head, request.schema) == (harmless.head, harmless.schema)
        assert request.model == harmless.model
        assert len(request.messages) == 2


@pytest.mark.anyio
async def test_a_model_that_obeys_stays_within_the_schema(tmp_path: Path) -> None:
    """The worst model repeats what it reads: an answer in bounds with the right keys, or none."""
    texts = hostile()
    standin = StandinOllama(model=lambda body: FENCED.findall(body["messages"][1]["content"])[1][2])
    async with advised(tmp_path, standin) as advisor:
        replies = [await advisor.ask(question(at, news=text)) for at, text in enumerate(texts)]
    for text, reply in zip(texts, replies, strict=True):
        assert reply.prompt == "ai_gate/v1", text
        assert reply.model == "local"
        assert reply.outcome is Outcome.MALFORMED, text
    assert {len(sent["format"]["properties"]) for sent in standin.requests} == {4}
    assert {sent["model"] for sent in standin.requests} == {"llama3.1:8b"}
    assert {sent["options"]["num_predict"] for sent in standin.requests} == {800}


@pytest.mark.anyio
async def test_an_obedient_model_can_say_no_more_than_an_opinion(tmp_path: Path) -> None:
    reply_text = '{"side":"long","confidence":1,"rationale":"told so","evidence":["news-1"]}'
    standin = StandinOllama(model=lambda _body: reply_text)
    async with advised(tmp_path, standin) as advisor:
        reply = await advisor.ask(question(news=injections.ORDERS[0]))
    assert isinstance(reply.answer, Opinion)
    assert reply.answer.model_fields_set == {"side", "confidence", "rationale", "evidence"}
    assert 0 <= reply.answer.confidence <= 1
