"""The daemon audits its own journal: a clean record counts as a check, a forged one as mismatches,
and an audit that could not be made as neither."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from standin_exchange import StandinExchange
from test_run_end_to_end import Desk, exchange
from worlds import MINUTE

__all__ = ["exchange"]

pytestmark = pytest.mark.slow

CHECKS, MISMATCHES, LAST = (
    "lockstep_parity_checks_total",
    "lockstep_parity_mismatches_total",
    "lockstep_last_parity_check_timestamp_seconds",
)
SNAPSHOT_EVENTS = 20


@contextmanager
def heard() -> Iterator[tuple[str, list[str]]]:
    """A webhook over a real socket: its address, and everything it was told."""
    told: list[str] = []

    class Talk(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Talk)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def desk_of(folder: Path, exchange: StandinExchange, audit_hours: float, hook: str) -> Desk:
    desk = Desk(folder, exchange)
    live = f"[live]\naudit_hours = {audit_hours}\nsnapshot_events = {SNAPSHOT_EVENTS}\n"
    text = desk.profile.read_text().replace("[live.feed]", f"{live}\n[live.feed]")
    text = text.replace("[api]", "[api]\nrequests_per_minute = 6000")
    secret = folder / "hook"
    secret.write_text(hook)
    secret.chmod(0o600)
    desk.profile.write_text(f'{text}\n[notify]\nwebhook_file = "{secret}"\n')
    return desk


def values(desk: Desk) -> dict[str, float]:
    families = text_string_to_metric_families(desk.metrics())
    return {sample.name: sample.value for family in families for sample in family.samples}


def play(desk: Desk, exchange: StandinExchange, bars: int) -> None:
    """Start the daemon and play so many bars to it."""
    portal: Any = exchange.portal  # type: ignore[attr-defined]
    played = portal.start_task_soon(exchange.play, exchange.now + bars * MINUTE)
    try:
        desk.start()
        played.result(60)
    finally:
        played.cancel()
    desk.wait_for(lambda: values(desk)["lockstep_bars_processed_total"] >= bars - 3)


def journal(folder: Path) -> Any:
    return closing(sqlite3.connect(folder / "journal.sqlite"))


def forge(folder: Path) -> None:
    """Change one outcome before the snapshot that a restart goes on from."""
    with journal(folder) as database:
        kept = database.execute("SELECT max(seq) FROM snapshots").fetchone()[0]
        seq, raw = database.execute(
            "SELECT seq, records FROM steps WHERE outcomes > 0 AND seq <= ? ORDER BY seq LIMIT 1",
            (kept,),
        ).fetchone()
        forged = bytearray(raw)
        forged[48] ^= 1
        database.execute("UPDATE steps SET records = ? WHERE seq = ?", (bytes(forged), seq))
        database.commit()


def logged(desk: Desk, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in desk.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_clean_record_counts_as_a_check(exchange: StandinExchange, tmp_path: Path) -> None:
    with heard() as (hook, told):
        desk = desk_of(tmp_path, exchange, 0, hook)
        play(desk, exchange, 40)
        assert values(desk)[CHECKS] == 0
        assert desk.stop() == 0

        desk.profile.write_text(desk.profile.read_text().replace("hours = 0", "hours = 1"))
        desk.start()
        desk.wait_for(lambda: values(desk)[CHECKS] == 1)
        found = values(desk)
        assert desk.stop() == 0
    assert found[MISMATCHES] == 0
    assert found[LAST] > found["lockstep_start_timestamp_seconds"]
    (line,) = logged(desk, "audited")
    assert line["outcomes"] > 10
    with journal(tmp_path) as database:
        assert line["events"] == database.execute("SELECT max(seq) FROM events").fetchone()[0]
    assert not any("replay" in text for text in told)


def test_a_forged_record_is_counted_and_told(exchange: StandinExchange, tmp_path: Path) -> None:
    with heard() as (hook, told):
        desk = desk_of(tmp_path, exchange, 0, hook)
        play(desk, exchange, 60)
        assert desk.stop() == 0
        forge(tmp_path)

        desk.profile.write_text(desk.profile.read_text().replace("hours = 0", "hours = 1"))
        desk.start()
        desk.wait_for(lambda: values(desk)[CHECKS] == 1)
        assert values(desk)[MISMATCHES] == 1
        desk.wait_for(lambda: any("1 outcomes of its replay" in text for text in told))
        assert desk.stop() == 0
    (line,) = logged(desk, "audit found mismatches")
    assert line["mismatches"] == 1
    assert "recorded:" in line["first"]


def test_an_audit_that_cannot_be_made_is_told_and_counts_as_nothing(
    exchange: StandinExchange, tmp_path: Path
) -> None:
    with heard() as (hook, told):
        # a fold takes longer than the 18 ms until the next one is due
        desk = desk_of(tmp_path, exchange, 0.000005, hook)
        play(desk, exchange, 10)
        desk.wait_for(lambda: any("could not be audited" in text for text in told))
        found = values(desk)
        assert desk.stop() == 0
    assert found[CHECKS] == found[MISMATCHES] == found[LAST] == 0
    assert "longer than live.audit_hours" in logged(desk, "audit failed")[0]["why"]
