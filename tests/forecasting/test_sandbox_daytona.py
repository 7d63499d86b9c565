"""Daytona by its own client: code runs, every fault is typed, and nothing is left behind."""

from collections.abc import AsyncIterator

import anyio
import pytest
from standin_daytona import API_KEY, StandinDaytona

from forecasting.sandbox import End, Limits, Sandbox, SandboxUnavailable, choose
from forecasting.sandbox import daytona as service
from forecasting.sandbox.daytona import Account, Daytona
from forecasting.sandbox.local import Local

pytestmark = pytest.mark.anyio
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


def daytona(standin: StandinDaytona, **more: str) -> Daytona:
    values = {"api_key": API_KEY, "owner": "test", "target": "us"} | more
    return Daytona(Account(api_url=f"{standin.url}/api", **values))


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
        ("open network", End.UNAVAILABLE, "has a network"),
        ("upload 500", End.UNAVAILABLE, "could not be sent"),
        ("exec 500", End.UNAVAILABLE, "could not be run"),
        ("exec strange", End.UNAVAILABLE, "the shell did not answer"),
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
    ran = await daytona(standin).run(GOOD, CONTEXT, Limits())
    assert ran.end is end
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
