"""``lockstep cassette`` through the command line, on a cassette recorded over sockets."""

import json
from pathlib import Path

import pytest
from advised import advised, question, replaying
from standin_http import Fault
from standin_ollama import StandinOllama
from typer.testing import CliRunner

from daemon.main import app
from forecasting.cassette import Kept, scan
from forecasting.errors import CassetteMiss
from forecasting.text import canonical, digest

pytestmark = pytest.mark.anyio


def call(code: int, *words: object) -> str:
    """What the command says: on stdout where it succeeds, on stderr where it must not."""
    result = CliRunner().invoke(app, ["cassette", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Four calls, of which two failed."""
    folder = tmp_path / "cassette"
    standin = StandinOllama(faults=iter([None, Fault.NAN, Fault.BAD_REQUEST, None]))
    async with advised(folder, standin) as advisor:
        for at in range(4):
            await advisor.ask(question(at))
    return folder


async def test_calls_are_listed_in_eighty_columns(folder: Path) -> None:
    told = call(0, "ls", folder)
    assert max(map(len, told.splitlines())) <= 80
    assert told.count("ai_gate/v1") == 4
    rows = json.loads(call(0, "ls", folder, "--failures", "--json"))
    assert {row["outcome"] for row in rows} == {"malformed", "http_error"}
    assert json.loads(call(0, "ls", folder, "--model", "other", "--json")) == []


async def test_a_sound_cassette_has_one_seal(folder: Path) -> None:
    facts = json.loads(call(0, "verify", folder, "--json"))
    advisor = replaying(folder)
    for at in range(4):
        await advisor.ask(question(at))
    assert facts == {"entries": 4, "seal": advisor.cassette.seal()}


async def test_damage_is_found_and_can_be_pruned(folder: Path) -> None:
    path = next(found.path for found in scan(folder) if isinstance(found, Kept))
    path.write_text(path.read_text().replace("e3", "e4"))
    assert "1 of 4 damaged" in call(3, "verify", folder)
    assert str(path.name) in call(3, "export", folder, folder / "out.jsonl")
    assert len(json.loads(call(0, "ls", folder, "--json"))) == 3
    call(0, "prune", folder, "--damaged")
    assert json.loads(call(0, "verify", folder, "--json"))["entries"] == 3


async def test_a_forged_call_is_found_by_its_key(folder: Path) -> None:
    kept = next(found for found in scan(folder) if isinstance(found, Kept))
    entry = kept.entry.model_dump(mode="json")
    body = canonical(entry | {"messages": [["system", "obey"], *entry["messages"][1:]]})
    kept.path.write_text(f'{{"digest":"{digest(body)}","entry":{body}}}\n')
    told = call(3, "verify", folder)
    assert "1 of 4 damaged" in told
    assert "another call than its key" in told


async def test_pruned_failures_are_missed_and_asked_anew(folder: Path) -> None:
    assert "2 entries would be deleted" in call(0, "prune", folder, "--failures", "--dry-run")
    assert len(json.loads(call(0, "prune", folder, "--failures", "--json"))["pruned"]) == 2
    advisor = replaying(folder)
    await advisor.ask(question(0))
    with pytest.raises(CassetteMiss):
        await advisor.ask(question(1))
    standin = StandinOllama()
    async with advised(folder, standin) as advisor:
        replies = [await advisor.ask(question(at)) for at in range(4)]
    assert len(standin.requests) == 2
    assert all(reply.answer for reply in replies)


async def test_everything_is_exported(folder: Path, tmp_path: Path) -> None:
    call(0, "export", folder, tmp_path / "calls.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert all(row["entry"]["messages"][0][0] == "system" for row in rows)
    assert "is there already" in call(2, "export", folder, tmp_path / "calls.jsonl")


async def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    for word in ("ls", "verify"):
        assert "is not a folder" in call(3, word, tmp_path / "none")
    assert "name what to prune" in call(2, "prune", tmp_path)
    assert "no such call" in call(0, "ls", tmp_path)
