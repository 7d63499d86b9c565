"""Shards: one has one worker and one result, whoever is killed, in either database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_calls import desk, succeed
from shard_world import finish, said, start, until, without_seconds
from sqlalchemy import func, select

from backtest.shards import ATTEMPTS_MAX, Shard, Shards, State
from backtest.shards import table as shards
from core.errors import JournalError
from daemon.journal import open_journal
from daemon.journal.trials import shard_table
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


def test_a_shard_that_failed_is_tried_again_by_who_asks_again(table: Shards) -> None:
    table.enqueue([shard()])
    table.fail(shard(), "out of memory")
    assert claim(table) is None
    table.enqueue([shard()])
    assert claim(table) == shard()
    table.finish(shard(), {"rows": []})
    table.enqueue([shard()])
    assert (table.result(shard()), claim(table)) == ({"rows": []}, None)


SEARCH = ("sweep", "--strategy", "trend", "--data", "SOL-PERP.feather", "--optuna", 20)
SEARCH += ("--set", "fast=5:15", "--set", "slow=20,40", "--json")


@pytest.fixture
def market(desk: Path) -> Path:
    write(sample(bars=14_400)["SOL-PERP"], desk / "SOL-PERP.feather")
    return desk


def offered(url: str) -> int:
    """How many shards stand in the table."""
    engine = open_journal(url)
    try:
        with engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(shards)).scalar_one()
    finally:
        engine.dispose()


def test_a_worker_with_other_data_refuses_and_gives_its_shard_back(
    market: Path, journal_url: str
) -> None:
    search = start(market, *SEARCH, "--shards", "--journal", journal_url)
    until(lambda: "waiting for workers" in said(search)[1], "it has made the table")
    until(lambda: offered(journal_url) == 3, "it offers the shards of its batch")
    elsewhere = market / "elsewhere"
    elsewhere.mkdir()
    write(sample(bars=300)["SOL-PERP"], elsewhere / "SOL-PERP.feather")
    for folder, why in ((elsewhere, "other code, settings or data"), (market, "")):
        worker = start(folder, "worker", "--journal", journal_url, "--drain")
        assert worker.wait() == (2 if why else 0), said(worker)
        assert why in said(worker)[1]
    told = without_seconds(finish(search))
    assert told == without_seconds(succeed(*SEARCH, "--journal", journal_url).out)
