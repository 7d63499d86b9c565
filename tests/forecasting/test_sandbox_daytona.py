"""Daytona by its own client: code runs, every fault is typed, and nothing is left behind."""

import os
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

import anyio
import pytest
from advised import RICH, START, Sums
from standin_daytona import API_KEY, StandinDaytona

from forecasting import budget as budgets
from forecasting.registry import Rent
from forecasting.sandbox import End, Limits, Sandbox, SandboxUnavailable, choose
from forecasting.sandbox import daytona as service
from forecasting.sandbox.daytona import Account, Daytona
from forecasting.sandbox.local import Local

pytestmark = pytest.mark.anyio
# 1,100 micros a second, and so 990,000 for the longest life
RENT = Rent(
    asked_on=date(2026, 11, 21),
    vcpu_usd_per_hour=Decimal(3),
    memory_usd_per_gib_hour=Decimal("0.6"),
    disk_usd_per_gib_hour=Decimal("0.12"),
)
MOST = 990_000
RUNS = int(os.environ.get("LOCKSTEP_SANDBOX_RUNS", "24"))
GOOD = "def decide(context):\n    return {'seen': context['k']}\n"
CONTEXT = b'{"k": 7}'


@pytest.fixture(scope="module")
def inside() -> Sandbox:
    """What the stand-in runs code in."""

    async def proven() -> Sandbox:
        return await choose({wall: Local(wall) for wall in ("bubblewrap", "landlock")})

    try:
        return anyio.run(proven)
    except SandboxUnavailable as error:
        pytest.skip(f"the stand-in has nowhere to run code: {error}")


@pytest.fixture
async def standin(inside: Sandbox) -> AsyncIterator[StandinDaytona]:
    async with StandinDaytona(inside).open() as standin:
        yield standin
        assert standin.sandboxes == {}


def daytona(
    standin: StandinDaytona, limits: budgets.Limits = RICH, sums: Sums | None = None, **more: str
) -> Daytona:
    values = {"api_key": API_KEY, "owner": "test", "target": "us"} | more
    budget = budgets.Budget(limits, sums or Sums(), "test", lambda: START)
    return Daytona(Account(api_url=f"{standin.url}/api", **values), RENT, budget)


async def test_code_runs_without_a_network_and_its_sandbox_is_deleted(
    standin: StandinDaytona,
) -> None:
    ran = await daytona(standin).run(GOOD, CONTEXT, Limits(seconds=7.2))
    assert (ran.end, ran.result) == (End.OK, '{"seen": 7}'), ran
    (created,) = standin.created
    assert created["networkBlockAll"] is True
    assert created["ttlMinutes"] == created["autoStopInterval"] == service.LIFE_MINUTES
    assert created["autoDeleteInterval"] == 0
    assert standin.timeouts_s == [9]
    assert standin.deleted == 1


async def test_it_proves_itself(standin: StandinDaytona) -> None:
    assert await daytona(standin).available() is None
    standin.fault = "open network"
    assert await daytona(standin).available() == "the sandbox has a network"
    standin.fault = ""
    told = await daytona(standin, api_key="wrong").available()
    assert told is not None


async def test_a_slow_start_is_waited_for(standin: StandinDaytona) -> None:
    standin.starts_after = 3
    assert (await daytona(standin).run(GOOD, CONTEXT, Limits())).end is End.OK


