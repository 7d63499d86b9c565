"""A real Prometheus with the files we ship scrapes the metrics, records, and raises an alert."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from daemon.observe.metrics import CONTENT_TYPE

TOKEN = "a-token-that-may-only-read"
PATIENCE_S = 60.0
Query = Callable[[str], list[Any]]


class Metrics(BaseHTTPRequestHandler):
    """Answers as the daemon's API does: with the token, and not without."""

    text = b""

    def do_GET(self) -> None:
        given = self.headers["Authorization"] == f"Bearer {TOKEN}"
        self.send_response(200 if given and self.path == "/metrics" else 401)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.end_headers()
        if given:
            self.wfile.write(self.text)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """Address of a daemon that has made a run, and then halted."""
    from observed_world import new_engine, new_metrics, watched

    engine = new_engine()
    metrics = new_metrics(engine)
    run = watched()
    metrics.observe(run.block, run.outcomes, run.ticks[-1].track)
    metrics.reconciled(1)
    Metrics.text = metrics.exposition()
    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def asked(address: str, path: str) -> Any:
    """An answer of Prometheus, None while it does not listen yet."""
    try:
        with urlopen(f"http://{address}{path}", timeout=5) as answer:
            return json.loads(answer.read())["data"]
    except (URLError, ConnectionError):
        return None


def until(find: Callable[[], Any]) -> Any:
    """The first answer that is something, within patience."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = find()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail("nothing came")


@pytest.fixture(scope="module")
def address(folder: Path, target: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prometheus that scrapes it every second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH (Debian: apt-get install prometheus)")
    home = tmp_path_factory.mktemp("prometheus")
    (home / "token").write_text(TOKEN)
    text = (folder / "prometheus" / "prometheus.yml").read_text()
    for ours, here in {
        "/opt/lockstep": str(folder.parent),
        "/etc/prometheus/lockstep_read_token": str(home / "token"),
        "127.0.0.1:8321": target,
        "scrape_interval: 15s": "scrape_interval: 1s",
    }.items():
        assert ours in text
        text = text.replace(ours, here)
    (home / "prometheus.yml").write_text("global: {evaluation_interval: 1s}\n" + text)
    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as free:
        listen = f"127.0.0.1:{free.server_port}"
    command = [program, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen([*command, f"--web.listen-address={listen}"], stderr=log)
        try:
            yield listen
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def query(address: str) -> Query:
    def ask(expression: str) -> list[Any]:
        path = f"/api/v1/query?{urlencode({'query': expression})}"
        return until(lambda: (asked(address, path) or {}).get("result"))

    return ask


def test_the_target_is_up_and_its_money_arrives(query: Query) -> None:
    from observed_world import total, watched

    assert query('up{job="lockstep"} == 1')
    told = float(query('lockstep_equity_quote{job="lockstep"}')[0]["value"][1])
    assert told == total(watched().metrics, "lockstep_equity_quote")


def test_rules_are_evaluated_and_an_alert_fires(query: Query) -> None:
    assert query("lockstep:bar_age_seconds")
    firing = query('ALERTS{alertname="LockstepReconcileMismatch", alertstate="firing"}')
    assert firing[0]["metric"]["severity"] == "page"


def test_every_series_is_taken_and_none_is_refused(query: Query, address: str) -> None:
    scraped = float(query('scrape_samples_scraped{job="lockstep"} > 0')[0]["value"][1])
    lines = [line for line in Metrics.text.splitlines() if line and not line.startswith(b"#")]
    assert scraped == len(lines)
    active = asked(address, "/api/v1/targets")["activeTargets"]
    assert [(each["health"], each["lastError"]) for each in active] == [("up", "")]
