"""Money counted in the journal: whoever shares it, in this process or another, stays within it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Engine, func, select

from daemon.journal import open_journal
from daemon.journal.calls import SqlSpending
from daemon.journal.database import transaction
from daemon.journal.schema import spending
from forecasting.budget import Budget, Exhausted, Limits

pytestmark = pytest.mark.usefixtures("closing")
ROOT = Path(__file__).resolve().parents[2]
DAY = "day 1970-01-01"
# another process of the same desk: it holds 9 and settles 7 until the day has no more
SPENDER = """
import sys
import anyio
from daemon.journal import open_journal
from daemon.journal.calls import SqlSpending
from forecasting.budget import Budget, Exhausted, Limits

limits, held = Limits(run_micros=10**6, day_micros=1_000), []
spending = SqlSpending(open_journal(sys.argv[1]))
budget = Budget(limits, spending, sys.argv[2], lambda: 0)

async def call():
    try:
        hold = await budget.hold("m", 9)
    except Exhausted:
        return
    held.append(hold)
    await budget.settle(hold, 7)

async def main():
    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(call)

anyio.run(main)
print(len(held))
"""


def spent_micros(database: Engine, scope: str) -> int:
    query = select(func.sum(spending.c.micros)).where(spending.c.scope == scope)
    with transaction(database) as connection:
        return int(connection.scalar(query) or 0)


def budget_of(
    database: Engine, limits: Limits, run: str = "test", now: Callable[[], int] = lambda: 0
) -> Budget:
    return Budget(limits, SqlSpending(database), run, now)


def test_processes_that_share_a_journal_do_not_overspend_together(journal_url: str) -> None:
    database = open_journal(journal_url)
    spenders = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, journal_url, name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    held = [int(spender.communicate(timeout=120)[0]) for spender in spenders]
    assert [spender.returncode for spender in spenders] == [0, 0]
    assert spent_micros(database, DAY) == 7 * sum(held) <= 1_000
    assert sum(held) >= 1_000 // 9
    assert spent_micros(database, "run one") == 7 * held[0]
    with transaction(database) as connection:
        # a row a scope, however many calls
        assert connection.scalar(select(func.count()).select_from(spending)) == 3


def test_a_refusal_adds_nothing_and_names_what_is_left(journal_url: str) -> None:
    database = open_journal(journal_url)
    limits = Limits(run_micros=100, day_micros=150, model_day_micros={"big": 40})

    async def scene() -> None:
        budget = budget_of(database, limits)
        await budget.settle(await budget.hold("small", 60), 30)
        with pytest.raises(Exhausted, match="model big on 1970-01-01: 41 micros wanted, 40 of 40"):
            await budget.hold("big", 41)
        with pytest.raises(Exhausted, match="run test: 71 micros wanted, 70 of 100 left"):
            await budget.hold("small", 71)
        assert spent_micros(database, DAY) == 30
        await budget.hold("big", 40)
        other = budget_of(database, limits, run="other")
        with pytest.raises(Exhausted, match="day 1970-01-01: 81 micros wanted, 80 of 150 left"):
            await other.hold("small", 81)
        tomorrow = budget_of(database, limits, run="other", now=lambda: 86_400_000)
        await tomorrow.hold("big", 40)

    anyio.run(scene)
    assert spent_micros(database, "run test") == spent_micros(database, DAY) == 70


def test_what_costs_more_than_was_held_closes_the_budget(journal_url: str) -> None:
    database = open_journal(journal_url)

    async def scene() -> None:
        budget = budget_of(database, Limits(run_micros=100, day_micros=100))
        await budget.settle(await budget.hold("m", 50), 500)
        with pytest.raises(Exhausted, match="1 micros wanted, 0 of 100 left"):
            await budget.hold("m", 1)

    anyio.run(scene)