@pytest.mark.parametrize(
    ("fault", "end", "told"),
    [
        ("create 503", End.UNAVAILABLE, "could not be made"),
        ("create 403", End.UNAVAILABLE, "quota"),
        ("create 429", End.UNAVAILABLE, "could not be made"),
        ("create reset", End.UNAVAILABLE, "could not be made"),
        ("create html", End.UNAVAILABLE, "could not be made"),
        ("create not JSON", End.UNAVAILABLE, "could not be made"),
        ("create other JSON", End.UNAVAILABLE, "could not be made"),
        ("open network", End.UNAVAILABLE, "has a network"),
        ("upload 500", End.UNAVAILABLE, "could not be sent"),
        ("exec 500", End.UNAVAILABLE, "could not be run"),
        ("exec strange", End.UNAVAILABLE, "the shell did not answer"),
        ("exec 429", End.UNAVAILABLE, "could not be run"),
        ("exec reset", End.UNAVAILABLE, "could not be run"),
        ("exec html", End.UNAVAILABLE, ""),
        ("exec not JSON", End.UNAVAILABLE, ""),
        ("exec other JSON", End.UNAVAILABLE, ""),
        ("exec drip", End.UNAVAILABLE, "could not be read"),
        ("exec 408", End.TIMEOUT, "too long"),
        ("download 404", End.UNAVAILABLE, "could not be read"),
        ("download cut", End.UNAVAILABLE, "could not be read"),
        ("download endless", End.UNAVAILABLE, ""),
    ],
)
async def test_every_fault_is_typed_and_leaves_no_sandbox(
    standin: StandinDaytona, fault: str, end: End, told: str
) -> None:
    standin.fault = fault
    with anyio.fail_after(60):
        ran = await daytona(standin).run(GOOD, CONTEXT, Limits(seconds=1))
    assert ran.end is end, ran
    assert told in ran.reason
    assert standin.sandboxes == {}


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("def decide(context):\n    return 1 / 0\n", End.RAISED),
        ("def decide(context):\n    while True: pass\n", End.TIMEOUT),
        ("def decide(context):\n    return bytearray(2**34)\n", End.MEMORY),
        ("def decide(context):\n    print('x' * 2**21)\n    return {}\n", End.OUTPUT_TOO_LARGE),
        ("def decide(context):\n    return {'a': 'x' * 2**20}\n", End.OUTPUT_TOO_LARGE),
        ("import os\ndef decide(context):\n    os.write(3, b'{}')\n    os._exit(0)\n", End.FORGED),
        ("import os\ndef decide(context):\n    os._exit(0)\n", End.NO_RESULT),
        ("import os\ndef decide(context):\n    os.abort()\n", End.CRASHED),
    ],
)
async def test_every_end_of_the_code_comes_back(
    standin: StandinDaytona, code: str, end: End
) -> None:
    assert (await daytona(standin).run(code, CONTEXT, Limits(seconds=1))).end is end


async def test_a_delete_that_fails_is_tried_again(standin: StandinDaytona) -> None:
    standin.deletes_refused = 1
    assert (await daytona(standin).run(GOOD, CONTEXT, Limits())).end is End.OK
    assert standin.deleted == 1


async def test_what_could_not_be_deleted_is_reaped_by_the_next_run(
    standin: StandinDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DELETE_WAIT_S", 0.01)
    standin.deletes_refused = service.DELETE_ATTEMPTS
    sandbox = daytona(standin)
    assert (await sandbox.run(GOOD, CONTEXT, Limits())).end is End.OK
    assert sandbox.owes
    assert len(standin.sandboxes) == 1
    assert (await sandbox.run(GOOD, CONTEXT, Limits())).end is End.OK
    assert not sandbox.owes
    assert standin.deleted == 2


async def test_orphans_of_a_crash_are_reaped_at_start_and_those_of_others_are_not(
    standin: StandinDaytona,
) -> None:
    crashed = daytona(standin)._wanted(service.make_job("", b"{}", Limits()))
    async with daytona(standin)._client() as client:
        await client.create(crashed, timeout=5)
        other = daytona(standin, owner="other")._wanted(service.make_job("", b"{}", Limits()))
        kept = await client.create(other, timeout=5)
        assert len(standin.sandboxes) == 2
        assert await daytona(standin).available() is None
        assert list(standin.sandboxes) == [kept.id]
        await kept.delete()


async def test_a_cancelled_run_deletes_what_it_may_never_have_seen(
    standin: StandinDaytona,
) -> None:
    standin.fault = "create hangs"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(daytona(standin).run, GOOD, CONTEXT, Limits())
        await standin.hanging.wait()
        assert len(standin.sandboxes) == 1
        tasks.cancel_scope.cancel()
    assert standin.sandboxes == {}
    standin.fault = ""
    loop = "def decide(context):\n    while True: pass\n"
    with anyio.move_on_after(1.0):
        await daytona(standin).run(loop, CONTEXT, Limits(seconds=30))
    assert standin.sandboxes == {}


async def test_its_life_is_held_before_and_charged_by_the_second_after(
    standin: StandinDaytona,
) -> None:
    sums = Sums()
    sandbox = daytona(standin, sums=sums)
    held: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.run, GOOD, CONTEXT, Limits())
        with anyio.fail_after(20):
            while not standin.sandboxes:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        held.append(sums.spent_micros)
    assert held == [MOST]
    ran = await sandbox.run(GOOD, CONTEXT, Limits())
    assert sums.rows[0][0] == ("run test", "day 2025-05-04")
    assert all(micros % 1_100 == 0 and 0 < micros < MOST for _, micros in sums.rows)
    assert ran.cost_micros == sums.rows[1][1] <= 1_100 * (ran.seconds + 1)


