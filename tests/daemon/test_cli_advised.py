"""A strategy behind a model, as a person types it: recorded once, then replayed without a call."""

import gc
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from advised import agreeing, served
from cli_calls import call, desk, refuse, shop, succeed
from standin_ollama import MODEL, StandinOllama

__all__ = ["desk", "shop"]

pytestmark = pytest.mark.usefixtures("desk")


def profile(folder: Path, url: str, *, cutoff: str = "2023-12-31", advice: str = "") -> Path:
    """Trend behind a gate, its model served at this address."""
    models = folder / "models.toml"
    models.write_text(
        f"""
[services.near]
protocol = "ollama"
url = "{url}"
paid = false
requests_per_minute = 600000
[models.local]
service = "near"
id = "{MODEL}"
cutoff = {cutoff}
"""
    )
    path = folder / "advised.toml"
    path.write_text(
        f"""
[models]
file = "models.toml"
[strategies.trend]
params = {{ fast = 5, slow = 20 }}
[strategies.trend.advice]
model = "local"
{advice}
"""
    )
    return path


def test_calls_are_recorded_once_and_then_a_replay_asks_nobody(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather", "--json")
    with served(StandinOllama(model=agreeing)) as standin:
        words = ("replay", "--config", profile(tmp_path, standin.url), *data)
        missed = call(*words)
        assert (missed.code, missed.out) == (3, "")
        assert "holds no call" in missed.err
        first = succeed(*words, "--record", "--masked").json
        asked = len(standin.requests)
        again = succeed(*words, "--to-journal").json
        assert len(standin.requests) == asked
    assert first["advice"]["calls_made"] == first["advice"]["questions"] > 10
    assert again["advice"]["calls_made"] == 0
    assert again["decisions_hash"] == first["decisions_hash"]
    assert first["run_id"] == again["run_id"]
    assert {"agreed", "disagreed"} <= set(again["advice"]["verdicts"])
    assert first["control"]["gap"] == pytest.approx(0.0)
    with closing(sqlite3.connect("journal.sqlite")) as journal, journal:
        calls = journal.execute("SELECT count(*) FROM calls WHERE outcome = 'ok'").fetchone()[0]
        questions = journal.execute("SELECT count(*) FROM questions").fetchone()[0]
    assert calls == questions == again["advice"]["questions"]
    journal.close()


def test_a_what_if_may_change_the_model_or_what_its_answers_must_be(
    shop: Path, tmp_path: Path
) -> None:
    with served(StandinOllama(model=agreeing)) as standin:
        path = profile(tmp_path, standin.url)
        models = tmp_path / "models.toml"
        first = models.read_text()
        other = first[first.index("[models.local]") :].replace("local", "other")
        models.write_text(f"{first}{other}parameters = {{ temperature = 0.5 }}\n")
        data = ("--data", shop / "SOL-PERP.feather", "--record", "--to-journal", "--json")
        run = succeed("replay", "--config", path, *data).json["run_id"]
        words = ("what-if", run, "--config", path, "--json", "--set")
        asked = len(standin.requests)
        assert succeed(*words, "advice.confidence_min=0.7").json["equal"]
        assert len(standin.requests) == asked
        # entries that are refused lead to other questions than those on record
        surer = succeed(*words, "advice.confidence_min=0.95", "--record").json
        standin.model = lambda body: agreeing(body).replace("long", "flat")
        missed = call(*words, "advice.model=other")
        swapped = succeed(*words, "advice.model=other", "--record").json
        assert len(standin.requests) > asked
    assert not surer["equal"]
    assert (missed.code, "holds no call" in missed.err) == (3, True)
    assert not swapped["equal"]
    assert "did you mean 'model'" in refuse(2, *words[:-1], "--set", "advice.modell=other")
    assert "expected a number" in refuse(2, *words[:-1], "--set", "advice.confidence_min=much")


def journaled(columns: str) -> list[tuple[Any, ...]]:
    """Columns of all calls in the journal."""
    with closing(sqlite3.connect("journal.sqlite")) as journal:
        return journal.execute(f"SELECT {columns} FROM calls").fetchall()


def programming(body: dict[str, Any]) -> str:
    """It takes longs by a program, and breaks on shorts; asked directly, it likes longs only."""
    if "code" not in body["format"]["properties"]:
        return agreeing(body)
    code = (
        "def decide(context):\n    assert context['side'] == 'long'\n    return dict(side='long', "
    )
    code += "confidence=0.9, rationale='so', evidence=[])\n"
    return json.dumps({"plan": "take longs", "code": code})


def test_how_a_prompt_was_drawn_and_what_an_agent_did_are_in_the_journal(
    shop: Path, tmp_path: Path
) -> None:
    data = ("--data", shop / "SOL-PERP.feather", "--json")
    with served(StandinOllama(model=programming)) as standin:
        path = profile(tmp_path, standin.url)
        path.write_text(path.read_text().replace("[models]", "[models]\narms.ai_gate.v1 = 3"))
        path.write_text(path.read_text() + "agent = true\nanswer_s_max = 600\n")
        words = ("replay", "--config", path, *data)
        answer = call(*words, "--record", "--to-journal")
    if "no sandbox for code" in answer.err:
        pytest.skip(answer.err)
    assert answer.code == 0, answer.err
    assert answer.json["advice"]["questions"] == len(journaled("question")) > 0
    for prompt, arms, agent in journaled("prompt, arms, agent"):
        told = json.loads(agent)
        assert prompt == ("ai_gate/v1" if told["fallback"] else "agent/v1")
        assert json.loads(arms) == ({"v1": 3} if told["fallback"] else {})
        assert (told["ends"] == ["ok"]) == bool(told["code_hash"]) == (not told["fallback"])
        assert len(told["steps"]) == (7 if told["fallback"] else 2)
    assert {json.loads(agent)["fallback"] for (agent,) in journaled("agent")} == {True, False}


def test_without_money_nobody_is_asked_and_the_result_says_so(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather", "--record", "--to-journal")
    with served(StandinOllama(model=agreeing)) as standin:
        path = profile(tmp_path, standin.url)
        models = tmp_path / "models.toml"
        price = "price = { input_usd_per_million = 1, output_usd_per_million = 1 }\n"
        models.write_text(models.read_text().replace("paid = false\n", "") + price)
        told = succeed("replay", "--config", path, *data).out
        assert standin.requests == []
        money = ("--set", "models.run_usd=0.01", "--set", "models.day_usd=1")
        failed = ("cassette", "prune", "cassette", "--failures")
        succeed(*failed)
        some = succeed("replay", "--config", path, *data, *money, "--json").json["advice"]
        paid = succeed("replay", "--config", path, *data).out
    assert "over_budget" in told
    assert f"({some['cost_usd']:.4f} USD)" in paid
    assert 0 < len(standin.requests) < some["questions"]
    assert some["verdicts"]["over_budget"] > 0
    assert 0 < some["cost_usd"] <= 0.01
    with closing(sqlite3.connect("journal.sqlite")) as journal:
        micros = journal.execute("SELECT sum(micros) FROM spending WHERE scope LIKE 'day%'")
        assert micros.fetchone()[0] == round(some["cost_usd"] * 10**6)
    assert {"refused_budget", "ok"} >= {outcome for (outcome,) in journaled("outcome")}


def open_journals() -> list[str]:
    """Files of a journal that this process holds open."""
    links = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return [str(link) for link in links if link.name.startswith("journal.sqlite")]


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which would close what was forgotten."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_every_way_out_closes_the_journal_of_the_money(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather", "--json")
    with served(StandinOllama(model=agreeing)) as standin:
        path = profile(tmp_path, standin.url)
        words = ("replay", "--config", path, *data, "--record")
        run = succeed(*words, "--to-journal", "--masked").json["run_id"]
        assert open_journals() == []
        changed = ("--set", "advice.confidence_min=0.95", "--record", "--json")
        succeed("what-if", run, "--config", path, *changed)
        assert open_journals() == []
        rules = ("--model", "local", *data, "--out", tmp_path / "rules.json", "--record")
        assert call("propose", "--config", path, *rules).code == 1  # it gave an opinion
        assert open_journals() == []
        # the sandbox is refused after the journal was opened
        path.write_text(path.read_text() + "agent = true\n")
        key = {"LOCKSTEP__MODELS__SANDBOXES": '["daytona"]'}
        assert "declares no price" in refuse(2, *words, **key)
        nowhere = {"LOCKSTEP__MODELS__SANDBOXES": "[]"}
        assert "no sandbox for code of a model" in refuse(2, *words, **nowhere)
        assert open_journals() == []
        # a question cannot be put, in the middle of the replay
        path.write_text(path.read_text().replace("agent = true", 'prompt = "ai_gate/v0"'))
        assert "did you mean 'v1'" in refuse(2, *words)
        assert open_journals() == []


def test_open_journals_are_seen(tmp_path: Path) -> None:
    """The proof that the test above can fail."""
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as journal:
        journal.execute("CREATE TABLE one (two)")
        assert open_journals()


def test_bars_a_model_may_have_read_of_stay_out_of_the_headline(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather", "--json", "--record")
    with served(StandinOllama(model=agreeing)) as standin:
        late = profile(tmp_path, standin.url, cutoff="2099-01-01")
        told = succeed("replay", "--config", late, *data).json
    assert told["sharpe"] is told["net_pnl"] is told["trades"] is None
    assert told["contaminated"]["trades"] > 0
    assert "no headline figures" in told["caveats"][0]
    assert told["advice"]["contaminated"] == told["advice"]["questions"]


def test_headline_figures_are_of_the_bars_beyond_the_cutoff(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather")
    with served(StandinOllama(model=agreeing)) as standin:
        words = ("replay", "--config", profile(tmp_path, standin.url, cutoff="2025-01-01"), *data)
        told = succeed(*words, "--record", "--masked").out
        result = succeed(*words, "--json").json
    assert 0 < result["trades"] < result["contaminated"]["trades"]
    assert result["net_pnl"] != result["contaminated"]["net_pnl"]
    assert 0 < result["advice"]["contaminated"] < result["advice"]["questions"]
    assert "96% of the events lie before 2025-01-02" in " ".join(told.split())
    assert "a gap of" in " ".join(told.split())


def test_the_manifest_seals_the_cassette(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather", "--json")
    with served(StandinOllama(model=agreeing)) as standin:
        path = profile(tmp_path, standin.url)
        kept = succeed("replay", "--config", path, *data, "--record").json["path"]
    manifest = json.loads((Path(kept) / "manifest.json").read_text())
    seal = succeed("cassette", "verify", "cassette", "--json").json["seal"]
    assert manifest["manifest"]["data"]["cassette"] == seal


def test_a_wrong_model_or_advice_is_one_clear_line(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather")
    path = profile(tmp_path, "http://127.0.0.1:9", advice="confidence_min = 2.0")
    assert "confidence_min" in refuse(2, "replay", "--config", path, *data)
    path.write_text(path.read_text().replace("confidence_min = 2.0", "consult = 'often'"))
    assert "not a duration" in refuse(2, "replay", "--config", path, *data)
    path = profile(tmp_path, "http://127.0.0.1:9")
    path.write_text(path.read_text().replace('model = "local"', 'model = "locla"'))
    assert "did you mean 'local'" in refuse(2, "replay", "--config", path, *data)
