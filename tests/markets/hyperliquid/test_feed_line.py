"""The line itself: waits, budgets, the venue's clock, and connections that die in every way."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from markets.feeds.backoff import Backoff
from markets.feeds.budget import Budget
from markets.feeds.link import SKEW_WINDOW_MS, Link, Trouble, VenueClock
from markets.feeds.stream import StreamSettings, Talk, keep_open

SETTINGS = {
    "open_timeout_s": 0.1,
    "close_timeout_s": 0.02,
    "silent_s": 0.05,
    "ping_s": 0.02,
    "wait_first_s": 0.005,
    "wait_longest_s": 0.01,
    "steady_s": 0.5,
}


@given(st.floats(0, 0.999), st.integers(1, 30))
def test_waits_double_stay_bounded_and_are_jittered(chance: float, attempts: int) -> None:
    backoff = Backoff(0.5, 30.0, lambda: chance)
    waits = [backoff.next_s() for _ in range(attempts)]
    whole = [min(0.5 * 2**n, 30.0) for n in range(attempts)]
    assert all(half / 2 <= wait <= half for wait, half in zip(waits, whole, strict=True))
    backoff.reset()
    assert backoff.next_s() == waits[0]


def test_the_clock_keeps_the_best_sample_and_forgets_it_in_time() -> None:
    local = [1_000_000]
    clock = VenueClock(lambda: local[0])
    assert clock.skew_ms is None
    assert clock.now_ms() == 1_000_000
    clock.observe(1_000_000 - 5_040)
    clock.observe(1_000_000 - 5_010)
    clock.observe(1_000_000 - 7_000)
    assert clock.skew_ms == 5_010
    local[0] += 2 * SKEW_WINDOW_MS
    clock.observe(local[0] - 6_000)
    assert clock.skew_ms == 6_000


def test_our_clock_stepping_back_never_takes_the_venues_time_back() -> None:
    local = [1_000_000]
    clock = VenueClock(lambda: local[0])
    clock.observe(1_000_100)
    local[0] -= 50_000
    assert clock.now_ms() == 1_000_100
    clock.observe(1_000_200)
    assert clock.skew_ms == -50_200


def test_a_stamp_from_the_future_is_refused_until_it_is_our_clock_that_must_be_wrong() -> None:
    clock = VenueClock(lambda: 1_000_000)
    assert clock.accepts(1_000_000, 10_000)
    assert not clock.accepts(9_000_000, 10_000)
    assert clock.accepts(1_000_100, 10_000)
    assert [clock.accepts(1_600_000 + n, 10_000) for n in range(18)] == [False] * 16 + [True] * 2
    assert clock.now_ms() == 1_600_017


def test_a_link_knows_the_age_of_its_data() -> None:
    now = [5.0]
    link = Link(lambda: now[0])
    assert link.age_s is None
    link.heard()
    now[0] = 7.5
    assert (link.age_s, link.messages) == (2.5, 1)
    link.opened()
    link.lost(Trouble.CLOSED)
    link.opened()
    assert (link.reconnects, link.connected, link.counts[Trouble.CLOSED]) == (1, True, 1)


@pytest.mark.anyio
async def test_a_budget_lets_through_what_it_holds_and_then_makes_wait() -> None:
    budget, began_s = Budget(per_minute=6_000.0), anyio.current_time()
    for _ in range(60):
        await budget.spend(100.0)
    assert anyio.current_time() - began_s < 0.05
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(budget.spend, 5.0)
        tasks.start_soon(budget.spend, 5.0)
    assert 0.08 < anyio.current_time() - began_s < 0.5


@asynccontextmanager
async def line_to(
    talk_back: Callable[[ServerConnection], object], **more: float
) -> AsyncIterator[tuple[Link, list[str | bytes]]]:
    """A stream kept open to a server that behaves so; its link, and what was received."""
    received: list[str | bytes] = []

    def receive(text: str | bytes) -> bool:
        received.append(text)
        return text != "pong"

    async with serve(talk_back, "127.0.0.1", 0, ping_interval=None, close_timeout=0.02) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        link = Link(anyio.current_time)
        talk = Talk(greetings=["hello"], ping="ping", receive=receive, broken=lambda: None)
        settings = StreamSettings(url=url, **(SETTINGS | more))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_open, settings, talk, link, lambda: 0.5)
            yield link, received
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_answers_to_pings_keep_no_silent_stream_alive() -> None:
    async def answer_pings_only(socket: ServerConnection) -> None:
        async for text in socket:
            if text == "ping":
                await socket.send("pong")

    async with line_to(answer_pings_only) as (link, received):
        with anyio.fail_after(20):
            while link.counts[Trouble.SILENT] < 2 or "pong" not in received:  # noqa: ASYNC110
                await anyio.sleep(0.01)
    assert set(received) == {"pong"}
    assert link.age_s is None


@pytest.mark.anyio
async def test_a_socket_whose_peer_vanished_is_noticed() -> None:
    async def vanish(socket: ServerConnection) -> None:
        await socket.send("data")
        socket.transport.pause_reading()
        await anyio.sleep(0.3)

    async with line_to(vanish) as (link, _):
        await anyio.sleep(0.3)
    assert link.counts[Trouble.SILENT] >= 2


@pytest.mark.anyio
async def test_data_keep_a_stream_alive_and_it_is_pinged_all_the_same() -> None:
    heard: list[str | bytes] = []

    async def publish(socket: ServerConnection) -> None:
        async def listen() -> None:
            while True:
                heard.append(await socket.recv())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            for _ in range(30):
                await socket.send("data")
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    async with line_to(publish) as (link, _):
        await anyio.sleep(0.25)
        assert link.connected
    assert link.reconnects == 0
    assert heard[0] == "hello"
    assert heard.count("ping") >= 5


@pytest.mark.anyio
async def test_a_venue_that_is_not_there_is_tried_with_growing_waits() -> None:
    tried_s: list[float] = []

    class Counted(Link):
        def lost(self, trouble: Trouble) -> None:
            super().lost(trouble)
            tried_s.append(self.now_s())

    link = Counted(anyio.current_time)
    # port 9 of the loopback: nobody listens there
    settings = StreamSettings(
        url="ws://127.0.0.1:9", **(SETTINGS | {"wait_first_s": 0.01, "wait_longest_s": 0.04})
    )
    talk = Talk(greetings=[], ping="ping", receive=lambda _: True, broken=lambda: None)
    with anyio.move_on_after(0.25):
        await keep_open(settings, talk, link, lambda: 0.999)
    waits = [after - before for before, after in pairwise(tried_s)]
    assert 4 <= link.counts[Trouble.UNREACHABLE] <= 12
    assert waits[0] < waits[2]
    assert max(waits) < 0.1


@pytest.mark.anyio
async def test_what_does_not_speak_websocket_is_counted_as_such() -> None:
    async def hang_up(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    link = Link(anyio.current_time)
    talk = Talk(greetings=[], ping="ping", receive=lambda _: True, broken=lambda: None)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, hang_up)
        settings = StreamSettings(url=f"ws://127.0.0.1:{port}", **SETTINGS)
        tasks.start_soon(keep_open, settings, talk, link, lambda: 0.5)
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert link.counts[Trouble.HANDSHAKE] >= 2
    assert link.connections == 0