async def test_without_money_no_sandbox_is_made(standin: StandinDaytona) -> None:
    limits = budgets.Limits(run_micros=MOST + 1_000, day_micros=10**9)
    sandbox = daytona(standin, limits)
    assert (await sandbox.run(GOOD, CONTEXT, Limits())).end is End.OK
    refused = await sandbox.run(GOOD, CONTEXT, Limits())
    assert refused.end is End.REFUSED_BUDGET
    assert (refused.result, refused.cost_micros) == (None, 0)
    assert f"run test: {MOST} micros wanted" in refused.reason
    made = len(standin.created)
    assert "micros wanted" in (await sandbox.available() or "")
    assert len(standin.created) == made
    own = budgets.Limits(run_micros=10**9, day_micros=10**9, model_day_micros={"daytona": MOST - 1})
    assert "model daytona on" in (await daytona(standin, own).run(GOOD, CONTEXT, Limits())).reason


async def test_what_may_live_on_is_charged_its_whole_life(
    standin: StandinDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DELETE_WAIT_S", 0.01)
    sums = Sums()
    standin.deletes_refused = service.DELETE_ATTEMPTS
    sandbox = daytona(standin, sums=sums)
    assert (await sandbox.run(GOOD, CONTEXT, Limits())).cost_micros == MOST
    assert (await sandbox.run(GOOD, CONTEXT, Limits())).cost_micros < MOST
    assert sums.spent_micros < MOST + MOST


async def test_a_cancelled_run_is_charged_for_as_long_as_it_lived(standin: StandinDaytona) -> None:
    sums = Sums()
    loop = "def decide(context):\n    while True: pass\n"
    with anyio.move_on_after(1.0):
        await daytona(standin, sums=sums).run(loop, CONTEXT, Limits(seconds=30))
    assert 0 < sums.spent_micros < MOST


async def test_a_sandbox_of_another_size_than_is_paid_for_is_not_used(
    standin: StandinDaytona,
) -> None:
    sandbox = daytona(standin)
    sandbox.rent = RENT.model_copy(update={"memory_gib": 2})
    ran = await sandbox.run(GOOD, CONTEXT, Limits())
    assert (ran.end, "another size" in ran.reason) == (End.UNAVAILABLE, True)
    assert standin.sandboxes == {}


async def test_local_sandboxes_cost_nothing(inside: Sandbox) -> None:
    ran = await inside.run(GOOD, CONTEXT, Limits())
    assert (ran.end, ran.cost_micros) == (End.OK, 0)


@pytest.mark.slow
async def test_runs_that_are_killed_leave_no_sandbox(standin: StandinDaytona) -> None:
    """Ended by us at every stage, while the service now and then refuses to delete."""
    sums, ends = Sums(), list[End]()
    sandbox = daytona(standin, sums=sums)

    async def one(number: int) -> None:
        with anyio.move_on_after(0.02 * (number % 17) if number % 3 else 60):
            ends.append((await sandbox.run(GOOD, CONTEXT, Limits())).end)

    for start in range(0, RUNS, 8):
        standin.deletes_refused = 1
        async with anyio.create_task_group() as tasks:
            for number in range(start, min(start + 8, RUNS)):
                tasks.start_soon(one, number)
        assert standin.sandboxes == {}
    assert set(ends) == {End.OK}
    assert all(0 <= micros < MOST for _, micros in sums.rows)
