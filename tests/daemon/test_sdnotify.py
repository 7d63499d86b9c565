"""sd_notify over real datagram sockets: what is said, when, and that nobody is no trouble."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from daemon.sdnotify import Notifier, Watchdog

LIMIT_S = 30.0


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A value of NOTIFY_SOCKET of each kind."""
    if request.param == "path":
        return str(tmp_path / "notify")
    return f"@lockstep-test-{os.getpid()}-{tmp_path.name}"


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    """The service manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        listening.setblocking(False)
        yield listening


def heard(listening: socket.socket) -> list[str]:
    """Every datagram that is there."""
    told = []
    while True:
        try:
            told.append(listening.recv(4096).decode())
        except BlockingIOError:
            return told


def test_each_state_is_one_datagram(systemd: socket.socket, address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert notifier.ready("live on\npaper")
    assert notifier.status("3 bars")
    assert notifier.stopping()
    assert notifier.extend_start(1.5)
    assert notifier.alive()
    assert heard(systemd) == [
        "READY=1\nSTATUS=live on paper",
        "STATUS=3 bars",
        "STOPPING=1\nSTATUS=draining",
        "EXTEND_TIMEOUT_USEC=1500000",
        "WATCHDOG=1",
    ]


def test_a_reload_says_when_it_began(systemd: socket.socket, address: str) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert Notifier({"NOTIFY_SOCKET": address}).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = heard(systemd)[0].split("\n")
    assert first == "RELOADING=1"
    name, stamp = second.split("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(stamp) <= after


def test_without_a_socket_nothing_is_sent() -> None:
    notifier = Notifier({})
    assert not notifier.ready()
    Watchdog(notifier, {"WATCHDOG_USEC": "1000000"}).tick_done()


def test_a_socket_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def watchdog(address: str, clock: Clock, **environ: str) -> Watchdog:
    limit = {"WATCHDOG_USEC": str(int(LIMIT_S * 1e6)), **environ}
    return Watchdog(Notifier({"NOTIFY_SOCKET": address}), limit, clock)


def test_ticks_ping_at_most_three_times_a_limit(systemd: socket.socket, address: str) -> None:
    clock = Clock()
    dog = watchdog(address, clock)
    for _ in range(600):  # 60 s of ticks, ten a second
        dog.tick_done()
        clock.now_s += 0.1
    assert heard(systemd) == ["WATCHDOG=1"] * 6


def test_no_tick_no_ping(systemd: socket.socket, address: str) -> None:
    clock = Clock()
    dog = watchdog(address, clock)
    dog.tick_done()
    clock.now_s += 10 * LIMIT_S
    assert heard(systemd) == ["WATCHDOG=1"]
    dog.tick_done()
    assert heard(systemd) == ["WATCHDOG=1"]


@pytest.mark.parametrize("environ", [{"WATCHDOG_USEC": "0"}, {"WATCHDOG_PID": "1"}])
def test_where_no_watchdog_is_ours_none_is_pinged(
    systemd: socket.socket, address: str, environ: dict[str, str]
) -> None:
    watchdog(address, Clock(), **environ).tick_done()
    assert heard(systemd) == []
    watchdog(address, Clock(), WATCHDOG_PID=str(os.getpid())).tick_done()
    assert heard(systemd) == ["WATCHDOG=1"]


def test_a_ping_that_was_not_taken_is_tried_at_the_next_tick(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "late"), Clock()
    dog = watchdog(path, clock)
    dog.tick_done()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.setblocking(False)
        dog.tick_done()
        assert heard(listening) == ["WATCHDOG=1"]


@pytest.mark.parametrize("idle", [True, False])
def test_a_quiet_market_is_alive_and_a_stuck_tick_is_not(
    systemd: socket.socket, address: str, idle: bool
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    dog = Watchdog(notifier, {"WATCHDOG_USEC": "60000"})  # 60 ms: a ping each 20 ms

    async def watch() -> None:
        with anyio.move_on_after(0.5):
            await dog.keep(lambda: idle)

    anyio.run(watch)
    pings = len(heard(systemd))
    assert (5 <= pings <= 25) if idle else pings == 0
