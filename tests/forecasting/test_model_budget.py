"""Money: held before a call, settled after it, and never a micro more than the limits."""

from pathlib import Path

import anyio
import pytest
from advised import RICH, START, Sums, advised, question
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from standin_http import Fault
from standin_ollama import StandinOllama
from standin_openai import StandinOpenAI

from daemon.journal import open_journal, sqlite_url
from daemon.journal.calls import SqlSpending
from forecasting.budget import Budget, Exhausted, Limits
from forecasting.questions import Outcome

pytestmark = pytest.mark.anyio
DAY = 86_400_000
COST = 96  # what the stand-in's 120 and 30 tokens cost


def budget_of(limits: Limits, sums: Sums, run: str = "test", now: int = START) -> Budget:
    return Budget(limits, sums, run, lambda: now)


async def test_a_thousand_calls_at_once_do_not_overspend(tmp_path: Path) -> None:
    """Counted in a journal on disk, as the daemon counts."""
    standin, database = StandinOpenAI(think_s=0.02), open_journal(sqlite_url(tmp_path / "j"))
    limits = Limits(run_micros=200_000, day_micros=50_000)
    replies = []

    async def ask(number: int) -> None:
        replies.append(await advisor.ask(question(number, model="paid")))

    async with (
        advised(
            tmp_path / "cassette",
            standin,
            limits=limits,
            sums=SqlSpending(database),
            timeout_s=60,
        ) as advisor,
        anyio.create_task_group() as tasks,
    ):
        for number in range(1_000):
            tasks.start_soon(ask, number)
    asked = [reply for reply in replies if reply.outcome is Outcome.OK]
    refused = [reply for reply in replies if reply.outcome is Outcome.REFUSED_BUDGET]
    assert len(asked) + len(refused) == 1_000
    assert len(asked) >= 5
    assert len(refused) >= 300
    assert len(standin.spent) == len(asked) == len(standin.requests)
    with database.connect() as journal:
        query = text("SELECT sum(micros) FROM spending WHERE scope = 'day 2025-05-04'")
        assert journal.scalar(query) == len(standin.spent) * COST <= 50_000
    database.dispose()
    assert all("day 2025-05-04" in reply.reason for reply in refused)
    assert all(reply.attempts == 0 and reply.cost_micros == 0 for reply in refused)


async def test_money_that_came_back_is_spent_to_the_last_call(tmp_path: Path) -> None:
    sums = Sums()
    limits = Limits(run_micros=10_000, day_micros=10**9)
    async with advised(tmp_path, StandinOpenAI(), limits=limits, sums=sums) as advisor:
        replies = [await advisor.ask(question(at, model="paid")) for at in range(120)]
    answered = [reply.outcome is Outcome.OK for reply in replies]
    assert answered == sorted(answered, reverse=True)
    # the last calls are refused for what they might cost
    assert 50 < sum(answered) < 104
    assert sums.spent_micros == COST * sum(answered)


async def test_the_bound_is_above_what_any_tokenizer_makes_of_a_prompt(tmp_path: Path) -> None:
    sums = Sums()
    async with advised(
        tmp_path, StandinOpenAI(faults=iter([Fault.HANG])), sums=sums, timeout_s=0.3
    ) as advisor:
        reply = await advisor.ask(question(model="paid"))
    size = sum(len(message.text.encode()) for message in reply.messages)
    assert reply.outcome is Outcome.TIMEOUT
    # it was sent and never answered: nobody knows that it cost less
    assert reply.cost_micros == sums.spent_micros > size * 0.4 + 800 * 1.6


@pytest.mark.parametrize(
    ("fault", "billed"),
    [
        (Fault.BAD_REQUEST, 0),
        (Fault.TOO_MANY, 0),
        (Fault.SERVER_ERROR, 0),
        (Fault.RESET, 3),
        (Fault.TRUNCATED, 3),
        (Fault.BODY_NOT_JSON, 1),
    ],
)
async def test_a_failure_costs_what_it_may_have_cost(
    tmp_path: Path, fault: Fault, billed: int
) -> None:
    sums = Sums()
    standin = StandinOpenAI(faults=iter([fault] * 3))
    async with advised(tmp_path, standin, sums=sums) as advisor:
        reply = await advisor.ask(question(model="paid"))
    most = {sum_ for _, sum_ in sums.rows}
    assert reply.cost_micros == sums.spent_micros
    assert len(most) == 1
    assert reply.cost_micros == billed * most.pop() or billed == 0 == reply.cost_micros


async def test_a_reply_that_does_not_parse_costs_what_it_says(tmp_path: Path) -> None:
    async with advised(tmp_path, StandinOpenAI(faults=iter([Fault.PROSE]))) as advisor:
        assert (await advisor.ask(question(model="paid"))).cost_micros == COST


