"""``lockstep journal``: what the database holds, its schema, and replays to be forgotten."""

from typing import Annotated

import typer

from daemon.commands.options import Json

LIST_EPILOG = "Example: lockstep journal list --journal sqlite:///journal.sqlite"
UPGRADE_EPILOG = "Example: lockstep journal upgrade --journal postgresql://trader@db/lockstep"
REMOVE_EPILOG = "Example: lockstep journal remove 2e2206e993c6"
Url = Annotated[
    str | None, typer.Option("--journal", metavar="URL", help="Default: paths.journal.")
]


def journal_url(journal: str | None) -> str:
    from daemon.commands.choices import Choices, read_settings

    return journal or read_settings(Choices()).settings.paths.journal


def list_(journal: Url = None, json: Json = False) -> None:
    """List the runs the journal holds."""
    from daemon.console import write, write_json, write_table
    from daemon.journal import list_runs, open_journal
    from markets.history import utc

    engine = open_journal(journal_url(journal))
    try:
        rows = [
            {
                "run": row.run_id,
                "mode": row.mode.value,
                "started": utc(row.started_ms // 1000 * 1000),
                "events": row.recorded,
                "books": ", ".join(book.name for book in row.books),
                "decisions_hash": row.decisions_hash,
            }
            for row in list_runs(engine)
        ]
    finally:
        engine.dispose()
    if json:
        write_json(rows)
    elif rows:
        columns = ("run", "mode", "started", "events", "books")
        write_table(columns, [[row[name] for name in columns] for row in rows], wraps=["books"])
    else:
        write("the journal holds no run yet: write one with 'lockstep replay --to-journal'")


def upgrade(journal: Url = None, json: Json = False) -> None:
    """Bring the journal's schema up to this version.

    Whole or not at all.
    """
    from daemon.console import write, write_json
    from daemon.journal import upgrade as move_schema

    revision = move_schema(journal_url(journal))
    if json:
        write_json({"revision": revision})
    else:
        write(f"the journal's schema is {revision}")


def remove(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The whole id of a replay.")],
    journal: Url = None,
    json: Json = False,
) -> None:
    """Forget a replay. What a desk did on paper or live cannot be removed."""
    from daemon.console import write, write_json
    from daemon.journal import open_journal, remove_run

    engine = open_journal(journal_url(journal))
    try:
        remove_run(engine, run)
    finally:
        engine.dispose()
    if json:
        write_json({"removed": run})
    else:
        write(f"run {run} is removed from the journal")
