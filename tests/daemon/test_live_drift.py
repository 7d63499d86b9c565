"""The daemon on Drift's feed: its settings, and that live, journal and download decide the same.

A journal holds what the daemon saw, so its replay is the run in everything. A download holds what
the venue keeps: bars and funding. It lacks the books (their quotes depend on the moment they were
read) and what was told of the line, which the gate heeds; so nobody watches it here. What reads
bars and funding alone, behind a spread of its own that is wider than the book's, must decide from
a download what it decided live.
"""

import json
import random
from pathlib import Path
from typing import Any

import anyio
import pytest
from cli_calls import succeed
from standin_dlob import SETTLED_AFTER_MS, STREAM_FAULTS, StandinDlob, fills_of, record_files
from standin_stream import REQUEST_FAULTS, Fault
from test_cli_fetch import served
from test_drift_feed import settings_for
from worlds import START, walk

from backtest.recorded import replay_recorded
from backtest.run import decisions_hash
from config.settings import Line
from core.errors import ConfigError
from core.model import Kind, Result
from daemon.commands.audit import finder
from daemon.commands.choices import Choices, read_settings
from daemon.commands.run import CARRIED, UNTOLD, drift_feed, heard_of
from daemon.commands.setups import live_setup
from daemon.commands.shelf import open_shelf
from daemon.journal import open_journal, read_events, read_outcomes, read_run_row, sqlite_url
from daemon.live.recovery import where
from daemon.live.service import Service, open_service, paper_row, run_service
from daemon.supervisor import Task
from markets.drift.data_api import BROWSER
from markets.drift.feed import DriftFeed

SOL, BARS, MINUTE, HOUR = "SOL-PERP", 300, 60_000, 3_600_000
QUIET = [START + minute * MINUTE for minute in (20, 59, 60, 121)]
PROFILE = """
[paths]
journal = "sqlite:///{folder}/j.sqlite"
runs = "{folder}/runs"

[instruments.SOL-PERP]
lot = 0.0001
tick = 0.01
half_spread_bps = 50.0

[strategies.trend]
params = {{ fast = 5, slow = 12, stop_loss = 0.02 }}
offset = 0.1
sizing = {{ rule = "notional", value = 1_000 }}

[strategies.paid]
rules = "{folder}/paid.json"
"""
PAID = {
    "name": "paid",
    "conditions": {
        "entry": ["funding_rate < 0.000092", "price > ma_5"],
        "exit": ["funding_rate > 0.0000925", "bars_held > 90"],
    },
}


def at_random(share: float, seed: int, kinds: tuple[Fault, ...]) -> Any:
    chance = random.Random(seed)
    return lambda: chance.choice(kinds) if chance.random() < share else None


def profile_in(folder: Path) -> Path:
    (folder / "paid.json").write_text(json.dumps(PAID))
    path = folder / "paper.toml"
    path.write_text(PROFILE.format(folder=folder))
    return path


def played(profile: Path, standin: StandinDlob, until_ms: int, last_ms: int) -> Service:
    """Follow the stand-in, played until then, into the profile's journal until the bar that closes
    at ``last_ms`` is folded; a run that is there is gone on with."""
    resolved = read_settings(Choices(config=profile))
    setup = live_setup(resolved, open_shelf(resolved))
    database = open_journal(resolved.settings.paths.journal)
    row = paper_row("paper", setup, started_ms=0)
    told = {SOL: CARRIED - UNTOLD["drift"]}
    service = open_service(setup, told, database, row, standin.now_ms)

    def done(*_: Any) -> None:
        if max(where(service.engine).last_bar_ms.values(), default=0) >= last_ms:
            service.stop()

    async def scene() -> None:
        async with standin.open(), anyio.create_task_group() as tasks:
            # one told late is one told otherwise: bars wait until the venue answers
            more = heard_of(service) if service.recovered.seq else {"settled_ms": {SOL: START}}
            settings = settings_for(standin, funding_absent_ms=24 * HOUR, **more)
            feed = DriftFeed(settings, standin.now_ms, random.Random(1).random)
            standin.listened = anyio.Event()
            tasks.start_soon(standin.play, until_ms)
            with anyio.fail_after(60):
                await run_service(service, feed, ended=done, edges=lambda _: [Task("l", feed.run)])
            tasks.cancel_scope.cancel()

    anyio.run(scene)
    service.journal.engine.dispose()
    return service


