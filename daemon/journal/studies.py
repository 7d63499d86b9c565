"""Optuna's studies in the journal's PostgreSQL, in a schema of their own: Optuna keeps the age of
its tables under the very name under which we keep that of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, Pool, create_engine, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from backtest.tables import ADVISORY_KEY
from daemon.journal.database import refusals, transaction

SCHEMA = "optuna"


@contextmanager
def study_storage(engine: Engine) -> Iterator[Any]:
    """Optuna's storage in a journal that is open, made where it lacks. What the database refuses
    is raised as a transaction of the journal would."""
    from optuna.exceptions import StorageInternalError

    given = engine.url.query.get("options", "")
    told = {"options": f"{given} -csearch_path={SCHEMA}".strip()}
    # ours to close, for Optuna leaves it open when it cannot begin
    pool = create_engine(engine.url, connect_args=told).pool
    try:
        with refusals(engine):
            storage = _opened(engine, pool)
            yield storage
            storage.remove_session()
    except StorageInternalError as error:
        if not isinstance(error.__cause__, SQLAlchemyError):
            raise
        with refusals(engine):
            raise error.__cause__ from error
    finally:
        pool.dispose()


def _opened(engine: Engine, pool: Pool) -> Any:
    from optuna.storages import RDBStorage

    with transaction(engine, writes=True) as connection:
        if not inspect(connection).has_schema(SCHEMA):
            connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
    with transaction(engine, writes=True) as connection:
        # two that open it first at once would both make its tables
        connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_KEY)))
        url = engine.url.render_as_string(hide_password=False)
        return RDBStorage(url, engine_kwargs={"pool": pool})
