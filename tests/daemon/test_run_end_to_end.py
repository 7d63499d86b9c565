"""``lockstep run`` as its user has it: a market over sockets, commands, a stop, a restart."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from standin_exchange import StandinExchange, candles_of
from worlds import MINUTE, bar_history

LOCKSTEP = str(Path(sys.executable).with_name("lockstep"))
COINS = ("BTC", "SOL")
BARS = 90

PROFILE = """
[account]
equity = 10_000

[live.feed]
stream = "{stream}"
info = "{info}"
warmup_bars = 0

[api]
port = {port}

[paths]
journal = "sqlite:///{folder}/journal.sqlite"
runs = "{folder}/runs"

[instruments.BTC]
lot = 0.0001
[instruments.SOL]
lot = 0.001

[strategies.trend]
params = {{ fast = 3, slow = 8 }}
offset = 0.1
sizing = {{ rule = "notional", value = 500 }}
"""


class Desk:
    """A running daemon and what its user does to it."""

    def __init__(self, folder: Path, exchange: StandinExchange) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{port}"
        self.profile = folder / "paper.toml"
        urls = {"stream": exchange.stream_url, "info": exchange.info_url}
        self.profile.write_text(PROFILE.format(**urls, port=port, folder=folder))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [LOCKSTEP, "run", "--config", str(self.profile)], stdout=log, stderr=log
            )
        self.wait_for(lambda: httpx.get(f"{self.url}/ready").status_code == 200)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def wait_for(self, met: Any, seconds: float = 40.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process is None or self.process.poll() is None, self.log()[-2_000:]
            try:
                if met():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        pytest.fail(f"it never came to that:\n{self.log()[-2_000:]}")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def say(self, *words: str) -> dict[str, Any]:
        token = self.folder / "runs" / "control.token"
        done = subprocess.run(
            [LOCKSTEP, *words, "--url", self.url, "--token-file", str(token), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def metrics(self) -> str:
        token = (self.folder / "runs" / "control.token").read_text().strip()
        answer = httpx.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200
        return answer.text


@pytest.fixture
def exchange() -> Iterator[StandinExchange]:
    """A market of two coins whose tape ends about now; its time moves as it is played."""
    start = (time.time_ns() // 1_000_000 // MINUTE - BARS) * MINUTE
    tapes = {}
    for seed, coin in enumerate(COINS, 1):
        closes = [100.0 + seed * ((k * 7 * seed) % 13) / 10 for k in range(BARS)]
        tapes[coin] = candles_of(bar_history([100.0, *closes[:-1]], closes, start=start))
    made = StandinExchange(tapes, pause_s=0.01)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(made.open()):
        made.portal = portal  # type: ignore[attr-defined]
        yield made


def bars(desk: Desk) -> float:
    lines = [line for line in desk.metrics().splitlines() if line.startswith("lockstep_bars_")]
    return sum(float(line.split()[-1]) for line in lines if "_total" in line)


def test_a_day_in_the_life_of_a_daemon(exchange: StandinExchange, tmp_path: Path) -> None:
    desk = Desk(tmp_path, exchange)
    portal: Any = exchange.portal  # type: ignore[attr-defined]
    middle = exchange.now + 60 * MINUTE
    portal.start_task_soon(exchange.play, middle)
    desk.start()
    desk.wait_for(lambda: bars(desk) >= 2 * 55)
    assert desk.say("status")["mode"] == "active"
    desk.say("halt", "--reason", "lunch")
    assert desk.say("status")["mode"] == "halted"
    assert desk.stop() == 0

    desk.start()
    assert desk.say("status")["mode"] == "halted"
    desk.say("resume", "--reason", "back from lunch")
    assert desk.say("status")["mode"] == "active"
    portal.start_task_soon(exchange.play)
    desk.wait_for(lambda: bars(desk) >= 2 * 25)
    assert desk.stop() == 0

    done = subprocess.run(
        [LOCKSTEP, "audit", "paper", "--json", "--journal", f"sqlite:///{tmp_path}/journal.sqlite"],
        capture_output=True,
        text=True,
        check=False,
    )
    audit = json.loads(done.stdout)
    assert audit["equal"], audit
    assert audit["outcomes"] > 20
    assert "lunch" in desk.log()
    token = (tmp_path / "runs" / "control.token").read_text().strip()
    assert token not in desk.log()
    assert (tmp_path / "runs" / "control.token").stat().st_mode & 0o077 == 0
