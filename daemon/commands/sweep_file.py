"""The rows of a sweep as a Parquet file, written as they come: one row is never held twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backtest.sweep.rows import Row

ROWS_PER_GROUP = 1024


class _Parquet:
    """A file whose columns are known with its first rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[Row] = []
        self._writer: Any = None

    def add(self, row: Row) -> None:
        """Take a row, and write as many as make a group."""
        self._rows.append(row)
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = _table(self._rows, None if self._writer is None else self._writer.schema)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        assert isinstance(table, pa.Table)
        self._writer.write_table(table)
        self._rows = []


def _table(rows: list[Row], schema: Any) -> Any:
    """Columns ``place``, every parameter, every figure, the hash, the error, equity by day."""
    import pyarrow as pa

    params = list(rows[0].params)
    figures = next((list(row.metrics) for row in rows if row.metrics), [])
    columns = {
        "place": pa.array([row.place for row in rows], pa.int64()),
        **{f"param_{n}": pa.array([r.params[n] for r in rows], pa.float64()) for n in params},
        **{n: pa.array([_float(r.metrics.get(n)) for r in rows], pa.float64()) for n in figures},
        "decisions_hash": pa.array([row.decisions_hash for row in rows], pa.string()),
        "error": pa.array([row.error for row in rows], pa.string()),
        "daily_equity_micros": pa.array([row.daily_micros for row in rows], pa.list_(pa.int64())),
    }
    table = pa.table(columns)
    return table if schema is None else table.select(schema.names)


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


@contextmanager
def writing(path: Path | None) -> Iterator[Callable[[Row], None]]:
    """Yields what takes a row. The file appears whole, once the last row is in it."""
    if path is None:
        yield lambda _: None
        return
    part = path.with_name(f"{path.name}.part")
    kept = _Parquet(part)
    yield kept.add
    kept.close()
    if part.exists():
        part.replace(path)
