"""An agent's programs at Daytona, as a person has them run: paid for from the money of the run."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from advised import served
from cli_calls import call, desk, refuse, shop
from standin_daytona import API_KEY, StandinDaytona
from standin_ollama import MODEL, StandinOllama

from forecasting.sandbox import Sandbox, SandboxUnavailable, choose
from forecasting.sandbox.local import Local

__all__ = ["desk", "shop"]

pytestmark = pytest.mark.usefixtures("desk")
KEY = {"LOCKSTEP__MODELS__KEYS__DAYTONA_KEY": API_KEY}
# 0.99 dollars for the longest life there can be
PRICE = """
[sandboxes.daytona]
asked_on = 2026-11-21
vcpu_usd_per_hour = 3
memory_usd_per_gib_hour = 0.6
disk_usd_per_gib_hour = 0.12
"""


@pytest.fixture(scope="module")
def inside() -> Sandbox:
    """What the stand-in runs code in."""

    async def proven() -> Sandbox:
        return await choose({wall: Local(wall) for wall in ("bubblewrap", "landlock")})

    try:
        return anyio.run(proven)
    except SandboxUnavailable as error:
        pytest.skip(f"the stand-in has nowhere to run code: {error}")


def programming(body: dict[str, Any]) -> str:
    """A program that takes what the strategy wants; asked directly it would fail the test."""
    assert "code" in body["format"]["properties"]
    code = "def decide(context):\n    return dict(side=context['side'], confidence=0.9, "
    return json.dumps({"plan": "agree", "code": f"{code}rationale='so', evidence=[])\n"})


def profile(folder: Path, model_url: str, daytona_url: str, *, price: str = PRICE) -> Path:
    models = folder / "models.toml"
    models.write_text(
        f'[services.near]\nprotocol = "ollama"\nurl = "{model_url}"\npaid = false\n'
        f"requests_per_minute = 600000\n"
        f'[models.local]\nservice = "near"\nid = "{MODEL}"\n{price}'
    )
    path = folder / "agents.toml"
    path.write_text(
        f'[models]\nfile = "models.toml"\nsandboxes = ["daytona"]\n'
        f'daytona_url = "{daytona_url}/api"\nrun_usd = 0.995\nday_usd = 5.0\n'
        "[strategies.trend]\nparams = { fast = 5, slow = 20 }\n"
        '[strategies.trend.advice]\nmodel = "local"\nagent = true\nanswer_s_max = 600\n'
    )
    return path


@pytest.mark.slow
def test_sandboxes_are_paid_for_until_the_money_of_the_run_is_gone(
    shop: Path, tmp_path: Path, inside: Sandbox
) -> None:
    daytona = StandinDaytona(inside)
    with served(StandinOllama(model=programming)) as model, served(daytona):
        path = profile(tmp_path, model.url, daytona.url)
        words = ("replay", "--config", path, "--data", shop / "SOL-PERP.feather", "--json")
        told = call(*words, "--record", "--to-journal", **KEY)
        made = len(daytona.created)
        again = call(*words)
    assert (told.code, again.code) == (0, 0), (told.err, again.err)
    advice = told.json["advice"]
    assert {"agreed", "over_budget"} <= advice["verdicts"].keys()
    # the proof before the first question costs as well
    assert made == 1 + advice["verdicts"]["agreed"] == len(daytona.created)
    assert daytona.sandboxes == {}
    assert again.json["decisions_hash"] == told.json["decisions_hash"]
    with closing(sqlite3.connect("journal.sqlite")) as journal:
        spent = journal.execute("SELECT micros FROM spending WHERE scope LIKE 'day%'").fetchall()
        costs = journal.execute("SELECT cost_micros, outcome FROM calls").fetchall()
    assert sum(micros for micros, outcome in costs if outcome == "ok") == sum(m for m, _ in costs)
    assert 1_100 <= sum(micros for micros, _ in costs) <= spent[0][0] - 1_100
    assert advice["cost_usd"] == sum(micros for micros, _ in costs) / 10**6


def test_without_a_price_or_a_key_or_money_no_sandbox_is_made(
    shop: Path, tmp_path: Path, inside: Sandbox
) -> None:
    daytona = StandinDaytona(inside)
    with served(daytona):
        path = profile(tmp_path, "http://127.0.0.1:9", daytona.url)
        words = ("replay", "--config", path, "--data", shop / "SOL-PERP.feather", "--record")
        assert "its daytona_key is nowhere" in refuse(2, *words)
        poor = refuse(2, *words, "--set", "models.run_usd=0.98", **KEY)
        assert "daytona: run replay at " in poor
        assert "990000 micros wanted, 980000 of 980000 left" in poor
        profile(tmp_path, "http://127.0.0.1:9", daytona.url, price="")
        assert "declares no price for it: add [sandboxes.daytona]" in refuse(2, *words, **KEY)
    assert daytona.created == []
