"""E3 behind an AI gate, live on paper through the real Ollama client, and its equal replay."""

from collections.abc import AsyncIterator
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from advised import PROMPTS, Sums, registry_of
from shelf import shelf_setup, shelf_world
from sqlalchemy import Engine, select
from standin_http import Fault
from standin_ollama import StandinOllama

from backtest.advice import Advised
from backtest.assemble import Setup
from backtest.recorded import replay_recorded
from backtest.replay import Source, replay_block
from backtest.run import Run, decisions_hash
from core.engine import Advice
from core.errors import LockstepError
from core.model import MARKET_FIELDS, Records, Result, Verdict
from daemon.journal import open_journal, read_events, read_outcomes, read_run_row, sqlite_url
from daemon.journal.database import transaction
from daemon.journal.schema import calls
from daemon.live.advising import LiveAdvisor
from daemon.live.service import Service, open_service, paper_row, run_service
from daemon.supervisor import Task
from forecasting.advisor import Advisor
from forecasting.budget import Budget, Limits
from forecasting.caller import Caller
from forecasting.cassette import Cassette
from forecasting.clients import open_clients
from markets.history import merge
from strategies.e3 import E3

BARS = 900
CARRIED = frozenset(MARKET_FIELDS)


def setup() -> Setup:
    """The shelf's E3, whose every entry wants consent."""
    shelf = shelf_setup("e3")
    advice = Advice(model="local", answer_ms_max=30_000)
    books = tuple(changed(entry, book=changed(entry.book, advice=advice)) for entry in shelf.books)
    return changed(shelf, books=books)


def tape() -> Records:
    return merge(list(shelf_world("e3", BARS).values()))


def opinion(body: dict[str, Any]) -> str:
    """It agrees with every other long and with no short."""
    asked = body["messages"][-1]["content"]
    side = "long" if "wants to be: long" in asked and len(asked) % 2 else "flat"
    return f'{{"side":"{side}","confidence":0.8,"rationale":"so","evidence":[]}}'


class UnhurriedTape:
    """The tape a moment at a time: the next comes when every question is settled, for the minutes
    between bars are longer than a model thinks."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __aiter__(self) -> AsyncIterator[Records]:
        events, journal = tape(), self._service.journal
        for block in np.split(events, np.flatnonzero(np.diff(events["ts_known"])) + 1):
            ahead = journal.seq + len(block)
            yield block
            while journal.seq < ahead or self._service.inbox.waiting or self._open():
                await anyio.lowlevel.checkpoint()
        self._service.stop()
        await anyio.sleep_forever()

    def _open(self) -> bool:
        return bool(self._service.engine.arrays["positions"]["asked"].any())


def live(database: Engine, folder: Path, standin: StandinOllama) -> None:
    """Play the tape through the service, asking the stand-in."""
    row = paper_row("paper", setup(), started_ms=0)
    carried = {instrument.name: CARRIED for instrument in setup().instruments}
    service = open_service(setup(), carried, database, row, lambda: 0)

    async def scene() -> None:
        async with standin.open():
            registry = registry_of(standin.url)
            budget = Budget(Limits(), Sums(), "paper", lambda: 0)
            caller = Caller(registry, open_clients(registry, {}), budget)
            advisor = LiveAdvisor(service, asking(folder, standin.url, caller))
            with anyio.fail_after(60):
                await run_service(
                    service,
                    UnhurriedTape(service),
                    advisor=advisor,
                    wrap=advisor.wrap,
                    edges=lambda _: [Task("advisor", advisor.run)],
                )
            await advisor.close()

    anyio.run(scene)


def asking(folder: Path, url: str = "http://none", caller: Caller | None = None) -> Advisor:
    return Advisor(
        prompts=PROMPTS, registry=registry_of(url), cassette=Cassette(folder), caller=caller
    )


def replayed(folder: Path) -> Run:
    """The same events with the cassette alone."""
    carried = {instrument.name: CARRIED for instrument in setup().instruments}
    return replay_block(setup(), tape(), carried, Source(), advisor=Advised(asking(folder)))


@pytest.mark.slow
def test_live_and_replay_agree_and_a_second_replay_makes_no_call(tmp_path: Path) -> None:
    database = open_journal(sqlite_url(tmp_path / "j.sqlite"))
    faults = [None, None, Fault.PROSE, None, Fault.NAN, None, None, Fault.INVALID_JSON]
    standin = StandinOllama(model=opinion, faults=iter(faults))
    live(database, tmp_path / "cassette", standin)
    outcomes = read_outcomes(database, "paper")
    heard = {Verdict(int(row["rule"])) for row in outcomes[outcomes["kind"] == Result.OPINION]}
    assert {Verdict.AGREED, Verdict.DISAGREED, Verdict.MALFORMED} <= heard
    assert (outcomes["kind"] == Result.TRADE).any()

    asked = len(standin.requests)
    run = replayed(tmp_path / "cassette")
    # an answer that comes after the last event is beyond a replay's end
    within = outcomes[outcomes["ts"] <= int(tape()["ts_known"][-1])]
    assert decisions_hash(run.digests, within) == run.decisions_hash
    assert replayed(tmp_path / "cassette").decisions_hash == run.decisions_hash
    assert len(standin.requests) == asked

    with transaction(database) as connection:
        rows = connection.execute(select(calls)).all()
    assert len(rows) == (outcomes["kind"] == Result.QUESTION).sum() == asked
    assert {row.outcome for row in rows} == {"ok", "malformed"}
    assert all(row.messages and row.raw and row.prompt_hash for row in rows)

    next((tmp_path / "cassette").rglob("*.json")).unlink()
    with pytest.raises(LockstepError, match="holds no call"):
        replayed(tmp_path / "cassette")


@pytest.mark.slow
def test_the_journal_alone_reproduces_an_advised_run(tmp_path: Path) -> None:
    database = open_journal(sqlite_url(tmp_path / "j.sqlite"))
    live(database, tmp_path / "cassette", StandinOllama(model=opinion))
    config = read_run_row(database, "paper").config
    again = replay_recorded(config, read_events(database, "paper"), {"e3": E3}.__getitem__)
    assert again.outcomes.tobytes() == read_outcomes(database, "paper").tobytes()
