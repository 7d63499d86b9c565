"""``lockstep run`` as its user has it: a market over sockets, commands, a stop, a restart."""

import json
import os
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

    def start(self, **environ: str) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [LOCKSTEP, "run", "--config", str(self.profile)],
                stdout=log,
                stderr=log,
                env=os.environ | environ,
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


def test_a_reload_takes_up_what_may_change_and_refuses_the_rest(
    exchange: StandinExchange, tmp_path: Path
) -> None:
    desk, asked = Desk(tmp_path, exchange), tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(asked))
        systemd.settimeout(30)
        desk.start(NOTIFY_SOCKET=str(asked))
        assert systemd.recv(4096).startswith(b"READY=1")
        token = tmp_path / "runs" / "control.token"
        old = token.read_text().strip()
        token.write_text("another-token-of-40-signs")
        was = desk.profile.read_text()
        desk.profile.write_text(
            was.replace("fast = 3", "fast = 4").replace(
                "port = ", "requests_per_minute = 999\nport = "
            )
            + "[log]\nlevel = 'debug'\n[notify]\ntopics = ['mode']\n"
        )
        assert desk.process is not None
        desk.process.send_signal(signal.SIGHUP)
        begun, over = systemd.recv(4096).decode(), systemd.recv(4096).decode()
        assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert over == "READY=1\nSTATUS=reloaded; refused: strategies.trend.params.fast"
        headers = {"Authorization": f"Bearer {old}"}
        assert httpx.get(f"{desk.url}/status", headers=headers).status_code == 401
        assert desk.say("status")["mode"] == "active"
        desk.profile.write_text("[account")
        desk.process.send_signal(signal.SIGHUP)
        assert systemd.recv(4096).startswith(b"RELOADING=1")
        assert systemd.recv(4096) == b"READY=1\nSTATUS=reload failed, see the log"
        assert desk.say("status")["mode"] == "active"
        assert desk.stop() == 0
    lines = [json.loads(line) for line in desk.log().splitlines() if line.startswith("{")]
    by_event = {line["event"]: line for line in lines}
    wanted = {"api.requests_per_minute", "log.level", "notify.topics"}
    assert set(by_event["reloaded"]["changed"]) == wanted
    assert by_event["reload refused"]["keys"] == ["strategies.trend.params.fast"]
    assert "begins a new run" in by_event["reload refused"]["why"]
    assert "Expected ']'" in by_event["reload failed, the settings stay"]["why"]
    assert old not in desk.log()
