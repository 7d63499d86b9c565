"""The trial ledger in both databases: what it counts, and every way to make it forget."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from backtest.validation.ledger import (
    GENESIS,
    Ending,
    Fate,
    Head,
    Ledger,
    LedgerBroken,
    Trial,
)
from core.errors import JournalError
from daemon.journal import open_journal
from daemon.journal.trials import trial_ledger

ROOT = Path(__file__).resolve().parents[2]
LEASE_MS = 60_000

APPEND = """
import sys
from backtest.validation.ledger import Ending, Fate, Trial
from daemon.journal import open_journal
from daemon.journal.trials import trial_ledger
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
ledger = trial_ledger(open_journal(url))
print("ready", flush=True)
sys.stdin.readline()
for k in range(count):
    while k == 1 and ledger.history().count < 2:
        pass  # until the other has begun too
    id = f"{name}-{k}"
    trial = Trial(id=id, study="s", params_hash="p", strategy_hash="x", data_hash="d", code="c")
    ledger.begin([trial], now_ms=k, lease_ms=60_000)
    ledger.end([Ending(trial=id, fate=Fate.RESULT, returns_hash=name)], now_ms=k)
"""


@pytest.fixture
def engine(journal_url: str) -> Iterator[Engine]:
    engine = open_journal(journal_url)
    yield engine
    engine.dispose()


def trial(name: str, study: str = "study") -> Trial:
    return Trial(
        id=name, study=study, params_hash=f"p{name}", strategy_hash="s", data_hash="d", code="c"
    )


def ended(name: str, fate: Fate = Fate.RESULT, **more: str) -> Ending:
    return Ending(trial=name, fate=fate, **more)


def filled(engine: Engine) -> Ledger:
    """Six rows: three trials that began, then ended each in its own way."""
    ledger = trial_ledger(engine)
    ledger.begin([trial("a"), trial("b"), trial("c")], now_ms=1_000, lease_ms=LEASE_MS)
    ledger.end([ended("a", returns_hash="ra")], now_ms=2_000)
    ledger.end([ended("b", Fate.PRUNED), ended("c", Fate.FAILED, note="broke")], now_ms=3_000)
    return ledger


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_every_trial_counts_whatever_became_of_it(engine: Engine) -> None:
    ledger = filled(engine)
    ledger.begin([trial("d", "other")], now_ms=4_000, lease_ms=LEASE_MS)
    history = ledger.history()
    assert history.count == 4
    assert history.running == ("d",)
    assert [history.endings[name].fate for name in "abc"] == ["result", "pruned", "failed"]
    assert history.endings["c"].note == "broke"
    assert history.trials["a"] == trial("a")
    assert set(history.results("study")) == {"a"}
    assert history.results("other") == {}


def test_a_new_ledger_is_empty_and_whole(engine: Engine) -> None:
    assert trial_ledger(engine).history().head == Head(0, GENESIS)
    assert trial_ledger(engine).history([Head(0, GENESIS)]).count == 0


def test_a_ledger_is_opened_again_where_it_was(engine: Engine, journal_url: str) -> None:
    head = filled(engine).head()
    again = open_journal(journal_url)
    assert trial_ledger(again).history([head]).head == head
    again.dispose()


TAMPERED = {
    "row 3 is missing, row 4 follows": ["DELETE FROM trial_ledger WHERE seq = 3"],
    "row 2 (trial b) was altered": ["UPDATE trial_ledger SET study = 'x' WHERE seq = 2"],
    "row 4 (trial a) was altered": ["UPDATE trial_ledger SET ts_ms = 1 WHERE seq = 4"],
    "row 5 (trial b) was altered": ["UPDATE trial_ledger SET fate = 'result' WHERE seq = 5"],
    "row 1 (trial b) was altered": [
        "UPDATE trial_ledger SET seq = 99 WHERE seq = 1",
        "UPDATE trial_ledger SET seq = 1 WHERE seq = 2",
        "UPDATE trial_ledger SET seq = 2 WHERE seq = 99",
    ],
    "rows 5 to 6 were cut from its end": ["DELETE FROM trial_ledger WHERE seq > 4"],
    "rows 1 to 6 were cut from its end": ["DELETE FROM trial_ledger"],
    "the row that says where it ends is gone": ["DELETE FROM trial_ledger_head"],
    "row 5 is not the one that was sealed": ["UPDATE trial_ledger_head SET count = 5"],
}


def test_what_was_tampered_with_is_refused_by_its_row(engine: Engine) -> None:
    for told, statements in TAMPERED.items():
        ledger = filled(engine)
        change(engine, *statements)
        with pytest.raises(LedgerBroken) as refused:
            ledger.history()
        assert told in str(refused.value)
        change(engine, "DROP TABLE trial_ledger", "DROP TABLE trial_ledger_head")


def cut(engine: Engine) -> None:
    """Cut the last two rows, and mend the head as one who knows the schema would."""
    change(
        engine,
        "DELETE FROM trial_ledger WHERE seq > 4",
        "UPDATE trial_ledger_head SET count = 4,"
        " hash = (SELECT hash FROM trial_ledger WHERE seq = 4)",
    )


def rewrite(engine: Engine) -> None:
    """Write the whole ledger anew with one trial less."""
    change(
        engine,
        "DELETE FROM trial_ledger",
        f"UPDATE trial_ledger_head SET count = 0, hash = '{GENESIS}'",
    )
    ledger = trial_ledger(engine)
    ledger.begin([trial("a"), trial("b")], now_ms=1_000, lease_ms=LEASE_MS)
    ledger.end([ended("a", returns_hash="ra"), ended("b", Fate.PRUNED)], now_ms=2_000)
    ledger.begin([trial(str(k)) for k in range(9)], now_ms=1_000, lease_ms=LEASE_MS)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [(cut, "rows 5 to 6 were cut from its end"), (rewrite, "row 6 is not the one that was sealed")],
)
def test_a_head_kept_elsewhere_finds_what_the_database_cannot(
    engine: Engine, tamper: Callable[[Engine], None], told: str
) -> None:
    ledger = filled(engine)
    sealed = ledger.head()
    assert ledger.history([sealed]).count == 3
    tamper(engine)
    ledger.history()
    with pytest.raises(LedgerBroken, match=told):
        ledger.history([sealed])


def test_an_older_seal_still_holds_after_more_was_written(engine: Engine) -> None:
    ledger = filled(engine)
    sealed = ledger.head()
    ledger.begin([trial("z")], now_ms=9_000, lease_ms=LEASE_MS)
    assert ledger.history([sealed]).count == 4


def test_a_trial_begins_once_and_ends_once(engine: Engine) -> None:
    ledger = filled(engine)
    head = ledger.head()
    with pytest.raises(JournalError, match="trial a began before"):
        ledger.begin([trial("n"), trial("a")], now_ms=5_000, lease_ms=LEASE_MS)
    with pytest.raises(JournalError, match="trial m began before"):
        ledger.begin([trial("m"), trial("m")], now_ms=5_000, lease_ms=LEASE_MS)
    with pytest.raises(JournalError, match="trial a ended before"):
        ledger.end([ended("a")], now_ms=5_000)
    with pytest.raises(JournalError, match="trial n ended, but it never began"):
        ledger.end([ended("n")], now_ms=5_000)
    assert ledger.history().head == head


def test_a_trial_whose_lease_ran_out_is_marked_with_evidence(engine: Engine) -> None:
    ledger = filled(engine)
    ledger.begin([trial("lost")], now_ms=5_000, lease_ms=1_000)
    ledger.begin([trial("alive")], now_ms=5_000, lease_ms=LEASE_MS)
    assert ledger.sweep_up(now_ms=6_000) == ()
    assert ledger.sweep_up(now_ms=6_001) == ("lost",)
    assert ledger.sweep_up(now_ms=6_002) == ()
    history = ledger.history()
    assert history.count == 5
    assert history.running == ("alive",)
    assert history.endings["lost"].fate is Fate.CRASHED
    assert history.endings["lost"].note == "lease ran until 6000, looked at 6001 (unix ms)"


def test_two_processes_append_to_one_chain(engine: Engine, journal_url: str) -> None:
    count = 10
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, journal_url, name, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        for name in ("one", "two")
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=120)
    assert [worker.returncode for worker in workers] == [0, 0]
    history = trial_ledger(engine).history()
    assert history.count == 2 * count
    assert history.head.count == 4 * count
    names = [name.partition("-")[0] for name in history.trials]
    assert set(names[:count]) == {"one", "two"}, "neither waited for the other to finish"
