"""``lockstep run`` with Drift as its venue, as its user has it: a market, a chain, a stop, a start.

The market plays faster than time, first to where the run has caught up with it, then what the run
trades.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from cli_calls import succeed
from journal_world import rows
from solders.keypair import Keypair
from standin_drift import Process, spawn
from standin_exchange import StandinExchange, candles_of
from worlds import MINUTE, bar_history

from daemon.journal import open_journal, sqlite_url

BARS_BEFORE, BARS = 20, 60
ROOT = Path(__file__).parents[2]

PROFILE = """
[live]
run = "on-drift"
venue = "drift"

[live.feed]
stream = "{stream}"
info = "{info}"
warmup_bars = 0

[drift]
endpoints = ["{node}/?api-key=word-of-the-provider"]
key_file = "{folder}/key.json"
reconcile_s = 1
resend_s = 0.2

[api]
port = {port}

[paths]
journal = "sqlite:///{folder}/journal.sqlite"
runs = "{folder}/runs"

[instruments.SOL]
lot = 0.01

[strategies.trend]
params = {{ fast = 3, slow = 8 }}
offset = 0.1
sizing = {{ rule = "notional", value = 500 }}
"""


@pytest.fixture
def exchange() -> Iterator[StandinExchange]:
    start = (time.time_ns() // 1_000_000 // MINUTE - BARS - 2) * MINUTE
    closes = [150.0 + ((k * 7) % 13) / 10 for k in range(BARS)]
    tape = candles_of(bar_history([150.0, *closes[:-1]], closes, start=start))
    made = StandinExchange({"SOL": tape}, pause_s=0.01)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(made.open()):
        made.portal = portal  # type: ignore[attr-defined]
        yield made


class Daemon:
    def __init__(self, folder: Path, exchange: StandinExchange, chain: Process) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder, self.profile = folder, folder / "drift.toml"
        self.door = ("--url", f"http://127.0.0.1:{port}")
        self.door += ("--token-file", str(folder / "runs" / "control.token"))
        addresses = {"stream": exchange.stream_url, "info": exchange.info_url, "node": chain.url}
        self.profile.write_text(PROFILE.format(**addresses, folder=folder, port=port))

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "from daemon.main import main; main()", "run"]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--config", str(self.profile)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_for(self, met: Any, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while not met():
            assert process.poll() is None, self.log[-3_000:]
            assert time.monotonic() < deadline, self.log[-3_000:]
            time.sleep(0.05)

    def trades(self, exchange: StandinExchange, process: subprocess.Popen[bytes]) -> None:
        """Play the market before the run's eyes: what comes before it sees is not traded."""
        portal: Any = exchange.portal  # type: ignore[attr-defined]
        seen = self.log.count("in sight")
        portal.start_task_soon(exchange.play, exchange.now + BARS_BEFORE * MINUTE)
        self.wait_for(lambda: self.log.count("in sight") > seen, process)
        assert self.rows("SELECT * FROM orders") == []
        portal.start_task_soon(exchange.play)

    def fills(self) -> list[Any]:
        return self.rows("SELECT order_id, quantity, fee_micros FROM fills")

    def rows(self, query: str) -> list[Any]:
        engine = open_journal(sqlite_url(self.folder / "journal.sqlite"))
        told = rows(engine, query)
        engine.dispose()
        return told


def key_in(folder: Path) -> Keypair:
    pair = Keypair()
    key = folder / "key.json"
    key.touch(0o600)
    key.write_text(json.dumps(list(bytes(pair)), separators=(",", ":")))
    return pair


def trading(
    folder: Path, exchange: StandinExchange, stack: ExitStack
) -> tuple[Process, str, Daemon, subprocess.Popen[bytes]]:
    """A chain, its user, and a run that has come into sight of its market."""
    pair = key_in(folder)
    chain = stack.enter_context(spawn("--slots-per-s", "100"))
    user = chain.desk.add_user(str(pair.pubkey()))["user"]
    chain.desk.tick(40)
    daemon = Daemon(folder, exchange, chain)
    process = daemon.start()
    stack.callback(process.kill)
    daemon.trades(exchange, process)
    return chain, user, daemon, process


@pytest.mark.slow
def test_a_run_that_traded_there_is_audited_and_listed_as_any_other(
    exchange: StandinExchange, tmp_path: Path
) -> None:
    journal = sqlite_url(tmp_path / "journal.sqlite")
    with ExitStack() as stack:
        chain, user, daemon, process = trading(tmp_path, exchange, stack)
        daemon.wait_for(lambda: len(daemon.fills()) > 2, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        fees = chain.desk.user(user)["fees"]["fees_paid"]
    named = ("on-drift", "--journal", journal, "--config", daemon.profile)
    told = succeed("audit", *named, "--json").json
    assert told["equal"], told
    assert told["outcomes"] > 0
    (row,) = succeed("journal", "list", "--journal", journal, "--json").json
    assert (row["run"], row["mode"]) == ("on-drift", "live")
    query = "SELECT order_id, filled_quantity, fee_micros FROM order_states WHERE status = 'filled'"
    assert daemon.rows(query) == daemon.fills()
    assert sum(fee for *_, fee in daemon.fills()) == fees


@pytest.mark.slow
def test_a_live_run_starts_settles_stops_and_starts_again(
    exchange: StandinExchange, tmp_path: Path
) -> None:
    pair, key = key_in(tmp_path), tmp_path / "key.json"
    with ExitStack() as stack:
        chain = stack.enter_context(spawn("--slots-per-s", "50"))
        daemon = Daemon(tmp_path, exchange, chain)
        refused = daemon.start()
        assert refused.wait(60) == 2
        assert "is unknown to program" in daemon.log
        user = chain.desk.add_user(str(pair.pubkey()))["user"]
        chain.desk.tick(40)
        process = daemon.start()
        stack.callback(process.kill)
        daemon.trades(exchange, process)
        daemon.wait_for(lambda: "reconciled" in daemon.log and daemon.fills(), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        before = daemon.log.count("reconciled")
        process = daemon.start()
        stack.callback(process.kill)
        daemon.wait_for(lambda: daemon.log.count("reconciled") > before, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert sum(fee for *_, fee in daemon.fills()) == chain.desk.user(user)["fees"]["fees_paid"]
    engine = open_journal(sqlite_url(tmp_path / "journal.sqlite"))
    assert rows(engine, "SELECT run_id, mode FROM runs") == [("on-drift", "live")]
    engine.dispose()
    assert "word-of-the-provider" not in daemon.log
    assert key.read_text() not in daemon.log


@pytest.mark.slow
def test_a_halt_that_flattens_leaves_nothing_at_the_venue(
    exchange: StandinExchange, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        chain, user, daemon, process = trading(tmp_path, exchange, stack)

        def held() -> list[int]:
            return [place["base"] for place in chain.desk.user(user)["positions"].values()]

        daemon.wait_for(lambda: exchange.now >= exchange.end and any(held()), process)
        succeed("halt", "--flatten", "--reason", "the venue may close", *daemon.door)
        daemon.wait_for(lambda: not any(held()), process)
        daemon.wait_for(lambda: abs(sum(size for _, size, _ in daemon.fills())) < 1e-9, process)
        assert succeed("status", *daemon.door, "--json").json["mode"] == "halted"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
