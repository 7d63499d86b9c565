"""E3 behind an AI gate, live on paper through the real Ollama client, and its equal replay."""

from collections.abc import AsyncIterator
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from advised import PROMPTS, Sums, agreeing, registry_of
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import shelf_setup, shelf_world
from sqlalchemy import Engine, select
from standin_http import Fault
from standin_ollama import StandinOllama
from worlds import one_book, walk

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
from daemon.live.advising import LiveAdvisor, Turns
from daemon.live.service import Service, open_service, paper_row, run_service
from daemon.supervisor import Task
from forecasting.advisor import Advisor
from forecasting.agents import Agent, Panel
from forecasting.budget import Budget, Limits
from forecasting.caller import Caller
from forecasting.cassette import Cassette, Kept, scan
from forecasting.clients import open_clients
from forecasting.sandbox import End, Ran
from markets.history import merge
from strategies.e3 import E3
from strategies.trend import TREND

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

    def __init__(self, service: Service, events: Records) -> None:
        self._service, self._events = service, events

    async def __aiter__(self) -> AsyncIterator[Records]:
        events, journal = self._events, self._service.journal
        for block in np.split(events, np.flatnonzero(np.diff(events["ts_known"])) + 1):
            ahead = journal.seq + len(block)
            yield block
            while journal.seq < ahead or self._service.inbox.waiting or self._open():
                await anyio.lowlevel.checkpoint()
        self._service.stop()
        await anyio.sleep_forever()

    def _open(self) -> bool:
        return bool(self._service.engine.arrays["positions"]["asked"].any())


def live(
    database: Engine,
    folder: Path,
    standin: StandinOllama,
    plan: Setup | None = None,
    events: Records | None = None,
) -> None:
    """Play the tape through the service, asking the stand-in, or a cassette that knows all."""
    plan, events = plan or setup(), tape() if events is None else events
    row = paper_row("paper", plan, started_ms=0)
    carried = {instrument.name: CARRIED for instrument in plan.instruments}
    service = open_service(plan, carried, database, row, lambda: 0)

    async def scene() -> None:
        async with standin.open():
            registry = registry_of(standin.url)
            budget = Budget(Limits(), Sums(), "paper", lambda: 0)
            caller = Caller(registry, open_clients(registry, {}), budget)
            asked = asking(folder, standin.url, caller)
            advisor = LiveAdvisor(service, Panel(Agent(asked, Agreeing())))
            with anyio.fail_after(60):
                await run_service(
                    service,
                    UnhurriedTape(service, events),
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


def replayed(folder: Path, plan: Setup | None = None, events: Records | None = None) -> Run:
    """The same events with the cassette alone."""
    plan, events = plan or setup(), tape() if events is None else events
    carried = {instrument.name: CARRIED for instrument in plan.instruments}
    advisor = Advised(Panel(Agent(asking(folder), None)))
    return replay_block(plan, events, carried, Source(), advisor=advisor)


class Agreeing:
    """A sandbox in which every program answers the same at once."""

    name = "agreeing"

    async def available(self) -> str | None:
        return None

    async def run(self, _code: str, _context: bytes, _limits: Any) -> Ran:
        said = '{"side":"long","confidence":0.9,"rationale":"so","evidence":[]}'
        return Ran(end=End.OK, result=said, seconds=0.004)


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


def agent_beside_gate() -> tuple[Setup, Records]:
    """Two books of one strategy: an agent decides for the first, a gate for the second, and so
    they ask at the same moments."""
    world, plan = walk(400, seed=5), one_book(TREND, params={"fast": 5, "slow": 20})
    advice = Advice(model="local", answer_ms_max=30_000)
    books = tuple(
        changed(
            plan.books[0],
            book=changed(plan.books[0].book, name=name, advice=changed(advice, agent=agent)),
        )
        for name, agent in (("agent", True), ("gate", False))
    )
    return changed(plan, books=books), world.events


def programming(body: dict[str, Any]) -> str:
    if "code" in body["format"]["properties"]:
        return '{"plan":"none","code":"pass"}'
    return agreeing(body)


def retimed(old: Path, new: Path) -> None:
    """The cassette as it is, but every call and every agent took 20 ms."""
    latencies_ms = {"opinion": 20, "program": 15, None: 5}
    cassette = Cassette(new)
    for found in scan(old):
        assert isinstance(found, Kept)
        latency_ms = latencies_ms[found.entry.head.get("schema_name")]
        cassette.add(found.entry.model_copy(update={"latency_ms": latency_ms}))


@pytest.mark.slow
def test_an_agent_and_a_gate_due_at_once_are_heard_in_one_order_live_and_in_replay(
    tmp_path: Path,
) -> None:
    plan, events = agent_beside_gate()
    at_once, standin = [], StandinOllama(model=programming)
    for name in ("measured", "due_at_once"):
        database, folder = open_journal(sqlite_url(tmp_path / f"{name}.sqlite")), tmp_path / name
        if name == "due_at_once":
            retimed(tmp_path / "measured", folder)
        live(database, folder, standin, plan, events)
        outcomes = read_outcomes(database, "paper")
        heard = outcomes[outcomes["kind"] == Result.OPINION]
        assert {Verdict(int(rule)) for rule in heard["rule"]} >= {Verdict.AGREED}
        turns = heard[["ts", "order"]].tolist()
        assert turns == sorted(turns)
        at_once.append(len(turns) - len(set(heard["ts"].tolist())))
        run = replayed(folder, plan, events)
        within = outcomes[outcomes["ts"] <= int(events["ts_known"][-1])]
        assert decisions_hash(run.digests, within) == run.decisions_hash
    assert at_once[1] > 5


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)),
        min_size=2,
        max_size=8,
    )
)
def test_however_answers_come_they_are_heard_by_when_they_are_due_then_by_number(
    answers: list[tuple[int, int, int, int]],
) -> None:
    heard: list[tuple[int, int]] = []

    async def wait(turns: int) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()

    async def answer(turns: Turns, number: int, times: tuple[int, int, int, int]) -> None:
        due_ms, call, recording, journaling = times
        await wait(call)
        turn = max(due_ms, turns.earliest_ms(number)), number
        turns.take(turn)
        await wait(recording)
        async with turns.hear(turn):
            await wait(journaling)
            heard.append(turn)

    async def scene() -> None:
        turns = Turns()
        async with anyio.create_task_group() as group:
            for number, times in enumerate(answers):
                group.start_soon(answer, turns, number, times)

    anyio.run(scene)
    assert heard == sorted(heard)
    assert len(heard) == len(answers)
