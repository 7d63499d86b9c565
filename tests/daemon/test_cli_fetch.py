"""``lockstep data fetch`` against a stand-in on real sockets, and a replay of what it wrote."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from cli_calls import refuse, succeed
from standin_dlob import DAY, HOUR, StandinDlob, fills_of, record_files
from worlds import START, walk

from markets.candles import read_candles

SOL = "SOL-PERP"
BARS = 300


@contextmanager
def served(standin: StandinDlob) -> Iterator[StandinDlob]:
    """The stand-in in a thread of its own: the command runs a loop itself."""
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with standin.open():
            ready.set()
            await anyio.to_thread.run_sync(over.wait)

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(10)
        yield standin
    finally:
        over.set()
        thread.join()


@pytest.fixture
def host() -> Iterator[StandinDlob]:
    fills = fills_of(walk(BARS))
    standin = StandinDlob({SOL: fills}, start_ms=START + DAY, browser=True)
    rates = {START + hour * HOUR + 7_000: hour * 1e-6 for hour in range(1, 5)}
    standin.files = record_files(SOL, fills, rates)
    with served(standin):
        yield standin


def words(host: StandinDlob, out: Path, *more: object) -> tuple[object, ...]:
    days = "--from", "20250504", "--to", "20250506"
    asked = "--venue", "drift", "--market", SOL, *days, "--out", out, "--url", host.url
    return "data", "fetch", *asked, *more


def test_days_become_a_file_that_a_replay_reads(host: StandinDlob, tmp_path: Path) -> None:
    told = succeed(*words(host, tmp_path, "--json")).json
    assert told["bars"] == BARS
    assert {"close", "oracle", "funding_rate"} <= set(told["fields"])
    assert "1 days without tradeRecords: 20250505" in told["notes"]
    bars = read_candles(told["path"]).bars
    assert bars["close"].tolist() == [candle.close for candle in host.candles[SOL]]
    run = succeed("replay", "--strategy", "trend", "--data", told["path"], "--json").json
    assert run
    asked = len(host.requests)
    assert succeed(*words(host, tmp_path, "--json")).json["digest"] == told["digest"]
    assert len(host.requests) == asked + 2


@pytest.mark.parametrize("source", ["candles", "trades"])
def test_the_data_api_makes_the_same_bars(source: str, host: StandinDlob, tmp_path: Path) -> None:
    told = succeed(*words(host, tmp_path, "--source", source, "--json")).json
    bars = read_candles(told["path"]).bars
    assert bars["close"].tolist() == [candle.close for candle in host.candles[SOL]]
    assert "funding_rate" in told["fields"]


def test_what_cannot_be_had_is_one_line_that_says_the_hosts_stopped(
    host: StandinDlob, tmp_path: Path
) -> None:
    sol = "--market", SOL, "--from", "20250504", "--to", "20250506", "--out", tmp_path
    stopped = "drift's own hosts stopped"
    assert stopped in refuse(2, "data", "fetch", *sol, "--source", "candles")
    assert stopped in refuse(3, *words(host, tmp_path, "--market", "sol-perp"))
    dead = "--url", "http://127.0.0.1:1"
    assert stopped in refuse(1, *words(host, tmp_path, "--source", "candles", *dead))
    told = refuse(2, *words(host, tmp_path, "--header", "Origin"))
    assert "write NAME=VALUE" in told
    other = "--source", "candles", "--header", "Origin="
    assert succeed(*words(host, tmp_path, *other)).code == 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[: len(data) // 2], "damaged: Compressed file ended before"),
        (lambda data: data[:-8] + bytes(8), "damaged: CRC check failed"),
        (lambda data: gzip.compress(b"ts,open\n1,2\n"), "not a file of tradeRecords"),
        (lambda data: gzip.compress(b"fillRecordId,ts\n1,2\n"), "baseAssetAmountFilled"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(
    spoil: Any, said: str, host: StandinDlob, tmp_path: Path
) -> None:
    (path,) = (path for path in host.files if "tradeRecords" in path)
    host.files[path] = spoil(host.files[path])
    told = refuse(3, *words(host, tmp_path))
    assert said in told
    assert "tradeRecords/20" in told


def test_a_range_that_ends_before_it_starts_is_refused(tmp_path: Path) -> None:
    sol = "--market", SOL, "--from", "20250506", "--to", "20250504", "--out", tmp_path
    assert "ends before it starts" in refuse(2, "data", "fetch", *sol)
