"""What the journal refuses, each beside what it lets pass; and what a crash leaves behind."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from journal_world import STARTED, begun, contents, plain_run, reasons, replayed, rows
from sqlalchemy import Engine, text

from core.errors import JournalError
from core.model import EVENT, OUTCOME, TRACK, Command, Kind, Records, Result, joined
from daemon.journal import (
    Said,
    SqlJournal,
    begin_run,
    open_journal,
    read_commands,
    read_events,
    read_outcomes,
    resume_run,
    row_of,
    schema,
    sqlite_url,
)
from daemon.journal.database import transaction
from daemon.journal.projection import Names
from execution.sending import Ending
from risk.gate import Rule

pytestmark = pytest.mark.usefixtures("closing")

RUN = plain_run().run_id
ROOT = Path(__file__).resolve().parents[2]


def outcome(kind: Result, **fields: Any) -> Records:
    row = np.zeros(1, OUTCOME)
    row["seq"], row["kind"] = 1, kind
    for name, value in fields.items():
        row[name] = value
    return row


def events(count: int, **fields: Any) -> Records:
    block = np.zeros(count, EVENT)
    block["kind"] = Kind.BAR
    for name, value in fields.items():
        block[name] = value
    return block


def append(journal: SqlJournal, block: Records, *outcomes: Records) -> None:
    told = np.concatenate(outcomes) if outcomes else np.zeros(0, OUTCOME)
    anyio.run(journal.append, block, told, np.zeros(len(block), TRACK))


def test_a_command_and_who_gave_it_are_kept_together_or_not_at_all(
    journal_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_journal(journal_url)
    journal = begun(engine)
    journal.say(Said(who="ann", reason="odd prices"))
    halt = events(1, kind=Kind.COMMAND, command=Command.HALT)
    block = joined([events(1), halt, events(1)], EVENT)
    with monkeypatch.context() as patch:
        patch.setattr(schema.commands, "name", "commands_that_are_not_there")
        with pytest.raises(JournalError):
            append(journal, block)
    assert read_events(engine, RUN).size == 0
    assert journal.commands == ()
    append(journal, block)
    append(journal, halt)
    said = [(row.seq, row.word, row.who, row.reason) for row in read_commands(engine, RUN, 10)]
    assert said == [(2, "halt", "ann", "odd prices"), (4, "halt", "", "")]
    assert read_commands(engine, RUN, 1) == list(journal.commands[1:])
    assert list(resume_run(engine, RUN, reasons()).commands) == read_commands(engine, RUN, 10)


DECISION = outcome(Result.DECISION, decision=1, target=1.0, reason=1)
APPROVED = outcome(Result.APPROVED, decision=1, order=1, quantity=2.0)
REFUSED = outcome(Result.REFUSED, decision=1, rule=Rule.COOLDOWN, quantity=2.0)
FILL = outcome(Result.FILL, decision=1, order=1, quantity=2.0, position=2.0)
STOP = outcome(Result.FILL, decision=1, exit=2, quantity=-2.0)


@pytest.mark.parametrize(
    ("passes", "blocks"),
    [
        (
            [DECISION, APPROVED, FILL],
            [DECISION, APPROVED, outcome(Result.FILL, decision=1, order=9)],
        ),
        ([DECISION, APPROVED, FILL], [DECISION, REFUSED, FILL]),
        ([DECISION, APPROVED], [APPROVED]),
        ([DECISION, REFUSED], [DECISION, outcome(Result.REFUSED, decision=1, rule=Rule.NONE)]),
        ([DECISION, APPROVED], [DECISION, outcome(Result.APPROVED, decision=1, order=1, rule=3)]),
        ([DECISION, STOP], [DECISION, outcome(Result.FILL, decision=1, quantity=-2.0)]),
        ([DECISION, APPROVED], [DECISION, APPROVED, APPROVED]),
        ([DECISION], [DECISION, DECISION]),
        (
            [DECISION],
            [outcome(Result.DECISION, decision=1, book=3), outcome(Result.DECISION, book=9)],
        ),
        ([DECISION], [outcome(Result.DECISION, decision=1, seq=2)]),
    ],
    ids=[
        "fill of an order nobody made",
        "fill of a refused order",
        "check without its signal",
        "refusal without a rule",
        "approval with a rule",
        "signal's fill without an order",
        "order made twice",
        "decision told twice",
        "signal of a book there is not",
        "outcome of an event to come",
    ],
)
def test_a_row_needs_its_cause(
    journal_url: str, passes: list[Records], blocks: list[Records]
) -> None:
    engine = open_journal(journal_url)
    journal = begun(engine)
    journal._reasons.extend(journal._reasons * 2)  # the database is to refuse the unknown book
    with pytest.raises(JournalError) as refusal:
        append(journal, events(1), *blocks)
    assert "\n" not in str(refusal.value)
    assert rows(engine, "SELECT * FROM events") == []
    append(journal, events(1), *passes)
    assert read_outcomes(engine, RUN).tobytes() == b"".join(row.tobytes() for row in passes)


def test_an_event_is_recorded_once(journal_url: str) -> None:
    engine = open_journal(journal_url)
    first = begun(engine)
    second = resume_run(engine, RUN, [])
    append(first, events(3))
    with pytest.raises(JournalError):
        append(second, events(3))
    append(first, events(2))
    assert [seq for (seq,) in rows(engine, "SELECT seq FROM events")] == [1, 2, 3, 4, 5]


def test_an_order_tells_what_became_of_it(journal_url: str) -> None:
    engine = open_journal(journal_url)
    journal = begun(engine)
    orders = [outcome(Result.APPROVED, decision=1, order=k, quantity=-2.0) for k in range(1, 8)]
    append(journal, events(1), DECISION, *orders)
    part = {"decision": 1, "seq": 2, "quantity": -0.5, "price": 10.0, "fee_micros": 7}
    filled = [outcome(Result.FILL, order=k, position=-1, **part) for k in (1, 1, 1, 1, 2, 3, 4)]
    trimmed = outcome(Result.FILL, order=7, position=0.0, **part)
    ended = [outcome(Result.CANCELLED, decision=1, order=k, seq=2) for k in (3, 4, 5)]
    append(journal, events(1), *filled, trimmed, *ended)
    told = rows(engine, "SELECT order_id, status, filled_quantity FROM order_states ORDER BY 1")
    assert told == [
        (1, "filled", -2.0),
        (2, "working", -0.5),
        (3, "partly", -0.5),
        (4, "partly", -0.5),
        (5, "cancelled", 0.0),
        (6, "working", 0.0),
        (7, "filled", -0.5),
    ]
    price = rows(
        engine, "SELECT average_price, fee_micros, side FROM order_states ORDER BY order_id"
    )
    assert price[0] == (10.0, 28, "sell")


def test_why_an_order_ended_short_is_told_by_name(journal_url: str) -> None:
    engine = open_journal(journal_url)
    row = row_of(plain_run(), started_ms=STARTED)
    journal = begin_run(engine, row, reasons(), {6003: "InsufficientCollateral"})
    codes = (0, 6003, 6004, Ending.EXPIRED, -99)
    orders = [outcome(Result.APPROVED, decision=1, order=k) for k in range(len(codes))]
    ended = [
        outcome(Result.CANCELLED, decision=1, order=k, reason=code) for k, code in enumerate(codes)
    ]
    append(journal, events(1), DECISION, *orders, *ended)
    assert rows(engine, "SELECT code, reason FROM order_ends ORDER BY order_id") == [
        (0, "none"),
        (6003, "InsufficientCollateral"),
        (6004, "code 6004"),
        (-1, "expired"),
        (-99, "code -99"),
    ]


def test_what_is_missing_is_null_and_what_is_unknown_is_numbered(journal_url: str) -> None:
    engine = open_journal(journal_url)
    strange = outcome(Result.DECISION, decision=1, reason=77, price=np.nan, target=np.inf)
    blank = outcome(Result.REFUSED, decision=1, rule=1, price=np.nan, quantity=np.nan)
    append(begun(engine), events(1), strange, blank)
    told = rows(engine, "SELECT reason, price, target FROM signals")
    assert told == [("code 77", None, float("inf"))]
    assert rows(engine, "SELECT price, quantity, order_id FROM risk_checks") == [(None, None, None)]
    assert Names(lambda code: "known" if code == 1 else str([][code]))[1] == "known"


def test_an_append_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "journal.sqlite")
    journal, other = begun(open_journal(url)), open_journal(url)

    async def record(recorded: anyio.Event) -> None:
        await journal.append(events(1), DECISION, np.zeros(1, TRACK))
        recorded.set()

    async def race() -> None:
        recorded = anyio.Event()
        async with anyio.create_task_group() as group:
            with transaction(other, writes=True):
                group.start_soon(record, recorded)
                for _ in range(5):
                    await anyio.sleep(0.02)
                assert not recorded.is_set()
            with anyio.fail_after(10):
                await recorded.wait()

    anyio.run(race)
    assert journal.seq == 1


KILLED = """
    import os, signal, sys
    sys.path[:0] = [{here!r}, {root!r}]
    from journal_world import begun, replayed
    from daemon.journal import open_journal, writer

    calls, store = [], writer.add

    def add(connection, table, columns):
        store(connection, table, columns)
        if table.name == "risk_checks":
            calls.append(1)
            if len(calls) == {transaction}:
                os.kill(os.getpid(), signal.SIGKILL)

    class Told:
        def __init__(self, journal):
            self.journal = journal

        async def append(self, *step):
            await self.journal.append(*step)
            print(self.journal.seq, flush=True)

    writer.add = add
    replayed(Told(begun(open_journal({url!r}))), cuts=range(25, 12_000, 25))
