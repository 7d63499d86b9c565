"""A strategy behind a model, as a person types it: recorded once, then replayed without a call."""

import sqlite3
from pathlib import Path

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
        first = succeed(*words, "--record-calls", "--masked").json
        asked = len(standin.requests)
        again = succeed(*words, "--record").json
        assert len(standin.requests) == asked
    assert first["advice"]["calls_made"] == first["advice"]["questions"] > 10
    assert again["advice"]["calls_made"] == 0
    assert again["decisions_hash"] == first["decisions_hash"]
    assert first["run_id"] == again["run_id"]
    assert {"agreed", "disagreed"} <= set(again["advice"]["verdicts"])
    assert first["control"]["gap"] == pytest.approx(0.0)
    with sqlite3.connect("journal.sqlite") as journal:
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
        data = ("--data", shop / "SOL-PERP.feather", "--record-calls", "--record", "--json")
        run = succeed("replay", "--config", path, *data).json["run_id"]
        words = ("what-if", run, "--config", path, "--json", "--set")
        asked = len(standin.requests)
        assert succeed(*words, "advice.confidence_min=0.7").json["equal"]
        assert len(standin.requests) == asked
        # entries that are refused lead to other questions than those on record
        surer = succeed(*words, "advice.confidence_min=0.95", "--record-calls").json
        standin.model = lambda body: agreeing(body).replace("long", "flat")
        missed = call(*words, "advice.model=other")
        swapped = succeed(*words, "advice.model=other", "--record-calls").json
        assert len(standin.requests) > asked
    assert not surer["equal"]
    assert (missed.code, "holds no call" in missed.err) == (3, True)
    assert not swapped["equal"]
    assert "did you mean 'model'" in refuse(2, *words[:-1], "--set", "advice.modell=other")
    assert "expected a number" in refuse(2, *words[:-1], "--set", "advice.confidence_min=much")


def test_bars_a_model_may_have_read_of_stay_out_of_the_headline(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather", "--json", "--record-calls")
    with served(StandinOllama(model=agreeing)) as standin:
        late = profile(tmp_path, standin.url, cutoff="2099-01-01")
        told = succeed("replay", "--config", late, *data).json
    assert told["sharpe"] is told["net_pnl"] is told["trades"] is None
    assert told["contaminated"]["trades"] > 0
    assert "no headline figures" in told["caveats"][0]
    assert told["advice"]["contaminated"] == told["advice"]["questions"]


def test_a_wrong_model_or_advice_is_one_clear_line(shop: Path, tmp_path: Path) -> None:
    data = ("--data", shop / "SOL-PERP.feather")
    path = profile(tmp_path, "http://127.0.0.1:9", advice="confidence_min = 2.0")
    assert "confidence_min" in refuse(2, "replay", "--config", path, *data)
    path.write_text(path.read_text().replace("confidence_min = 2.0", "consult = 'often'"))
    assert "not a duration" in refuse(2, "replay", "--config", path, *data)
    path = profile(tmp_path, "http://127.0.0.1:9")
    path.write_text(path.read_text().replace('model = "local"', 'model = "locla"'))
    assert "did you mean 'local'" in refuse(2, "replay", "--config", path, *data)
