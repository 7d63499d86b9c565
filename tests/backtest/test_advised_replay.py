"""A replay with a model in it: recorded once, then the same bytes with nobody to call."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from advised import PROMPTS, RICH, Sums, agreeing, registry_of, served
from advised import START as LLM_START
from standin_ollama import StandinOllama
from worlds import NO_LIMITS, one_book, play, walk

from backtest.advice import Advised
from backtest.run import Run
from core.engine import Advice
from core.errors import LockstepError, UnknownName
from core.model import Result, Verdict
from forecasting.advisor import Advisor
from forecasting.agents import Agent, Decided, Panel
from forecasting.budget import Budget
from forecasting.caller import Caller
from forecasting.cassette import Cassette
from forecasting.clients import open_clients
from forecasting.sandbox import Sandbox, SandboxUnavailable, choose
from forecasting.sandbox.local import Local
from forecasting.sandbox.walls import WALLS
from strategies.trend import TREND

HISTORY = walk(600, seed=5)


def run_with(
    folder: Path,
    url: str = "",
    *,
    advice: Advice | None = None,
    masked: bool = False,
    sandbox: Sandbox | None = None,
) -> tuple[Run, Advised]:
    """Record from a server, or replay from the cassette alone."""
    registry = registry_of(url or "http://none")
    budget = Budget(RICH, Sums(), "test", lambda: LLM_START)
    caller = Caller(registry, open_clients(registry, {}), budget) if url else None
    advisor = Advisor(prompts=PROMPTS, registry=registry, cassette=Cassette(folder), caller=caller)
    advised = Advised(Panel(Agent(advisor, sandbox)), masked=masked)
    setup = one_book(
        TREND,
        params={"fast": 5, "slow": 20},
        limits=NO_LIMITS,
        book={"advice": advice or Advice(model="local")},
    )
    return play(HISTORY, setup, advisor=advised), advised


def test_a_recorded_replay_is_had_again_without_a_call_and_a_lost_entry_fails(
    tmp_path: Path,
) -> None:
    with served(StandinOllama(model=agreeing)) as standin:
        recorded, first = run_with(tmp_path, standin.url)
        calls = len(standin.requests)
    verdicts = {Verdict(int(row["rule"])) for row in recorded.of(Result.OPINION)}
    assert verdicts == {Verdict.AGREED, Verdict.DISAGREED}
    assert calls == len(recorded.of(Result.QUESTION)) == len(first.replies) > 10
    assert all(trade["quantity"] > 0 for trade in recorded.trades)

    again, second = run_with(tmp_path)
    assert again.decisions_hash == recorded.decisions_hash
    assert again.outcomes.tobytes() == recorded.outcomes.tobytes()
    assert all(reply.replayed for reply in second.replies)

    next(tmp_path.rglob("*.json")).unlink()
    with pytest.raises(LockstepError, match=r"holds no call .* --record"):
        run_with(tmp_path)


def test_a_slow_answer_is_late_in_replay_too(tmp_path: Path) -> None:
    with served(StandinOllama(model=agreeing, think_s=0.05)) as standin:
        run, _ = run_with(tmp_path, standin.url, advice=Advice(model="local", answer_ms_max=10))
    assert {Verdict(int(row["rule"])) for row in run.of(Result.OPINION)} == {Verdict.LATE}
    assert len(run.of(Result.FILL)) == 0


def test_the_masked_control_tells_no_ticker_no_date_and_no_price(tmp_path: Path) -> None:
    def told(masked: bool) -> tuple[list[str], Run]:
        with served(StandinOllama(model=agreeing)) as standin:
            run, _ = run_with(tmp_path / str(masked), standin.url, masked=masked)
            return [body["messages"][-1]["content"] for body in standin.requests], run

    (shown, run), (hidden, control) = told(masked=False), told(masked=True)
    assert all("Instrument: X\n" in text and "2025-05-04" in text for text in shown)
    assert all("Instrument: ASSET-1\n" in text and "2025" not in text for text in hidden)
    # a model that goes by the side alone gains nothing by knowing the rest
    assert control.trades["price"].tolist() == run.trades["price"].tolist()


@pytest.mark.parametrize(
    ("advice", "meant"),
    [
        (Advice(model="locul"), "local"),
        (Advice(model="local", prompt="ai_gat"), "ai_gate"),
        (Advice(model="local", prompt="forecast/v0"), "v1"),
    ],
)
def test_a_model_or_prompt_nobody_declared_is_refused_by_name(
    tmp_path: Path, advice: Advice, meant: str
) -> None:
    with pytest.raises(UnknownName, match=f"did you mean '{meant}'"):
        run_with(tmp_path, advice=advice)


def programming(body: dict[str, Any]) -> str:
    """Asked for a program, it writes one that likes longs; asked directly, it would refuse."""
    if "code" not in body["format"]["properties"]:
        return agreeing(body)
    code = (
        "def decide(context):\n"
        "    side = 'long' if context['side'] == 'long' else 'flat'\n"
        "    return {'side': side, 'confidence': 0.9, 'rationale': 'so', 'evidence': []}\n"
    )
    return json.dumps({"plan": "take longs", "code": code})


def test_an_agents_program_decides_and_the_replay_needs_neither_model_nor_sandbox(
    tmp_path: Path,
) -> None:
    try:
        sandbox = anyio.run(choose, {name: Local(name) for name in WALLS})
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
    advice = Advice(model="local", agent=True, answer_ms_max=60_000)
    with served(StandinOllama(model=programming)) as standin:
        recorded, _ = run_with(tmp_path, standin.url, advice=advice, sandbox=sandbox)
    verdicts = {Verdict(int(row["rule"])) for row in recorded.of(Result.OPINION)}
    assert verdicts == {Verdict.AGREED, Verdict.DISAGREED}
    assert all(trade["quantity"] > 0 for trade in recorded.trades)
    again, asked = run_with(tmp_path, advice=advice)
    assert again.decisions_hash == recorded.decisions_hash
    assert not any(reply.fallback for reply in asked.replies if isinstance(reply, Decided))
