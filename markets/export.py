"""Writing: a History into one file in the plain layout, which ``read_candles`` reads back whole.

The plain layout has one row a bar, so an event that falls on no bar's close has no place in it,
but for a settlement, whose time stands beside the bar that closes next. A history with any other is
refused rather than written with a hole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from core.errors import DataError
from core.model import Kind, Records
from markets.candles import BAR_COLUMNS, FUNDING_COLUMNS, QUOTE_COLUMNS, SETTLED_COLUMN
from markets.history import Flags, Floats, History, Places, Times, select, utc

_COLUMNS: Mapping[Kind, Mapping[str, str]] = {
    Kind.FUNDING: FUNDING_COLUMNS,
    Kind.QUOTE: {name: name for name in QUOTE_COLUMNS},
    Kind.FORECAST: {"probability": "probability"},
    Kind.RESOLUTION: {"value": "resolution"},
}


def write(history: History, path: str | Path) -> None:
    """Write ``.feather``, ``.parquet``, ``.csv`` or ``.csv.gz``: ``ts`` in ms, then columns.

    Quotes at one stamp become one. DataError for another suffix, or events off the bars' closes.
    """
    path = Path(path)
    table = pa.table({name: _arrow(values) for name, values in columns_of(history).items()})
    if path.suffix == ".feather":
        pa.feather.write_feather(table, str(path))
    elif path.suffix == ".parquet":
        pa.parquet.write_table(table, str(path))
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, str(path))
    elif path.name.endswith(".csv.gz"):
        with pa.CompressedOutputStream(str(path), "gzip") as stream:
            pa.csv.write_csv(table, stream)
    else:
        raise DataError(f"{path}: write to .feather, .parquet, .csv or .csv.gz")


def columns_of(history: History) -> dict[str, Any]:
    """Columns of the plain layout, each of shape (bars,); NaN where a bar has no value."""
    bars = history.bars
    columns: dict[str, Any] = {"ts": bars["ts_event"].copy()}
    columns |= {name: bars[name].copy() for name in BAR_COLUMNS}
    settled = select(history.events, history.events["kind"] == Kind.FUNDING)["ts_known"]
    own = np.setdiff1d(settled, bars["ts_known"])
    for kind, names in _COLUMNS.items():
        events = select(history.events, history.events["kind"] == kind)
        if kind == Kind.QUOTE:
            events = select(events, ~_is_revealed(events, own))
        if not len(events):
            continue
        rows = _rows(kind, events["ts_known"], bars)
        if kind == Kind.FUNDING and len(own):
            columns[SETTLED_COLUMN] = _scatter(rows, events["ts_known"].astype(float), len(bars))
        for field, name in names.items():
            column = _scatter(rows, events[field], len(bars))
            if not np.isnan(column).all():
                columns[name] = column
    if history.contract is not None and history.contract.expires_ms:
        columns["expires"] = np.full(len(bars), history.contract.expires_ms, np.int64)
    return columns


def _is_revealed(quotes: Records, settled: Times) -> Flags:
    """Which only tell the rate of a settlement off the closes: it is read from that one."""
    silent = [np.isnan(quotes[name]) for name in QUOTE_COLUMNS if name != "funding_rate"]
    return np.asarray(np.isin(quotes["ts_known"], settled) & np.all(silent, axis=0))


def _rows(kind: Kind, known: Any, bars: Records) -> Places:
    """The bar each event falls on."""
    closes = bars["ts_known"]
    rows: Places = np.searchsorted(closes, known)
    if kind == Kind.FUNDING:
        homeless = (known <= bars["ts_event"][0]) | (known > closes[-1])
    else:
        homeless = closes[np.minimum(rows, len(closes) - 1)] != known
    if homeless.any():
        raise DataError(f"a {kind.name} at {utc(int(known[homeless][0]))} falls on no bar's close")
    if kind != Kind.QUOTE and len(np.unique(rows)) < len(rows):
        raise DataError(f"two events of kind {kind.name} fall on one bar's close")
    return rows


def _scatter(rows: Places, values: Floats, size: int) -> Floats:
    column = np.full(size, np.nan)
    there = ~np.isnan(values)
    column[rows[there]] = values[there]
    return column


def _arrow(values: Any) -> Any:
    """Straight from the buffer: ``pa.array`` would import pandas wherever that is installed."""
    kind = pa.int64() if values.dtype == np.int64 else pa.float64()
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])
