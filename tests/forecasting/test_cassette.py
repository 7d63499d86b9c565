"""The cassette: what was recorded is served again, alike and at once, or fails loudly."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from advised import PROMPTS, advised, question, registry_of, replaying
from standin_http import Fault
from standin_ollama import StandinOllama

from forecasting.advisor import Advisor
from forecasting.cassette import Cassette, Entry
from forecasting.errors import CassetteDamaged, CassetteMiss
from forecasting.questions import Outcome, Reply
from forecasting.text import canonical, digest

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]
FAULTS = (None, Fault.NAN, Fault.BAD_REQUEST, None, Fault.PROSE)


async def record(folder: Path, calls: int = 5) -> list[Reply]:
    standin = StandinOllama(faults=iter(FAULTS))
    async with advised(folder, standin) as advisor:
        replies = [await advisor.ask(question(at)) for at in range(calls)]
    assert len(standin.requests) == calls
    return replies


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.json"))


async def test_a_replay_gives_the_same_replies_without_a_caller(tmp_path: Path) -> None:
    recorded = await record(tmp_path)
    asked = [reply.question for reply in recorded]
    advisor = replaying(tmp_path)
    replayed = [await advisor.ask(one) for one in asked]
    assert replayed == recorded
    assert all(reply.replayed for reply in replayed)
    assert [reply.outcome for reply in replayed] == [
        Outcome.OK,
        Outcome.MALFORMED,
        Outcome.HTTP_ERROR,
        Outcome.OK,
        Outcome.MALFORMED,
    ]


async def test_recording_again_asks_nobody(tmp_path: Path) -> None:
    await record(tmp_path)
    standin = StandinOllama()
    async with advised(tmp_path, standin) as advisor:
        for at in range(5):
            assert (await advisor.ask(question(at))).replayed
        assert not (await advisor.ask(question(5))).replayed
    assert len(standin.requests) == 1


async def test_a_call_that_is_missing_is_named(tmp_path: Path) -> None:
    replies = await record(tmp_path)
    (path,) = [path for path in files(tmp_path) if path.stem == replies[3].key]
    path.unlink()
    advisor = replaying(tmp_path)
    await advisor.ask(question(2))
    with pytest.raises(CassetteMiss) as missed:
        await advisor.ask(question(3))
    for told in (replies[3].key[:12], "e3-3", "SOL-PERP", "local", "ai_gate/v1", "--record"):
        assert told in str(missed.value)


async def test_whatever_changes_the_call_changes_its_key(tmp_path: Path) -> None:
    await record(tmp_path, calls=1)
    advisor = replaying(tmp_path)
    await advisor.ask(question(0))
    for other in (question(0, news="Sun."), question(0, sample=1), question(0, model="paid")):
        with pytest.raises(CassetteMiss):
            await advisor.ask(other)
    turned = question(0).after(await advisor.ask(question(0)), "no")
    with pytest.raises(CassetteMiss):
        await advisor.ask(turned)
    for change in ({"parameters": {"temperature": 0.1}}, {"output_tokens_max": 9}):
        tables = registry_of().model_dump(mode="json")
        tables["models"]["local"] |= change
        registry = type(registry_of()).parse(tables)
        other_advisor = Advisor(prompts=PROMPTS, registry=registry, cassette=Cassette(tmp_path))
        with pytest.raises(CassetteMiss):
            await other_advisor.ask(question(0))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace("it rises", "it falls", 1), "not what was written"),
        (lambda text: text.replace("long", "short", 1), "not what was written"),
        (lambda text: text.replace('"sample":0', '"sample":1'), "not what was written"),
        (lambda text: text.replace('"digest":"', '"digest":"0'), "not a whole entry"),
        (lambda text: text[:-20], "not a whole entry"),
        (lambda text: text[:-1], "not a whole entry"),
        (lambda _text: "", "not a whole entry"),
    ],
)
async def test_an_entry_that_was_altered_is_refused(tmp_path: Path, damage, told: str) -> None:  # type: ignore[no-untyped-def]
    await record(tmp_path, calls=1)
    (path,) = files(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(CassetteDamaged, match=told) as refused:
        Cassette(tmp_path)
    assert str(path) in str(refused.value)


async def test_an_entry_under_another_key_is_refused(tmp_path: Path) -> None:
    await record(tmp_path, calls=1)
    (path,) = files(tmp_path)
    path.rename(path.with_name(f"{'0' * 64}.json"))
    with pytest.raises(CassetteDamaged, match="key of another call"):
        Cassette(tmp_path)


async def test_an_entry_of_another_version_is_refused(tmp_path: Path) -> None:
    await record(tmp_path, calls=1)
    (path,) = files(tmp_path)
    entry = json.loads(path.read_text())["entry"]
    body = canonical(entry | {"mood": "fine"})
    path.write_text(f'{{"digest":"{digest(body)}","entry":{body}}}\n')
    with pytest.raises(CassetteDamaged, match="entry of another version"):
        Cassette(tmp_path)


async def test_the_seal_is_of_what_a_run_used(tmp_path: Path) -> None:
    await record(tmp_path)
    first, second = replaying(tmp_path), replaying(tmp_path)
    empty = first.cassette.seal()
    for at in (0, 1, 2):
        await first.ask(question(at))
        await second.ask(question(2 - at))
    assert first.cassette.seal() == second.cassette.seal() != empty
    await second.ask(question(3))
    assert first.cassette.seal() != second.cassette.seal()


async def test_the_same_call_at_once_is_one_call(tmp_path: Path) -> None:
    standin = StandinOllama(think_s=0.1)
    async with advised(tmp_path, standin) as advisor, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(advisor.ask, question())
    assert len(standin.requests) == 1
    assert len(files(tmp_path)) == 1


async def test_latency_is_recorded_and_given_again(tmp_path: Path) -> None:
    async with advised(tmp_path, StandinOllama(think_s=0.3)) as advisor:
        reply = await advisor.ask(question())
    assert 300 <= reply.latency_ms < 5_000
    assert (await replaying(tmp_path).ask(question())).latency_ms == reply.latency_ms


async def test_a_half_written_entry_is_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_fd: int) -> None:
        raise KeyboardInterrupt

    await record(tmp_path / "whole", calls=1)
    entry = next(iter(Cassette(tmp_path / "whole")._kept.values())).entry
    cassette = Cassette(tmp_path / "half")
    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        cassette.add(entry)
    monkeypatch.undo()
    assert [path for path in (tmp_path / "half").rglob("*") if path.is_file()] == []
    cassette.add(entry)
    assert Cassette(tmp_path / "half").get(entry.key) == entry


async def test_an_entry_holds_all_an_audit_asks_for(tmp_path: Path) -> None:
    (reply,) = await record(tmp_path, calls=1)
    entry = Entry.model_validate(json.loads(files(tmp_path)[0].read_text())["entry"])
    assert entry.messages == reply.messages
    assert (entry.raw, entry.prompt_hash) == (reply.raw, reply.prompt_hash)
    assert entry.head["model"] == "llama3.1:8b"
    assert entry.head["schema"]["title"] == "Opinion"


async def test_an_opinion_from_the_cassette_costs_microseconds(tmp_path: Path) -> None:
    """Ten thousand questions, each its own call, from question to reply."""
    calls = 10_000
    await record(tmp_path, calls=1)
    template = next(iter(Cassette(tmp_path)._kept.values())).entry
    advisor = replaying(tmp_path)
    asked = [question(at) for at in range(calls)]
    gate = advisor.prompts.get("ai_gate", "v1")
    for one in asked[1:]:
        filled = gate.fill(one.context)
        key, messages = advisor._key(one, gate, filled.told), filled.messages
        kept = advisor.cassette._kept[template.key]
        entry = template.model_copy(update={"key": key, "messages": messages})
        advisor.cassette._kept[key] = kept._replace(entry=entry)
    ratios, costs_us, batch = [], [], 500
    for at in range(0, calls, batch):
        began = time.thread_time()
        for one in asked[at : at + batch]:
            await advisor.ask(one)
        asked_s, began = time.thread_time() - began, time.thread_time()
        for _ in range(batch):
            digest(canonical(json.loads(canonical(template.messages))))
        ratios.append(asked_s / (time.thread_time() - began))
        costs_us.append(asked_s / batch * 1e6)
    assert len(advisor.cassette.used) == calls
    # the yardstick costs 10 us where nothing else runs, so this is 50 us without the noise
    assert statistics.median(ratios) < 5, (ratios, costs_us)
    print(f"{min(costs_us):.1f} us, {statistics.median(ratios):.2f} times the yardstick")


def test_a_replay_does_not_pay_for_the_clients() -> None:
    code = "import sys, forecasting.advisor, daemon.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert {"openai", "ollama", "httpx", "httpx2"}.isdisjoint(done.stdout.split())
