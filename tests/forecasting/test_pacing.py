"""Pace, counted where it matters: at the service."""

from pathlib import Path

import anyio
import pytest
from advised import advised, question
from standin_http import Fault
from standin_ollama import StandinOllama

from forecasting.pacing import Pacing
from forecasting.questions import Outcome

pytestmark = pytest.mark.anyio


async def test_no_more_are_under_way_than_allowed(tmp_path: Path) -> None:
    standin = StandinOllama(think_s=0.02)
    async with (
        advised(tmp_path, standin, concurrency_max=5, timeout_s=60) as advisor,
        anyio.create_task_group() as tasks,
    ):
        for number in range(100):
            tasks.start_soon(advisor.ask, question(number))
    assert len(standin.requests) == 100
    assert standin.busy_max == 5


async def test_failures_do_not_use_up_the_seats(tmp_path: Path) -> None:
    faults = [Fault.RESET, Fault.SERVER_ERROR, Fault.BAD_REQUEST, Fault.PROSE] * 10
    standin = StandinOllama(faults=iter(faults))
    async with advised(tmp_path, standin, concurrency_max=2, attempts_max=1) as advisor:
        replies = [await advisor.ask(question(number)) for number in range(45)]
    assert [reply.outcome for reply in replies[-5:]] == [Outcome.OK] * 5


async def test_requests_are_spaced_at_the_service(tmp_path: Path) -> None:
    """Thirty at once at 1,200 a minute: no half second sees more than its ten and one."""
    standin = StandinOllama()
    async with (
        advised(tmp_path, standin, requests_per_minute=1_200, timeout_s=60) as advisor,
        anyio.create_task_group() as tasks,
    ):
        for number in range(30):
            tasks.start_soon(advisor.ask, question(number))
    arrivals = standin.arrivals_s
    assert arrivals[-1] - arrivals[0] >= 29 * 0.05 - 0.04
    # a request may be late on its way, and the next is not: two more for a busy machine
    window = max(sum(at <= other < at + 0.5 for other in arrivals) for at in arrivals)
    assert window <= 13


async def test_a_seat_is_free_again_however_it_is_left() -> None:
    pacing = Pacing(1, 60_000)
    with pytest.raises(ZeroDivisionError):
        async with pacing.turn():
            raise ZeroDivisionError
    with anyio.move_on_after(0.05):
        async with pacing.turn():
            await anyio.sleep(9)
    pacing.pause(0.2)
    with anyio.move_on_after(0.05) as waited:
        async with pacing.turn():
            pytest.fail("it wants peace")
    assert waited.cancelled_caught
    with anyio.fail_after(5):
        async with pacing.turn():
            assert pacing.pause_s == 0


async def test_a_pause_holds_those_who_wait_already() -> None:
    pacing = Pacing(4, 200)
    began = anyio.current_time()
    went: list[float] = []

    async def go() -> None:
        async with pacing.turn():
            went.append(anyio.current_time() - began)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(go)
        await anyio.sleep(0.05)
        pacing.pause(0.8)
        pacing.pause(0.1)  # a shorter one takes nothing back
    assert went[0] < 0.3
    assert 0.84 < went[1] < went[2]
    assert went[2] - went[1] >= 0.299