async def test_a_service_that_does_not_count_is_charged_the_most(tmp_path: Path) -> None:
    sums = Sums()
    async with advised(tmp_path, StandinOpenAI(usage=None), sums=sums) as advisor:
        reply = await advisor.ask(question(model="paid"))
    assert reply.outcome is Outcome.OK
    assert reply.cost_micros == sums.spent_micros > 1_000


async def test_a_service_that_charges_beyond_the_bound_closes_the_budget(tmp_path: Path) -> None:
    standin = StandinOpenAI(usage=(10**6, 10**6))
    limits = Limits(run_micros=100_000, day_micros=10**9)
    async with advised(tmp_path, standin, limits=limits) as advisor:
        first = await advisor.ask(question(0, model="paid"))
        second = await advisor.ask(question(1, model="paid"))
    assert (first.outcome, first.cost_micros) == (Outcome.OK, 2_000_000)
    assert second.outcome is Outcome.REFUSED_BUDGET
    assert "0 of 100000 left" in second.reason


async def test_a_paid_service_without_a_price_is_not_asked(tmp_path: Path) -> None:
    standin = StandinOpenAI()
    async with advised(tmp_path, standin, price=None) as advisor:
        reply = await advisor.ask(question(model="paid"))
    assert (reply.outcome, reply.reason) == (
        Outcome.REFUSED_BUDGET,
        "model 'paid' has no price",
    )
    assert standin.requests == []


async def test_nothing_is_paid_without_limits_and_free_models_need_none(tmp_path: Path) -> None:
    async with advised(tmp_path / "paid", StandinOpenAI(), limits=Limits()) as advisor:
        assert (await advisor.ask(question(model="paid"))).outcome is Outcome.REFUSED_BUDGET
    sums = Sums()
    async with advised(tmp_path / "free", StandinOllama(), limits=Limits(), sums=sums) as advisor:
        assert (await advisor.ask(question())).outcome is Outcome.OK
    assert sums.rows == []


async def test_sums_outlive_the_process_and_open_holds_count() -> None:
    sums = Sums()
    limits = Limits(run_micros=100, day_micros=150, model_day_micros={"big": 40})
    before = budget_of(limits, sums)
    await before.settle(await before.hold("small", 50), 30)
    await before.hold("small", 60)  # the process dies before it settles
    after = budget_of(limits, sums)
    with pytest.raises(Exhausted, match="run test: 11 micros wanted, 10 of 100 left"):
        await after.hold("small", 11)
    await after.hold("small", 10)
    other = budget_of(limits, sums, run="other")
    with pytest.raises(Exhausted, match="day 2025-05-04"):
        await other.hold("small", 51)
    tomorrow = budget_of(limits, sums, run="other", now=START + DAY)
    with pytest.raises(Exhausted, match="model big on 2025-05-05: 41"):
        await tomorrow.hold("big", 41)
    await tomorrow.hold("big", 40)
    assert sums.spent_of("model big on 2025-05-05") == 40


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=30), st.integers(0, 300)
)
async def test_no_order_of_holds_and_settlements_overspends(
    calls: list[tuple[int, int]], limit: int
) -> None:
    sums = Sums()
    budget = budget_of(Limits(run_micros=limit, day_micros=10**9), sums)

    async def call(most: int, cost: int) -> None:
        try:
            hold = await budget.hold("m", most)
        except Exhausted:
            return
        assert sums.spent_micros <= limit
        await anyio.lowlevel.checkpoint()
        await budget.settle(hold, min(cost, most))

    async with anyio.create_task_group() as tasks:
        for most, cost in calls:
            tasks.start_soon(call, most, cost)
    assert sums.spent_micros <= limit


async def test_a_call_that_is_given_up_leaves_its_money_spent(tmp_path: Path) -> None:
    sums, standin = Sums(), StandinOpenAI(faults=iter([Fault.HANG]))
    async with advised(tmp_path, standin, sums=sums) as advisor:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(advisor.ask, question(model="paid"))
            with anyio.fail_after(5):
                await standin.asked.wait()
            tasks.cancel_scope.cancel()
        assert sums.spent_micros > 1_000
        assert (await advisor.ask(question(model="paid"))).outcome is Outcome.OK


async def test_a_call_that_never_left_costs_nothing(tmp_path: Path) -> None:
    """It waits behind another for the one seat until it is given up."""
    sums = Sums()
    standin = StandinOpenAI(faults=iter([Fault.HANG]))
    more = {"timeout_s": 30.0, "concurrency_max": 1}
    async with (
        advised(tmp_path, standin, sums=sums, limits=RICH, **more) as advisor,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(advisor.ask, question(0, model="paid"))
        with anyio.fail_after(5):
            await standin.asked.wait()
        with anyio.move_on_after(0.3):
            await advisor.ask(question(1, model="paid"))
        assert [micros for _, micros in sums.rows][1] == 0
        tasks.cancel_scope.cancel()
