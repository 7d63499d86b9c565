"""Local sandboxes: whatever code tries, it ends in a type, and what it must not reach it does not.

Each test runs behind every wall that this machine has and that proves itself.
"""

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from escapes import ESCAPES

from forecasting.sandbox import End, Limits, Ran, SandboxUnavailable, choose
from forecasting.sandbox import local as runs
from forecasting.sandbox.local import Local
from forecasting.sandbox.proof import prove
from forecasting.sandbox.seccomp import ALLOW, CALLS, KILL, MACHINES, REFUSE, program
from forecasting.sandbox.walls import CHILD, WALLS, Wall

pytestmark = pytest.mark.anyio
SHORT = Limits(seconds=0.5, memory_bytes=2**29)
RUNS = int(os.environ.get("LOCKSTEP_SANDBOX_RUNS", "50"))
SECRET = "hunter2-of-the-parent"


@pytest.fixture(params=sorted(WALLS))
def sandbox(request: pytest.FixtureRequest) -> Local:
    """Each wall that stands here."""
    found = Local(request.param, runs_at_once=4)
    reason = anyio.run(found.available)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return found


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What an escape could reach, were it to get out."""
    monkeypatch.setenv("LOCKSTEP_SECRET", SECRET)
    canary = tmp_path / "canary"
    canary.write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {
            "port": server.getsockname()[1],
            "canary": str(canary),
            "source": str(Path(runs.__file__)),
            "home": str(Path.home()),
            "pid": os.getpid(),
        }
    assert canary.read_text() == SECRET
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


def processes(told: str, *, locked: bool = False) -> int:
    """How many processes have this in their command line; or only those that are locked in."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            status = (folder / "status").read_text()
        except OSError:
            continue
        found += told in line and (not locked or "Seccomp:\t2" in status)
    return found


@asynccontextmanager
async def leaving_nothing() -> AsyncIterator[None]:
    """No process that was started for the code is left a moment after."""
    before = processes(str(CHILD))
    yield
    with anyio.fail_after(20):
        while processes(str(CHILD)) > before:  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def test_a_benign_agent_passes(sandbox: Local) -> None:
    code = (
        "import statistics, datetime, re, math, json, collections\n"
        "import numpy as np\n"
        "def decide(context):\n"
        "    print('thinking')\n"
        "    closes = np.array(context['closes'])\n"
        "    drift = float(np.diff(np.log(closes)).mean())\n"
        "    return {'side': 'long' if drift > 0 else 'short', 'n': len(closes)}\n"
    )
    ran = await sandbox.run(code, b'{"closes": [1.0, 2.0, 3.0]}', Limits())
    assert ran.end is End.OK, ran
    assert json.loads(ran.result or "") == {"side": "long", "n": 3}
    assert ran.printed == "thinking\n"
    assert ran.seconds > 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its numbers are of x86_64")
async def test_no_escape_gets_out(sandbox: Local, target: dict[str, object]) -> None:
    """The whole suite, a few at once: one test, because what it costs is the processes."""
    context, wrong = json.dumps(target).encode(), []

    async def attempt(name: str, code: str, ends: set[End]) -> None:
        limits = SHORT if End.TIMEOUT in ends else replace(SHORT, seconds=30)
        ran = await sandbox.run(code, context, limits)
        if ran.end not in ends or SECRET in repr(ran):
            wrong.append((name, ran))

    async with leaving_nothing(), anyio.create_task_group() as tasks:
        for name, (code, ends) in ESCAPES.items():
            tasks.start_soon(attempt, name, code, ends)
    assert wrong == []


async def test_the_environment_holds_nothing_of_ours(
    sandbox: Local, target: dict[str, object]
) -> None:
    code = "import os\ndef decide(context):\n    return dict(os.environ)\n"
    ran = await sandbox.run(code, json.dumps(target).encode(), Limits())
    names = set(json.loads(ran.result or "{}")) - {"PWD", "LC_CTYPE"}
    assert names == {
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONHASHSEED",
        "OPENBLAS_NUM_THREADS",
        "LANG",
    }


