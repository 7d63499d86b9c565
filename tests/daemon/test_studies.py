"""A study of Optuna in the journal's PostgreSQL asks what one in a file asks, whatever breaks."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from backtest.sweep.rows import Row
from backtest.sweep.search import Questions, file_storage
from backtest.sweep.space import Point, axes_of
from core.errors import JournalError, JournalUnreachable
from daemon.journal import open_journal, upgrade
from daemon.journal.patience import patiently
from daemon.journal.studies import study_storage
from strategies.trend import TREND

AXES = axes_of(TREND, {"fast": "5:45", "stop_loss": "0.01:0.1", "slow": "50,100,200"}, ())
COUNT = 70


def run(points: list[Point], first: int) -> Iterator[Row]:
    """Rows with a figure that any machine makes alike; none for some."""
    for place, point in enumerate(points, first):
        value = None if place % 10 == 3 else point["fast"] * 2.0 - point["slow"]
        yield Row(place=place, params=point, metrics={"sharpe": value})


@pytest.fixture
def in_file(tmp_path: Path) -> Questions:
    storing = partial(file_storage, tmp_path / "study.journal")
    terms: dict[str, Any] = {"axes": AXES, "metric": "sharpe", "seed": 2, "storing": storing}
    return Questions(name="study", count=COUNT, **terms)


def query(url: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        done = connection.execute(text)
        return done.fetchall() if done.description else []


@pytest.mark.slow
def test_it_goes_on_through_broken_connections(in_file: Questions, empty_postgres: str) -> None:
    upgrade(empty_postgres)
    engine = open_journal(empty_postgres)
    storing = partial(study_storage, engine)
    shared = replace(in_file, storing=storing, attempt=patiently)
    over, broken = threading.Event(), []
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def cutting() -> None:
        while not over.wait(0.3) and len(broken) < 3:
            broken.extend(query(empty_postgres, cut))

    thread = threading.Thread(target=cutting)
    thread.start()
    rows = [row.plain() for row in shared.rows(run)]
    over.set()
    thread.join()
    assert rows == [row.plain() for row in in_file.rows(run)]
    assert len(broken) > 1
    again = [row.plain() for row in shared.rows(run)]
    assert again == rows
    engine.dispose()
    states = "SELECT state, count(DISTINCT value_json::int) FROM optuna.trials JOIN "
    states += "optuna.trial_user_attributes USING (trial_id) GROUP BY state ORDER BY state"
    assert query(empty_postgres, states) == [("COMPLETE", 63), ("FAIL", 7)]
    # the journal's own schema is what it was
    open_journal(empty_postgres).dispose()


def test_what_the_database_refuses_is_an_error_of_one_line(empty_postgres: str) -> None:
    upgrade(empty_postgres)
    engine = open_journal(empty_postgres)
    with pytest.raises(JournalUnreachable, match="terminating connection"):
        ask(engine, "SELECT pg_terminate_backend(pg_backend_pid())")
    query(empty_postgres, "DROP SCHEMA optuna CASCADE")
    query(empty_postgres, "CREATE SCHEMA optuna")
    query(empty_postgres, "CREATE TABLE optuna.studies (nothing int)")
    with pytest.raises(JournalError, match=r"^journal postgresql.*study_id"):
        ask(engine, "SELECT 1")
    engine.dispose()


def ask(engine: Engine, text: str) -> None:
    """Ask the database over a connection of Optuna's."""
    with study_storage(engine) as storage, storage.engine.connect() as connection:
        connection.exec_driver_sql(text)
