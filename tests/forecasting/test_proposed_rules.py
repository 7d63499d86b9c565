"""Rules from a model: read by the product's own parser, mended by its errors, run by replay."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import anyio
import anyio.from_thread
import pytest
from advised import START, advised, question, replaying
from standin_http import Fault
from standin_ollama import MODEL, StandinOllama
from typer.testing import CliRunner

from daemon.commands.propose import figures
from daemon.main import app
from forecasting.cassette import Cassette
from forecasting.errors import CassetteMiss
from forecasting.questions import Outcome, Question, Regime
from forecasting.rules import Language, NoProposal, propose
from markets.export import write
from markets.synthetic import sample
from strategies import regimes

GOOD_RULES = {
    "conditions": {"entry": ["price > ma_20"], "exit": ["price < ma_20"]},
    "parameters": {"take_profit": 0.1, "stop_loss": 0.05},
}
BARS = 1_500


def said(rules: Any, **more: Any) -> str:
    text = rules if isinstance(rules, str) else json.dumps(rules)
    reading = {"regime": "trend_up", "confidence": 0.6, "insight": "it rises", "rules": text}
    return json.dumps(reading | more)


def model(*replies: str) -> Callable[[dict[str, Any]], str]:
    left: Iterator[str] = iter(replies)
    return lambda _body: next(left)


def asked() -> Question:
    context = {"instrument": "SOL-PERP", "time": START, "market": {"close": 151.25}}
    return question(prompt="rules", context=context)


def language(*errors: list[str]) -> Language:
    """A language whose check finds these errors, one list a proposal, and then none."""
    left = iter(errors)
    return Language(schema={"type": "object"}, about="a > b", check=lambda _rules: next(left, []))


@pytest.mark.anyio
async def test_rules_that_pass_are_taken_and_replay(tmp_path: Path) -> None:
    standin = StandinOllama(model=model(said(GOOD_RULES)))
    async with advised(tmp_path, standin) as advisor:
        proposed = await propose(advisor, asked(), language())
    assert proposed.rules == GOOD_RULES
    assert proposed.proposal.regime == "trend_up"
    assert len(proposed.replies) == 1
    told = standin.requests[0]["messages"][1]["content"]
    assert '{"type":"object"}' in told
    assert "a > b" in told
    again = await propose(replaying(tmp_path), asked(), language())
    assert again == proposed


@pytest.mark.anyio
async def test_errors_are_shown_at_most_twice(tmp_path: Path) -> None:
    replies = [said(GOOD_RULES, confidence=number / 10) for number in range(4)]
    standin = StandinOllama(model=model(*replies))
    async with advised(tmp_path, standin) as advisor:
        proposed = await propose(advisor, asked(), language(["first"], ["second", "third"]))
    assert len(proposed.replies) == 3
    assert proposed.proposal.confidence == 0.2
    last = [body["messages"][-1]["content"] for body in standin.requests]
    assert "first" in last[1]
    assert "second\nthird" in last[2]
    assert len(Cassette(tmp_path)) == 3
    standin = StandinOllama(model=model(*replies))
    async with advised(tmp_path / "worse", standin) as advisor:
        with pytest.raises(NoProposal, match="after 3 calls: 3"):
            await propose(advisor, asked(), language(["1"], ["2"], ["3"], []))
    assert len(standin.requests) == 3


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("Sure: buy low.", "not JSON"),
        (said("buy low"), "rules: not JSON"),
        (said("[1]"), "rules: not a JSON object"),
        (said('{"a": NaN}'), "NaN is not JSON"),
        (said('{"a": 1, "a": 2}'), "a key stands twice"),
        (said(GOOD_RULES, regime="sideways"), "regime"),
        (said(GOOD_RULES, leverage=100), "leverage"),
    ],
)
async def test_what_is_no_proposal_is_mended(tmp_path: Path, reply: str, told: str) -> None:
    standin = StandinOllama(model=model(reply, said(GOOD_RULES)))
    async with advised(tmp_path, standin) as advisor:
        proposed = await propose(advisor, asked(), language())
    assert proposed.rules == GOOD_RULES
    assert told in standin.requests[1]["messages"][-1]["content"]


@pytest.mark.anyio
async def test_a_model_that_fails_is_not_mended(tmp_path: Path) -> None:
    standin = StandinOllama(faults=iter([Fault.BAD_REQUEST]))
    async with advised(tmp_path, standin) as advisor:
        with pytest.raises(NoProposal, match=Outcome.HTTP_ERROR):
            await propose(advisor, asked(), language())
    assert len(standin.requests) == 1
    with pytest.raises(CassetteMiss):
        await propose(replaying(tmp_path / "none"), asked(), language())


def test_the_regimes_a_model_may_name_are_ours() -> None:
    assert set(get_args(Regime)) == {regime.name.lower() for regime in regimes.Regime}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market") / "SOL-PERP.feather"
    write(next(iter(sample(seed=7, bars=BARS).values())), path)
    return path


def test_figures_are_few_and_finite(market: Path) -> None:
    from daemon.commands.histories import read_history

    told = figures(read_history(market))
    assert told["bars"] == 240
    assert len(told["closes"]) == 48
    assert told["low"] <= told["close"] <= told["high"]
    assert 0 <= told["trend_strength"] <= 1
    assert len(json.dumps(told)) < 2_000


def call(code: int, *words: object) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr


def served(standin: StandinOllama, folder: Path, market: Path, code: int = 0, *more: object) -> str:
    """``lockstep propose --record`` against a stand-in that serves from another thread."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(standin.open()),
    ):
        models = folder / "models.toml"
        models.write_text(
            f'[services.ollama]\nprotocol = "ollama"\nurl = "{standin.url}"\npaid = false\n'
            f'[models.local]\nservice = "ollama"\nid = "{MODEL}"\ncutoff = 2023-12-31\n'
        )
        return call(code, *words(folder, market), "--record", *more)


