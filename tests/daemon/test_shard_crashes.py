"""A worker, who asked for the work, and the database: each is killed, and nothing is lost or done
twice, whatever is cut into shards."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cli_calls import desk, succeed
from postgres_server import Server, serving
from shard_world import Process, finish, kill, said, start, until, without_seconds, working

from backtest.validation.returns import read_returns
from daemon.journal import open_journal, upgrade
from daemon.journal.trials import trial_ledger
from markets.export import write
from markets.synthetic import sample

__all__ = ["desk"]

TREND = ("--strategy", "trend", "--data", "SOL-PERP.feather")
RANGES = ("--set", "fast=5:45:1", "--set", "slow=50:200:6")
FEWER = ("--set", "fast=5:45:2", "--set", "slow=50:200:20")
ALONE = ("--journal", "sqlite:///alone.sqlite")
LEASE = ("--lease", "1s")
SEARCHES: dict[str, tuple[tuple[object, ...], int]] = {
    "sweep": (("sweep", *TREND, *RANGES), 41 * 26),
    "optuna": (
        ("sweep", *TREND, "--optuna", 160, "--set", "fast=5:45", "--set", "stop_loss=0.01:0.1"),
        160,
    ),
    "walk": (
        ("walk-forward", *TREND, *FEWER, "--train", "4d", "--test", "2d"),
        4 * 21 * 8 + 1,
    ),
    "stress": (("stress", "--paths", 20_000), 0),
}
"""What is asked for, and how many trials of the ledger it is."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that nobody else minds being killed."""
    with serving() as found:
        yield found


@pytest.fixture
def market(desk: Path) -> Path:
    """Ten days of minutes and more, and a run over them."""
    write(sample(bars=15_840)["SOL-PERP"], desk / "SOL-PERP.feather")
    succeed("replay", *TREND, "--json")
    return desk


def count(url: str, query: str, *words: object) -> int:
    with psycopg.connect(url) as connection:
        (found,) = connection.execute(query, words).fetchone() or (0,)
    return int(found or 0)


LEASED = "SELECT count(*) FROM shards WHERE state = 'leased' AND worker LIKE %s"
MIDWAY = {
    "optuna": "SELECT count(*) FROM optuna.trials WHERE number >= 64",
    "other": "SELECT count(*) FROM shards WHERE state = 'done'",
}
"""What is not zero once the work is half done: a second batch asked, a shard done."""


def caught(url: str, worker: Process, *conditions: str) -> bool:
    """Whether this worker holds a lease and all else is true; it is stopped when it does."""
    worker.send_signal(signal.SIGSTOP)
    held = count(url, LEASED, f"%-{worker.pid}") and all(count(url, each) for each in conditions)
    if not held:
        worker.send_signal(signal.SIGCONT)
    return bool(held)


def counted(url: str, trials: int) -> None:
    """Every trial of the ledger ended once, with a result."""
    engine = open_journal(url)
    history = trial_ledger(engine).history()
    engine.dispose()
    assert (history.count, history.running) == (trials, ())
    assert {ending.fate.value for ending in history.endings.values()} <= {"result"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_a_worker_who_asked_and_the_database_are_killed(
    market: Path, server: Server, name: str
) -> None:
    words, trials = SEARCHES[name]
    url = server.create(name)
    upgrade(url)
    file, kind = ("--report", "html") if name == "stress" else ("--returns", "npz")
    here = without_seconds(succeed(*words, *ALONE, file, f"here.{kind}", "--json").out)
    search = (*words, "--shards", "--journal", url, file, f"there.{kind}", "--json")
    first = start(market, *search)
    with working(market, 2, ("--journal", url, *LEASE)) as workers:
        until(lambda: "waiting for workers" in said(first)[1], "shards are offered")
        until(lambda: caught(url, workers[0]), "the first worker takes a shard")
        kill(workers[0], first)
        second = start(market, *search)
        again = "SELECT count(*) FROM shards WHERE attempts > 1"
        until(lambda: count(url, again), "the second worker takes up what the first had")
        midway = MIDWAY.get(name, MIDWAY["other"])
        until(lambda: caught(url, workers[1], midway), "it holds another, half-way through")
        server.kill()
        server.start()
        workers[1].send_signal(signal.SIGCONT)
        there = without_seconds(finish(second))
        assert workers[1].poll() is None
    if name == "stress":
        assert (here.pop("report"), there.pop("report")) == ("here.html", "there.html")
        assert Path("here.html").read_bytes() == Path("there.html").read_bytes()
    else:
        mine, theirs = read_returns(Path("here.npz")), read_returns(Path("there.npz"))
        assert (mine.study, mine.trials) == (theirs.study, theirs.trials)
        assert mine.returns.tobytes() == theirs.returns.tobytes()
    assert here == there
    counted(url, trials)
    assert count(url, "SELECT count(*) FROM shards") == 0
    if name == "optuna":
        asked = "SELECT count(*) FROM optuna.trials"
        assert count(url, asked) == count(url, f"{asked} WHERE state = 'COMPLETE'") == trials