async def test_nothing_but_the_prefix_can_be_seen() -> None:
    sandbox = Local("bubblewrap")
    if reason := await sandbox.available():
        pytest.skip(reason)
    code = (
        "import os\n"
        "def decide(context):\n"
        "    return {'root': os.listdir('/'), 'pid': os.getpid(), 'uid': os.getuid(),\n"
        "            'host': os.uname().nodename}\n"
    )
    seen = json.loads((await sandbox.run(code, b"{}", Limits())).result or "")
    assert {"etc", "proc", "tmp", "dev", "sys", "var", "work"}.isdisjoint(seen["root"])
    assert seen["pid"] < 10
    assert (seen["uid"], seen["host"]) == (65534, "sandbox")


async def test_the_same_code_runs_the_same_way(sandbox: Local) -> None:
    code = "def decide(context):\n    return {'order': list({'a', 'b', 'c', 'd', 'e', 'f'})}\n"
    results = {(await sandbox.run(code, b"{}", Limits())).result for _ in range(4)}
    assert len(results) == 1


async def test_an_error_is_told_as_a_model_can_use_it(sandbox: Local) -> None:
    code = "def decide(context):\n    odds = context['odds']\n    return {'p': 1 / odds}\n"
    ran = await sandbox.run(code, b'{"odds": 0}', Limits())
    assert ran.end is End.RAISED
    assert 'File "agent.py", line 3, in decide' in ran.reason
    assert "ZeroDivisionError: division by zero" in ran.reason
    assert "child" not in ran.reason
    assert "SyntaxError" in (await sandbox.run("x = = 1", b"{}", Limits())).reason
    assert "no function decide" in (await sandbox.run("x = 1", b"{}", Limits())).reason


async def test_much_output_does_not_fill_our_memory(sandbox: Local) -> None:
    import resource

    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = "def decide(context):\n    while True: print('x' * 10**6)\n"
    ran = await sandbox.run(code, b"{}", Limits(seconds=20))
    assert ran.end is End.OUTPUT_TOO_LARGE
    assert len(ran.printed) <= 2_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000


@pytest.mark.slow
async def test_runs_that_are_killed_leave_no_process(sandbox: Local) -> None:
    """Ended by time, by us in the middle, and by themselves, at every stage of a run."""
    loop = "def decide(context):\n    while True: pass\n"
    crash = "import os\ndef decide(context):\n    os.abort()\n"
    ends: list[End] = []

    async def one(number: int) -> None:
        limits = Limits(seconds=0.02 * (number % 5))
        with anyio.move_on_after(0.015 * (number % 13) if number % 3 else 60):
            ran = await sandbox.run(crash if number % 5 == 4 else loop, b"{}", limits)
            ends.append(ran.end)

    async with leaving_nothing():
        for start in range(0, RUNS, 8):
            async with anyio.create_task_group() as tasks:
                for number in range(start, min(start + 8, RUNS)):
                    tasks.start_soon(one, number)
    assert set(ends) <= {End.TIMEOUT, End.CRASHED}, ends
    assert End.TIMEOUT in ends


async def test_it_dies_with_its_parent(sandbox: Local) -> None:
    """Our process killed without a chance to clear up: nothing runs on."""
    script = (
        "import anyio\n"
        "from forecasting.sandbox import Limits\n"
        "from forecasting.sandbox.local import Local\n"
        "code = 'def decide(context):\\n    import time\\n    time.sleep(600)\\n'\n"
        f"anyio.run(Local({sandbox.name!r}).run, code, b'{{}}', Limits(seconds=900))\n"
    )
    root = Path(runs.__file__).parents[2]
    async with leaving_nothing():
        before = processes(CHILD.name, locked=True)
        parent = subprocess.Popen([sys.executable, "-c", script], cwd=root)  # noqa: ASYNC220
        try:
            with anyio.fail_after(60):
                while processes(CHILD.name, locked=True) == before:  # noqa: ASYNC110
                    await anyio.sleep(0.05)
        finally:
            parent.kill()
            parent.wait()