def words(folder: Path, market: Path) -> list[object]:
    settings = {
        "models.file": folder / "models.toml",
        "paths.journal": f"sqlite:///{folder}/journal.db",
    }
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [
        "propose",
        *("--model", "local"),
        *("--data", market),
        *("--out", folder / "rules.json"),
        *("--cassette", folder / "cassette"),
        *sets,
        "--json",
    ]


def test_proposed_rules_run_in_a_replay(tmp_path: Path, market: Path) -> None:
    """The whole way: asked, mended by the parser's own words, written, replayed without a model."""
    strange = {"conditions": {"entry": ["price > magic_20"]}}
    lacking = {"conditions": {"entry": ["price > opinion"]}}
    standin = StandinOllama(model=model(said(strange), said(lacking), said(GOOD_RULES)))
    facts = json.loads(served(standin, tmp_path, market))
    assert (facts["regime"], facts["calls"], facts["replayed"]) == ("trend_up", 3, False)
    shown = [body["messages"][-1]["content"] for body in standin.requests]
    assert "unknown name 'magic_20'" in shown[1]
    assert "the data do not carry: opinion" in shown[2]
    assert json.loads((tmp_path / "rules.json").read_text()) == GOOD_RULES

    again = json.loads(call(0, *words(tmp_path, market), "--force"))
    assert again["replayed"]
    assert again["seal"] == facts["seal"]
    assert len(standin.requests) == 3

    rules = ("--rules", tmp_path / "rules.json", "--data", market)
    run = json.loads(call(0, "replay", *rules, "--runs", tmp_path / "runs", "--json"))
    assert run


def test_what_cannot_be_proposed_is_one_line(tmp_path: Path, market: Path) -> None:
    standin = StandinOllama(model=model(*[said("no rules")] * 3))
    assert "rules: not JSON" in served(standin, tmp_path, market, 1)
    assert not (tmp_path / "rules.json").exists()
    standin = StandinOllama()
    (tmp_path / "rules.json").write_text("{}")
    assert "add --force" in call(2, *words(tmp_path, market))
    (tmp_path / "rules.json").unlink()
    miss = call(3, *words(tmp_path, market)[:-1], "--sample", "1")
    assert "--record" in miss
    assert miss.count("\n") == 1