"""


def start(url: str, transaction: int) -> subprocess.Popen[str]:
    """A process that records the replay in small blocks, tells every block that is durable, and
    kills itself inside a transaction."""
    code = KILLED.format(
        here=str(Path(__file__).parent), root=str(ROOT), url=url, transaction=transaction
    )
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("where", ["in a transaction", "anywhere"])
def test_a_crash_leaves_whole_transactions(journal_url: str, where: str) -> None:
    with start(journal_url, 40 if where == "in a transaction" else -1) as process:
        assert process.stdout is not None
        told = 0
        for line in process.stdout:
            told = int(line)
            if where == "anywhere" and told >= 1_500:
                process.kill()
                break
        process.wait(60)
    assert process.returncode == -signal.SIGKILL
    assert told > 0
    check_prefix(open_journal(journal_url), told)


def check_prefix(engine: Engine, told: int) -> None:
    """The journal holds at least what was called durable, and nothing by halves."""
    run = plain_run()
    block, outcomes = read_events(engine, RUN), read_outcomes(engine, RUN)
    assert told <= len(block) < len(run.block)
    assert block.tobytes() == run.block[: len(block)].tobytes()
    assert outcomes.tobytes() == run.outcomes[run.outcomes["seq"] <= len(block)].tobytes()
    tables = {Result.DECISION: "signals", Result.APPROVED: "orders", Result.FILL: "fills"}
    for kind, table in tables.items():
        count = int((outcomes["kind"] == kind).sum())
        assert rows(engine, f"SELECT count(*) FROM {table}") == [(count,)]
    assert rows(engine, "SELECT max(seq), sum(events) FROM steps") == [(len(block), len(block))]


def test_a_bulk_replay_does_not_pay_for_the_database() -> None:
    code = "import sys, daemon, backtest.replay; print('sqlalchemy' in sys.modules)"
    for more, told in (("", "False\n"), ("import daemon.journal; ", "True\n")):
        done = subprocess.run(
            [sys.executable, "-c", more + code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == told


def test_a_recorded_run_may_be_read_while_it_is_written(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "journal.sqlite")
    engine, reader = open_journal(url), open_journal(url)
    journal = begun(engine)
    with reader.connect() as connection:
        count = text("SELECT count(*) FROM events")
        assert connection.scalar(count) == 0
        append(journal, events(3))
        assert connection.scalar(count) == 0
    with reader.connect() as connection:
        assert connection.scalar(count) == 3


def test_two_recordings_of_one_run_are_equal(tmp_path: Path) -> None:
    told = []
    for name in ("one", "two"):
        engine = open_journal(sqlite_url(tmp_path / name))
        replayed(begun(engine))
        told.append(contents(engine))
    assert told[0] == told[1]
