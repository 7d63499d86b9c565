"""Shards: one has one worker and one result, whoever is killed, in either database."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from cli_calls import desk, refuse, succeed
from postgres_server import serving
from shard_world import finish, kill, said, start, until, working
from sqlalchemy import Engine

from backtest.shards import ATTEMPTS_MAX, Shard, Shards, State
from backtest.validation.returns import read_returns
from core.errors import JournalError
from daemon.journal import open_journal, upgrade
from daemon.journal.trials import shard_table, trial_ledger
from markets.export import write
from markets.synthetic import sample

__all__ = ["desk"]

LEASE_MS = 1_000


@pytest.fixture
def table(journal_url: str) -> Iterator[Shards]:
    engine = open_journal(journal_url)
    yield shard_table(engine)
    engine.dispose()


def shard(place: int = 0) -> Shard:
    return Shard(study="s", place=place, kind="sweep", payload={"points": [place]})


def claim(table: Shards, who: str = "ann", now_ms: int = 0) -> Shard | None:
    return table.claim(who, now_ms=now_ms, lease_ms=LEASE_MS)


def test_a_shard_has_one_worker_until_its_lease_is_over(table: Shards) -> None:
    table.enqueue([shard(1), shard(0)])
    table.enqueue([shard(0)])
    assert [claim(table), claim(table, "bob"), claim(table, "eve")] == [shard(0), shard(1), None]
    assert table.extend(shard(0), "ann", until_ms=5_000)
    assert not table.extend(shard(0), "bob", until_ms=9_000)
    assert claim(table, "eve", LEASE_MS) is None
    assert claim(table, "eve", LEASE_MS + 1) == shard(1)
    assert not table.extend(shard(1), "bob", until_ms=9_000)
    assert claim(table, "bob", 5_001) == shard(0)


def test_a_shard_has_one_result_whoever_brings_it(table: Shards) -> None:
    table.enqueue([shard()])
    assert claim(table) == shard()
    assert claim(table, "bob", LEASE_MS + 1) == shard()
    table.finish(shard(), {"rows": [1]})
    table.finish(shard(), {"rows": [1]})
    table.fail(shard(), "too late to say so")
    table.enqueue([shard()])
    assert (table.result(shard()), claim(table)) == ({"rows": [1]}, None)
    with pytest.raises(JournalError, match="had another result"):
        table.finish(shard(), {"rows": [2]})
    table.forget([shard()])
    table.finish(shard(), {"rows": [1]})
    assert table.states([shard()]) == {}


def test_what_was_given_back_is_free_and_what_kills_its_workers_fails(table: Shards) -> None:
    table.enqueue([shard()])
    for _ in range(ATTEMPTS_MAX + 1):
        assert claim(table) == shard()
        table.release(shard(), "bob")
        assert table.states([shard()]) == {shard().id: State.LEASED}
        table.release(shard(), "ann")
    for attempt in range(ATTEMPTS_MAX):
        assert claim(table, now_ms=attempt * 2 * LEASE_MS) == shard()
    assert claim(table, now_ms=1_000_000) is None
    with pytest.raises(JournalError, match="has no result: 5 workers were lost over it, the last"):
        table.result(shard())


DATA = ("--strategy", "trend", "--data", "SOL-PERP.feather")
MANY = (*DATA, "--set", "fast=5:45:1", "--set", "slow=50:200:6", "--json")
FEW = (*DATA, "--set", "fast=5:15:5", "--set", "slow=20,40", "--json")
COUNT, SHARDS = 41 * 26, 9


@pytest.fixture
def market(desk: Path) -> Path:
    write(sample(bars=14_400)["SOL-PERP"], desk / "SOL-PERP.feather")
    return desk


def without_seconds(out: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(out)
    return {name: value for name, value in told.items() if name != "seconds"}


def holds(url: str, process: Any) -> bool:
    """Whether this worker holds a lease; it is stopped when it does."""
    process.send_signal(signal.SIGSTOP)
    with psycopg.connect(url) as connection:
        query = "SELECT count(*) FROM shards WHERE state = 'leased' AND worker LIKE %s"
        (count,) = connection.execute(query, [f"%-{process.pid}"]).fetchone() or (0,)
    if count == 0:
        process.send_signal(signal.SIGCONT)
    return bool(count)


def states(url: str) -> tuple[int, int]:
    """How many shards are done, and the most attempts at one."""
    with psycopg.connect(url) as connection:
        query = "SELECT count(*) FILTER (WHERE state = 'done'), max(attempts) FROM shards"
        done, attempts = connection.execute(query).fetchone() or (0, 0)
    return done, attempts or 0


def whole(url: str) -> None:
    """Every trial of the ledger ended once, with a result."""
    engine: Engine = open_journal(url)
    history = trial_ledger(engine).history()
    engine.dispose()
    assert (history.count, history.running) == (COUNT, ())
    assert {ending.fate.value for ending in history.endings.values()} == {"result"}


@pytest.mark.slow
def test_two_workers_a_search_and_the_database_are_killed(market: Path) -> None:
    alone = succeed("sweep", *MANY, "--journal", "sqlite:///alone.sqlite", "--returns", "a.npz")
    with serving() as server:
        url = server.create("shards")
        upgrade(url)
        search = ("sweep", *MANY, "--shards", "--journal", url, "--returns", "b.npz")
        first = start(market, *search)
        with working(market, 2, ("--journal", url, "--lease", "2s")) as workers:
            until(lambda: "waiting for workers" in said(first)[1], "the search offers its shards")
            until(lambda: holds(url, workers[0]), "the first worker takes a shard")
            kill(workers[0], first)
            workers.append(start(market, "worker", "--journal", url, "--lease", "2s"))
            until(lambda: states(url)[0] > 1, "the second worker goes on alone")
            server.kill()
            server.start()
            until(lambda: states(url)[0] == SHARDS, "they go on, though nobody waits for them")
            assert states(url)[1] == 2, "one was taken up again"
            told = finish(start(market, *search))
            assert [worker.poll() for worker in workers[1:]] == [None, None]
        assert without_seconds(told) == without_seconds(alone.out)
        mine, theirs = read_returns(Path("a.npz")), read_returns(Path("b.npz"))
        assert (mine.study, mine.trials) == (theirs.study, theirs.trials)
        np.testing.assert_array_equal(mine.returns, theirs.returns)
        whole(url)
        assert states(url) == (0, 0)


def test_a_worker_with_other_data_refuses_and_gives_its_shard_back(
    market: Path, journal_url: str
) -> None:
    search = start(market, "sweep", *FEW, "--shards", "--journal", journal_url)
    until(lambda: "waiting for workers" in said(search)[1], "the search offers its shards")
    elsewhere = market / "elsewhere"
    elsewhere.mkdir()
    write(sample(bars=300)["SOL-PERP"], elsewhere / "SOL-PERP.feather")
    for folder, why in ((elsewhere, "other code, settings or data"), (market, "")):
        worker = start(folder, "worker", "--journal", journal_url, "--drain")
        assert worker.wait(timeout=120) == (2 if why else 0), said(worker)
        assert why in said(worker)[1]
    told = without_seconds(finish(search))
    assert told == without_seconds(succeed("sweep", *FEW, "--journal", journal_url).out)


def test_a_study_of_optuna_is_not_cut_into_shards(market: Path) -> None:
    assert "runs on one machine" in refuse(2, "sweep", *DATA, "--optuna", 8, "--shards")
