"""Which databases a journal opens, what it says of others, and that migrations are exact."""

import sqlite3
from contextlib import closing as closing_file
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from journal_world import begun, rows
from sqlalchemy import Engine, inspect

from core.errors import JournalError, JournalUnreachable
from daemon.journal import (
    database,
    list_runs,
    migrate,
    open_journal,
    read_commands,
    schema,
    sqlite_url,
    upgrade,
)
from daemon.journal.database import engine_of, transaction

pytestmark = pytest.mark.usefixtures("closing")


def said(url: str) -> str:
    """The one line with which a journal refuses this URL."""
    with pytest.raises(JournalError) as refusal:
        list_runs(open_journal(url))
    text = str(refusal.value)
    assert "\n" not in text
    return text


def stamp(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def test_migrations_make_exactly_the_metadata(journal_url: str) -> None:
    with open_journal(journal_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
        checks = {
            table: {check["name"] for check in inspect(connection).get_check_constraints(table)}
            for table in schema.metadata.tables
        }
    ours = {
        name: {str(check.name) for check in table.constraints if "ck_" in str(check.name)}
        for name, table in schema.metadata.tables.items()
    }
    assert checks == ours


def test_a_missing_column_would_be_seen(journal_url: str) -> None:
    engine = open_journal(journal_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE modes ADD COLUMN surplus TEXT")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert [change[0] for change in compare_metadata(context, schema.metadata)] == [
            "remove_column"
        ]


def test_a_downgrade_leaves_nothing_and_an_upgrade_brings_it_back(journal_url: str) -> None:
    engine = open_journal(journal_url)
    with transaction(engine, writes=True) as connection:
        command.downgrade(migrate.alembic_config(connection), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert inspect(engine).get_view_names() == []
    upgrade(journal_url)
    begun(open_journal(journal_url))
    assert len(list_runs(engine)) == 1


def test_a_journal_of_before_is_upgraded_and_keeps_its_runs(journal_url: str) -> None:
    engine = open_journal(journal_url)
    begun(engine)
    with transaction(engine, writes=True) as connection:
        command.downgrade(migrate.alembic_config(connection), "0002")
    assert "schema 0002 is older than ours" in said(journal_url)
    upgrade(journal_url)
    [run] = list_runs(open_journal(journal_url))
    assert read_commands(engine, run.run_id, 10) == []


def test_the_code_knows_the_head_of_its_migrations() -> None:
    scripts = ScriptDirectory(str(migrate.MIGRATIONS))
    assert scripts.get_current_head() == schema.REVISION


def test_an_older_schema_is_refused_with_the_command_to_run(
    journal_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list_runs(open_journal(journal_url)) == []
    monkeypatch.setattr(migrate, "REVISION", "0009")
    assert said(journal_url).endswith(
        f"its schema {schema.REVISION} is older than ours, 0009: run `lockstep journal upgrade`"
    )


def test_a_newer_schema_is_refused_by_opening_and_by_upgrading(journal_url: str) -> None:
    stamp(open_journal(journal_url), "9999")
    newer = f"its schema 9999 is newer than ours, {schema.REVISION}: update Lockstep"
    assert newer in said(journal_url)
    with pytest.raises(JournalError, match="9999 is newer"):
        upgrade(journal_url)
    stamp(engine_of(journal_url), schema.REVISION)
    assert list_runs(open_journal(journal_url)) == []


def test_a_migration_is_done_whole_or_not_at_all(
    journal_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_journal(journal_url)
    with transaction(engine, writes=True) as connection:
        command.downgrade(migrate.alembic_config(connection), "base")
    real = command.upgrade

    def broken(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", broken)
        with pytest.raises(KeyboardInterrupt):
            upgrade(journal_url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    upgrade(journal_url)
    assert rows(engine, "SELECT version_num FROM alembic_version") == [(schema.REVISION,)]


def test_an_empty_postgres_is_not_altered_unasked(empty_postgres: str) -> None:
    assert said(empty_postgres).endswith("the database is empty: run `lockstep journal upgrade`")
    assert inspect(engine_of(empty_postgres)).get_table_names() == []
    assert upgrade(empty_postgres) == schema.REVISION
    assert list_runs(open_journal(empty_postgres)) == []


def test_a_commit_waits_for_the_disk(journal_url: str) -> None:
    engine = open_journal(journal_url)
    if engine.dialect.name == "sqlite":
        wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
        for name, value in wanted.items():
            assert rows(engine, f"PRAGMA {name}") == [(value,)]
        return
    careless = engine_of(f"{journal_url}&options=-csynchronous_commit%3Doff")
    assert rows(careless, "SHOW synchronous_commit") == [("on",)]


def test_a_file_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    with closing_file(sqlite3.connect(tmp_path / "theirs")) as connection, connection:
        connection.execute("CREATE TABLE wallets (id)")
    connection.close()
    url = sqlite_url(tmp_path / "theirs")
    assert said(url).endswith("this is a database, but not a journal: name another one")
    with pytest.raises(JournalError, match="not a journal"):
        upgrade(url)
    (tmp_path / "text").write_text("dear diary " * 100)
    assert said(sqlite_url(tmp_path / "text")).endswith("file is not a database")


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "journal.sqlite"
    assert str(path) in said(sqlite_url(path))
    assert not path.parent.exists()
    path.parent.mkdir()
    assert list_runs(open_journal(sqlite_url(path))) == []


def test_a_database_that_is_not_there_now_is_told_from_one_that_refuses(
    empty_postgres: str, tmp_path: Path
) -> None:
    def kind(url: str) -> type[JournalError]:
        with pytest.raises(JournalError) as refusal:
            open_journal(url)
        return type(refusal.value)

    assert kind("postgresql://me@127.0.0.1:1/db") is JournalUnreachable
    assert kind("postgresql://me@host.invalid/db") is JournalUnreachable
    assert kind(empty_postgres.replace("@/", "@/no_such_")) is JournalError
    assert kind(empty_postgres.replace("lockstep@", "nobody_here@")) is JournalError
    assert kind(empty_postgres) is JournalError
    assert kind(f"{empty_postgres}&hush=1") is JournalError
    assert kind(sqlite_url(tmp_path / "missing" / "journal.sqlite")) is JournalError


def test_a_server_that_goes_away_is_unreachable_and_is_there_again_after(
    empty_postgres: str,
) -> None:
    upgrade(empty_postgres)
    engine = open_journal(empty_postgres)

    def cut_off() -> None:
        with transaction(engine) as connection:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(JournalUnreachable, match="terminating connection"):
        cut_off()
    assert list_runs(engine) == []


def test_a_sqlite_file_that_another_holds_is_to_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS_MAX", 10)
    url = sqlite_url(tmp_path / "j.sqlite")
    engine = open_journal(url)
    with closing_file(sqlite3.connect(tmp_path / "j.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalUnreachable, match="locked"), transaction(engine, writes=True):
            pass
    with transaction(engine, writes=True):
        pass


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://me:hush@host/db", "a journal cannot live in 'mysql': expected sqlite:///PATH"),
        ("runs/journal.sqlite", "the journal's URL is not one: expected sqlite:///PATH"),
        ("postgresql://me:hush@host:port/db", "the journal's URL is not one"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:///journal.sqlite?mode=ro", "takes no options"),
        ("postgresql://me:hush@127.0.0.1:1/db", "Connection refused"),
        ("postgresql://me@127.0.0.1:1/db?password=hush", "Connection refused"),
        ("postgresql://me:hush@127.0.0.1:1/db?hush=1", "invalid connection option"),
    ],
)
def test_a_wrong_url_is_told_without_its_password(url: str, why: str) -> None:
    text = said(url)
    assert why in text
    assert "hush" not in text.replace("hush=1", "")