def downloaded(standin: StandinDlob, profile: Path, source: str, until_ms: int) -> str:
    """The hash of ``lockstep replay`` over what ``lockstep data fetch`` got of the stand-in."""
    days = "--from", "20250504", "--to", "20250505"
    where_from = "--venue", "drift", "--market", SOL, "--source", source, "--url", standin.url
    out = profile.parent / source
    told = succeed("data", "fetch", *where_from, *days, "--out", out, "--json").json
    span = "--timerange", f"{START}/{until_ms}"
    words = "--config", profile, "--data", f"{SOL}={told['path']}", *span, "--json"
    found: str = succeed("replay", *words).json["decisions_hash"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.02])
def test_live_its_journal_and_what_is_downloaded_decide_the_same(
    share: float, tmp_path: Path
) -> None:
    fills = fills_of(walk(BARS), QUIET)
    standin, profile = StandinDlob({SOL: fills}), profile_in(tmp_path)
    # stopped between an hour's last bar and its settlement, which the next start must not miss
    played(profile, standin, START + 2 * HOUR + 5_000, START + 2 * HOUR)
    standin.stream_fault = at_random(share, 3, STREAM_FAULTS)
    standin.request_fault = at_random(share, 3, REQUEST_FAULTS)
    service = played(profile, standin, standin.end, standin.end - 2 * MINUTE)
    assert (standin.connections > 2) == (share > 0)

    database = open_journal(sqlite_url(tmp_path / "j.sqlite"))
    row = read_run_row(database, "paper")
    events, outcomes = read_events(database, "paper"), read_outcomes(database, "paper")
    database.dispose()
    bars = events[events["kind"] == Kind.BAR]
    until_ms = int(bars["ts_known"][-1])
    assert bars["ts_event"].tolist() == [
        candle.open_ms for candle in standin.candles[SOL] if candle.open_ms < until_ms
    ]
    assert (outcomes["kind"] == Result.FILL).sum() > 6
    assert (outcomes["kind"] == Result.FUNDING).sum() > 1

    live = decisions_hash(service.engine.digests, outcomes)
    again = replay_recorded(row.config, events, finder(read_settings(Choices(config=profile))))
    assert again.decisions_hash == live
    assert succeed("audit", "paper", "--config", profile, "--json").json["equal"]

    standin.stream_fault = standin.request_fault = lambda: None
    hours = range(START + HOUR, standin.now, HOUR)
    rates = {hour + SETTLED_AFTER_MS: standin.rate(hour) for hour in hours}
    standin.files = record_files(SOL, fills, rates)
    with served(standin):
        found = {
            source: downloaded(standin, profile, source, until_ms)
            for source in ("archive", "candles", "trades")
        }
    assert found == dict.fromkeys(found, live)


def test_the_feed_takes_its_addresses_and_headers_from_the_settings() -> None:
    followed = {"coins": (SOL,)}
    given = {"stream": "ws://a/ws", "books": "http://a", "info": "http://b"}
    line = Line(venue="drift", **given)
    feed = drift_feed(line, followed, lambda: 0, lambda: 0.5)
    assert feed.settings.stream.url == "ws://a/ws"
    assert (feed.settings.books.url, feed.settings.data.url) == ("http://a", "http://b")
    assert feed.settings.data.headers == BROWSER
    assert CARRIED - UNTOLD["drift"] >= {"bid", "mark", "oracle", "funding_rate"}
    own = Line(venue="drift", headers={"Origin": "https://c"}, **given)
    feed = drift_feed(own, followed, lambda: 0, lambda: 0.5)
    assert feed.settings.data.headers == {"Origin": "https://c"}


@pytest.mark.parametrize("missing", ["stream", "books", "info"])
def test_without_an_address_it_says_that_the_hosts_stopped(missing: str) -> None:
    given = {"stream": "ws://a/ws", "books": "http://a", "info": "http://b"}
    line = Line(venue="drift", **(given | {missing: ""}))
    with pytest.raises(ConfigError, match=rf"live.feed.{missing}: give its address: drift's own"):
        drift_feed(line, {"coins": (SOL,)}, lambda: 0, lambda: 0.5)
