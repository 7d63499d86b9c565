"""What a recorded replay leaves in the database, and that it is the run, whole and to the byte."""

from dataclasses import replace

import anyio
import numpy as np
import pytest
from journal_world import (
    STARTED,
    TABLES,
    begun,
    contents,
    desk,
    histories,
    plain_run,
    reasons,
    replayed,
    rows,
)
from sqlalchemy import Engine

from backtest.assemble import assemble
from backtest.replay import MemoryJournal, NoAdvisor, NoVenue, Tape
from backtest.run import Run
from core.errors import JournalError, UnknownName
from core.loop import run as run_loop
from core.model import ExitReason, Kind, Records, Result
from daemon.journal import (
    RunMode,
    begin_run,
    finish_run,
    last_settled_ms,
    list_runs,
    open_journal,
    read_events,
    read_outcomes,
    read_run_row,
    record_run,
    remove_run,
    resume_run,
    row_of,
    write_run,
)
from risk.gate import Rule

pytestmark = pytest.mark.usefixtures("closing")

TRAIL = """
    SELECT count(*) FROM fills AS f
    JOIN orders AS o ON o.run_id = f.run_id AND o.order_id = f.order_id
    JOIN risk_checks AS c ON c.run_id = o.run_id AND c.order_id = o.order_id AND c.approved
    JOIN signals AS s ON s.run_id = f.run_id AND s.decision = f.decision
    WHERE o.decision = f.decision AND c.decision = f.decision
        AND s.seq <= c.seq AND c.seq = o.seq AND o.seq < f.seq
"""


@pytest.fixture
def recorded(journal_url: str) -> tuple[Engine, Run]:
    engine = open_journal(journal_url)
    return engine, replayed(begun(engine))


def of(run: Run, kind: Result) -> Records:
    return run.outcomes[run.outcomes["kind"] == kind]


def test_sums_of_the_rows_are_the_totals_of_the_run(recorded: tuple[Engine, Run]) -> None:
    engine, run = recorded
    fills, funding, trades = (of(run, kind) for kind in (Result.FILL, Result.FUNDING, Result.TRADE))
    realised, fees, paid = (
        int(told[name].sum())
        for told, name in (
            (fills, "amount_micros"),
            (fills, "fee_micros"),
            (funding, "amount_micros"),
        )
    )
    sums = "SELECT sum(fills), sum(realised_micros), sum(fees_micros), sum(funding_micros)"
    assert rows(engine, f"{sums}, sum(net_micros) FROM positions") == [
        (len(fills), realised, fees, paid, realised - fees - paid)
    ]
    earned, charged = (int(trades[name].sum()) for name in ("amount_micros", "fee_micros"))
    told = rows(engine, "SELECT count(*), sum(net_micros), sum(fee_micros) FROM trades")
    assert told == [(len(trades), earned, charged)]
    costs = tuple(int(fills[name].sum()) for name in ("spread_micros", "slippage_micros"))
    assert rows(engine, "SELECT sum(spread_micros), sum(slippage_micros) FROM fills") == [costs]
    last = rows(engine, "SELECT equity_micros FROM equity ORDER BY seq DESC LIMIT 1")
    assert last == [(int(run.track["equity_micros"][-1]),)]
    assert rows(engine, "SELECT count(*) FROM modes") == [(len(of(run, Result.MODE)),)]


def test_the_last_settlement_of_each_instrument_is_found(recorded: tuple[Engine, Run]) -> None:
    engine, run = recorded
    settled = run.block[run.block["kind"] == Kind.FUNDING]
    told = {i: int(settled["ts_event"][settled["instrument"] == i].max()) for i in (0, 1)}
    assert last_settled_ms(engine, run.run_id, 2) == told
    assert last_settled_ms(engine, "another", 2) == {}