@pytest.mark.parametrize(
    ("wall", "told"),
    [
        (Wall(("/no/such/bwrap",), {}, (), b""), "cannot be started"),
        (Wall(("/bin/sh", "-c", "echo broken >&2"), {}, (), b""), "broken"),
        (Wall(("/bin/sh", "-c", "exit 0"), {}, (), b""), "did not start"),
    ],
)
async def test_a_wall_that_cannot_be_built_is_no_sandbox(
    monkeypatch: pytest.MonkeyPatch, wall: Wall, told: str
) -> None:
    monkeypatch.setitem(WALLS, "broken", lambda: wall)
    sandbox = Local("broken")
    assert (await sandbox.run("", b"{}", SHORT)).end is End.UNAVAILABLE
    assert told in (await sandbox.available() or "")
    with pytest.raises(SandboxUnavailable, match=rf"no sandbox .*broken: .*{told}") as refused:
        await choose({"broken": sandbox})
    assert "\n" not in str(refused.value)


async def test_a_wall_that_does_not_stand_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test is shown to fail: the interpreter without any wall reaches all there is."""
    whole = WALLS["landlock"]()
    monkeypatch.setitem(WALLS, "paper", lambda: Wall(whole.argv, whole.env, (), b""))
    reason = await prove(Local("paper"))
    assert reason is not None
    for reached in ("network", "files", "writing", "processes", "signals", "calls"):
        assert reached in reason
    with pytest.raises(SandboxUnavailable):
        await choose({"paper": Local("paper")})


async def test_the_first_that_proves_itself_is_taken(sandbox: Local) -> None:
    class Absent:
        name = "absent"

        async def available(self) -> str | None:
            return "not set up"

        async def run(self, code: str, context: bytes, limits: Limits) -> Ran:
            raise AssertionError

    assert await choose({"absent": Absent(), "local": sandbox}) is sandbox
    with pytest.raises(SandboxUnavailable, match="none is set up"):
        await choose({})


def decided(steps: bytes, machine: int, number: int) -> int:
    """What the kernel would make of a filter: the few instructions ours is made of."""
    loaded, at = 0, 0
    while True:
        step = steps[8 * at : 8 * at + 8]
        code, yes, no = int.from_bytes(step[:2], sys.byteorder), step[2], step[3]
        operand = int.from_bytes(step[4:], sys.byteorder)
        at += 1
        if code == 0x20:
            loaded = {0: number, 4: machine}[operand]
        elif code == 0x15:
            at += yes if loaded == operand else no
        else:
            return operand


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_allows_what_is_listed_and_nothing_else(machine: str) -> None:
    column, token = MACHINES[machine]
    steps = program(machine)
    listed = {row[column] for row in CALLS.values()} - {None}
    for number in [*range(600), 0x40000000, 0x40000027, 2**32 - 1]:
        assert decided(steps, token, number) == (ALLOW if number in listed else REFUSE)
    assert decided(steps, token ^ 1, 0) == KILL
    with pytest.raises(KeyError):
        program("riscv64")


def test_a_run_starts_quickly() -> None:
    """Told, not held: it is what an opinion of an agent costs beside the model."""

    async def median_s() -> float:
        sandbox = Local("bubblewrap")
        if reason := await sandbox.available():
            pytest.skip(reason)
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            await sandbox.run("def decide(context):\n    return {}\n", b"{}", Limits())
            taken.append(time.perf_counter() - began)
        return sorted(taken)[2]

    print(f"{anyio.run(median_s) * 1_000:.0f} ms a run")