def test_every_intent_has_a_check_with_its_rule(recorded: tuple[Engine, Run]) -> None:
    engine, run = recorded
    told = dict(rows(engine, "SELECT rule, count(*) FROM risk_checks GROUP BY rule"))
    approved = told.pop(Rule.NONE.name.lower())
    assert approved == len(of(run, Result.APPROVED)) > 0
    assert told == run.refused
    assert len(told) > 1
    states = dict(rows(engine, "SELECT status, count(*) FROM order_states GROUP BY status"))
    assert sum(states.values()) == approved
    assert states["filled"] == len(of(run, Result.FILL)) - len(without_order(run))


def without_order(run: Run) -> Records:
    fills = of(run, Result.FILL)
    return fills[fills["order"] == 0]


def test_every_fill_leads_back_to_its_signal(recorded: tuple[Engine, Run]) -> None:
    engine, run = recorded
    own = without_order(run)
    assert len(own) > 0
    assert rows(engine, TRAIL) == [(len(of(run, Result.FILL)) - len(own),)]
    told = rows(
        engine, "SELECT exit, s.reason FROM fills JOIN signals AS s USING (run_id, decision)"
    )
    assert len(told) == len(of(run, Result.FILL))
    assert {"signal", "stop_loss"} == {exit_name for exit_name, _ in told}
    assert {"fast above slow", "fast below slow"} == {reason for _, reason in told}
    no_order = rows(engine, "SELECT DISTINCT exit FROM fills WHERE order_id IS NULL")
    assert no_order == [(ExitReason.STOP_LOSS.name.lower(),)]


def test_what_is_read_back_is_the_run_to_the_byte(recorded: tuple[Engine, Run]) -> None:
    engine, run = recorded
    block = read_events(engine, run.run_id)
    assert block.tobytes() == run.block.tobytes()
    assert read_outcomes(engine, run.run_id).tobytes() == run.outcomes.tobytes()

    carried = {name: history.fields for name, history in histories().items()}
    machine, memory = assemble(desk(), carried), MemoryJournal()
    anyio.run(run_loop, machine, Tape(block), memory, NoVenue(), NoAdvisor())
    again = replace(run, outcomes=memory.outcomes, digests=tuple(machine.digests))
    assert again.decisions_hash == plain_run().decisions_hash


def test_equity_holds_between_its_rows(recorded: tuple[Engine, Run]) -> None:
    engine, run = recorded
    told = rows(engine, "SELECT seq, equity_micros, notional_micros FROM equity ORDER BY seq")
    seqs, equity, notional = (np.array(column) for column in zip(*told, strict=True))
    assert 0 < len(seqs) < len(run.block)
    held = np.searchsorted(seqs, np.arange(1, len(run.block) + 1), side="right") - 1
    assert (equity[held] == run.track["equity_micros"]).all()
    assert (notional[held] == run.track["notional_micros"]).all()


def test_the_rows_do_not_depend_on_the_blocks(journal_url: str) -> None:
    engine = open_journal(journal_url)
    replayed(begun(engine))
    whole = contents(engine)
    remove_run(engine, plain_run().run_id)
    assert not any(contents(engine, (*TABLES, "runs", "books", "steps")).values())
    replayed(begun(engine), cuts=range(1, len(plain_run().block), 97))
    assert contents(engine) == whole


def test_a_run_is_resumed_where_it_stopped(journal_url: str) -> None:
    engine, run = open_journal(journal_url), plain_run()
    replayed(begun(engine))
    whole = contents(engine)
    remove_run(engine, run.run_id)

    stop = 5_000
    split = int(np.searchsorted(run.outcomes["seq"], stop, side="right"))
    halves = (slice(0, stop), slice(0, split)), (slice(stop, None), slice(split, None))
    begun(engine)
    for ours, theirs in halves:
        journal = resume_run(engine, run.run_id, reasons())
        anyio.run(journal.append, run.block[ours], run.outcomes[theirs], run.track[ours])
    assert journal.seq == len(run.block)
    assert contents(engine) == whole


def test_a_bulk_replay_leaves_one_row(journal_url: str) -> None:
    engine, run = open_journal(journal_url), plain_run()
    result = {"sharpe": np.float64(1.5), "profit_factor": float("inf"), "calmar": float("nan")}
    row = write_run(engine, run, started_ms=STARTED, finished_ms=STARTED + 9, result=result)
    assert [row] == list_runs(engine)
    assert row.result == {"sharpe": 1.5, "profit_factor": "inf", "calmar": None}
    assert (row.mode, row.recorded, row.decisions_hash) == ("replay", 0, run.decisions_hash)
    assert (row.config_hash, row.code, row.data) == (
        run.manifest.config,
        run.manifest.code,
        run.manifest.data,
    )
    assert [book.name for book in row.books] == [book.name for book in run.books]
    # the same again changes nothing, and it can be recorded later
    assert write_run(engine, run, started_ms=1, finished_ms=2) == row
    replayed(begun(engine))
    assert read_run_row(engine, run.run_id) == replace(row, recorded=len(run.block))


def test_equal_causes_must_have_equal_results(journal_url: str) -> None:
    engine, run = open_journal(journal_url), plain_run()
    replayed(begun(engine))
    assert read_run_row(engine, run.run_id).finished_ms is None
    write_run(engine, run, started_ms=STARTED, finished_ms=STARTED + 1)
    assert read_run_row(engine, run.run_id).decisions_hash == run.decisions_hash
    with pytest.raises(JournalError, match="equal causes must have equal results"):
        write_run(engine, replace(run, digests=(1, 2, 3, 4)), started_ms=1, finished_ms=2)


@pytest.mark.parametrize("stopped", [0, 2_000, 12_100])
def test_a_finished_replay_is_recorded_from_where_it_stopped(
    journal_url: str, stopped: int
) -> None:
    engine, run = open_journal(journal_url), plain_run()
    journal = begun(engine)
    told = run.outcomes[run.outcomes["seq"] <= stopped]
    anyio.run(journal.append, run.block[:stopped], told, run.track[:stopped])
    row = record_run(engine, run, started_ms=STARTED, finished_ms=STARTED + 1)
    assert (row.recorded, row.decisions_hash) == (len(run.block), run.decisions_hash)
    assert read_outcomes(engine, run.run_id).tobytes() == run.outcomes.tobytes()
    assert record_run(engine, run, started_ms=1, finished_ms=2) == row
    reasons_told = rows(engine, "SELECT DISTINCT reason FROM signals")
    assert sorted(reasons_told) == [("fast above slow",), ("fast below slow",)]


def test_a_recording_that_differs_is_not_gone_on_with(journal_url: str) -> None:
    engine, run = open_journal(journal_url), plain_run()
    journal = begun(engine)
    anyio.run(journal.append, run.block[:5_000], run.outcomes[:0], run.track[:5_000])
    with pytest.raises(JournalError, match="what is recorded of it differs"):
        record_run(engine, run, started_ms=1, finished_ms=2)


def test_a_run_begins_once_and_ends_once(journal_url: str) -> None:
    engine, run = open_journal(journal_url), plain_run()
    anyio.run(begun(engine).append, run.block[:10], run.outcomes[:0], run.track[:10])
    with pytest.raises(JournalError, match=f"lockstep journal remove {run.run_id}"):
        begun(engine)
    finish_run(engine, run.run_id, finished_ms=STARTED)
    with pytest.raises(JournalError, match="has ended already"):
        finish_run(engine, run.run_id, finished_ms=STARTED)
    with pytest.raises(UnknownName, match=f"did you mean '{run.run_id}'"):
        read_run_row(engine, run.run_id[:-1])


def test_only_a_replay_may_be_removed(journal_url: str) -> None:
    engine, run = open_journal(journal_url), plain_run()
    live = replace(row_of(run, started_ms=STARTED), run_id="desk", mode=RunMode.LIVE)
    begin_run(engine, live, reasons())
    with pytest.raises(JournalError, match="run desk is live"):
        remove_run(engine, "desk")
    begun(engine)
    remove_run(engine, run.run_id)
    assert [row.run_id for row in list_runs(engine)] == ["desk"]
