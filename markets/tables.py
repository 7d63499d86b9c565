"""Tables from files: the one place that knows feather, parquet and csv.

A damaged line or cell never ends a read: it becomes a NaN or a count, and the caller decides. What
cannot be read at all is a DataError that says what, where, and what to do.
"""

import gzip
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
from numpy.typing import NDArray

from core.errors import DataError
from markets.history import Flags, Floats, Times

NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that is missing or unreadable."""

_NUMBER = r"^[-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|inf(inity)?)$"
_NULLS = ["", "NA", "N/A", "null", "NULL", "None", "nan", "NaN", "NAN", "-nan"]
# (from, below, factor to ms): decades apart, so a time can be in one unit only
_UNITS = (
    ("seconds", 1e8, 1e10, 1e3),
    ("milliseconds", 1e11, 1e13, 1.0),
    ("microseconds", 1e14, 1e16, 1e-3),
    ("nanoseconds", 1e17, 1e19, 1e-6),
)
_STRAY_SHARE_MAX = 0.01
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Table:
    """Columns by lower-case name. ``rows`` are those in the columns; ``malformed`` came on top."""

    source: str
    columns: Mapping[str, Any]
    rows: int
    malformed: int = 0

    def __contains__(self, name: str) -> bool:
        return name.lower() in self.columns

    def require(self, names: Iterable[str], purpose: str) -> None:
        """DataError naming the columns that are missing, each with the nearest there is."""
        lacking = [_nearest(name, self.columns) for name in names if name not in self]
        if lacking:
            raise DataError(
                f"{self.source}: {purpose} needs column {', '.join(lacking)}; "
                f"the file has {', '.join(self.columns) or 'none'}"
            )

    def numbers(self, name: str) -> tuple[Floats, Flags]:
        """A column as floats, NaN where missing or unreadable, and where it was unreadable."""
        return _numbers(self._plain(name))

    def times(self, name: str) -> tuple[Times, Flags]:
        """A column as unix ms, ``NO_TIME`` where missing or unreadable, and where unreadable."""
        column = self._plain(name)
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return _stamps(column), np.zeros(self.rows, np.bool_)
        values, unreadable = _numbers(column)
        if pa.types.is_string(column.type) and 2 * np.isfinite(values).sum() < self.rows:
            return _iso(column)
        return _from_unix(values, f"{self.source}: column '{name}'"), unreadable

    def matches(self, name: str, text: str) -> Flags:
        """Where a column of texts says ``text`` in any case, or says nothing."""
        column = self._plain(name).cast(pa.string())
        same = pc.match_substring_regex(column, f"^{re.escape(text)}$", ignore_case=True)
        return _flags(same) | ~_flags(column.is_valid())

    def texts(self, name: str) -> list[str]:
        """A column as text, empty where missing."""
        return [value or "" for value in self._plain(name).cast(pa.string()).to_pylist()]

    def _plain(self, name: str) -> Any:
        column = self.columns[name.lower()]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
            raise DataError(f"{self.source}: column '{name}' holds {column.type}, not numbers")
        return column


def read_table(path: Path) -> Table:
    """Read ``.feather``, ``.parquet``, ``.csv`` or ``.csv.gz``; DataError when that fails."""
    readers = {".feather": _feather, ".parquet": _parquet, ".pq": _parquet}
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in readers:
        return readers[suffixes[-1]](path)
    if suffixes[-1:] == [".csv"] or suffixes[-2:] == [".csv", ".gz"]:
        return parse_csv(read_bytes(path), str(path))
    raise DataError(
        f"{path}: unknown kind of file '{path.suffix}': use .feather, .parquet, .csv or .csv.gz"
    )


def release_unused() -> None:
    """Give back what reading held; the pool would keep it for files that never come."""
    pa.default_memory_pool().release_unused()


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked when they are gzip whatever the name says."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def parse_csv(data: bytes, source: str, only: Collection[str] | None = None) -> Table:
    """A table of texts from csv bytes with a header; lines of a wrong width are counted.

    ``only``: lower-case names to keep. Quotes are dropped: our files hold no text that needs them,
    and one stray quote must not swallow the rest of the file.
    """
    data = _as_utf8(data.replace(b'"', b"")).lstrip(b"\r\n")
    if not data.strip():
        raise DataError(f"{source}: the file is empty")
    header = data[:65_536].splitlines()[0].decode()
    # pyarrow cannot skip a header that no line end follows
    data = data if len(data) > len(header.encode()) else data + b"\n"
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().lower() for name in header.split(delimiter)]
    _check_names(names, source)
    malformed: list[int | None] = []

    def skip(row: Any) -> str:
        malformed.append(row.number)
        return "skip"

    kept = [name for name in names if only is None or name in only]
    if not kept:
        return Table(source, {}, 0)
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            pa.csv.ReadOptions(column_names=names, skip_rows=1),
            pa.csv.ParseOptions(
                delimiter=delimiter,
                quote_char=False,
                invalid_row_handler=skip,
            ),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=_NULLS,
                strings_can_be_null=True,
                include_columns=kept,
            ),
        )
    except pa.ArrowException as error:
        raise DataError(f"{source}: not readable as csv: {error}") from error
    columns = dict(zip(kept, table.columns, strict=True))
    return Table(source, columns, table.num_rows, len(malformed))


def _feather(path: Path) -> Table:
    return _from_arrow(path, pa.feather.read_table)


def _parquet(path: Path) -> Table:
    return _from_arrow(path, lambda name: pa.parquet.ParquetFile(name).read())


def _from_arrow(path: Path, read: Any) -> Table:
    try:
        table = read(str(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    names = [name.strip().lower() for name in table.column_names]
    _check_names(names, str(path))
    return Table(str(path), dict(zip(names, table.columns, strict=True)), table.num_rows)


def _check_names(names: list[str], source: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{source}: column '{twice[0]}' is there twice: remove one")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"'{name}' (nearest: '{near[0]}')" if near else f"'{name}'"


def _as_utf8(data: bytes) -> bytes:
    data = data.removeprefix(b"\xef\xbb\xbf")
    return data if data.isascii() else data.decode(errors="replace").encode()


def _array(column: Any, missing: float = np.nan) -> NDArray[Any]:
    """A plain numeric column; ``to_numpy`` would import pandas wherever that is installed."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = np.dtype(str(array.type).replace("double", "float64"))
    valid, data = array.buffers()
    place = slice(array.offset, array.offset + len(array))
    if data is None or len(array) == array.null_count:
        return np.full(len(array), missing, kind)
    values = np.frombuffer(data, kind)[place]
    if not array.null_count:
        return values
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")[place]
    return np.where(bits == 1, values, np.array(missing, kind))


def _flags(column: Any) -> Flags:
    return np.asarray(_array(column.cast(pa.uint8()), 0) == 1)


def _numbers(column: Any) -> tuple[Floats, Flags]:
    if not pa.types.is_string(column.type):
        none = np.zeros(len(column), np.bool_)
        return _array(column.cast(pa.float64(), safe=False)), none
    texts = pc.utf8_trim_whitespace(column)
    try:
        return _array(texts.cast(pa.float64())), np.zeros(len(column), np.bool_)
    except pa.ArrowInvalid:
        readable = pc.match_substring_regex(texts, _NUMBER, ignore_case=True)
        texts = pc.if_else(readable, texts, pa.nulls(len(column), pa.string()))
        return _array(texts.cast(pa.float64())), _unreadable(column, readable)


def _unreadable(column: Any, readable: Any) -> Flags:
    return _flags(pc.and_not_kleene(column.is_valid(), readable))


def _stamps(column: Any) -> Times:
    zone = getattr(column.type, "tz", None)
    stamps = column.cast(pa.timestamp("ms", zone), safe=False).cast(pa.int64())
    return _array(stamps, NO_TIME)


def _from_unix(values: Floats, what: str) -> Times:
    """Unix times of one unit as ms; DataError when the unit is unknown or rows disagree on it."""
    counts = [((values >= low) & (values < high)).sum() for _, low, high, _ in _UNITS]
    best = int(np.argmax(counts))
    if not counts[best]:
        example = next((f"{value:g}" for value in values if np.isfinite(value)), "nothing")
        raise DataError(f"{what} holds {example}: give unix milliseconds (or seconds)")
    if sum(counts) - counts[best] > _STRAY_SHARE_MAX * sum(counts):
        names = [unit[0] for unit, count in zip(_UNITS, counts, strict=True) if count]
        raise DataError(f"{what} mixes {' and '.join(names)}: write all times in milliseconds")
    _, low, high, factor = _UNITS[best]
    good = (values >= low) & (values < high)
    return np.where(good, np.rint(np.where(good, values, 0.0) * factor), NO_TIME).astype(np.int64)


def _iso(column: Any) -> tuple[Times, Flags]:
    """ISO 8601 texts as ms; without an offset they are UTC. The slow path is per cell."""
    column = pc.utf8_trim_whitespace(column)
    for kind in (pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            return _stamps(column.cast(kind)), np.zeros(len(column), np.bool_)
        except pa.ArrowInvalid:
            continue
    times = np.array([_iso_ms(text) for text in column.to_pylist()], np.int64)
    return times, (times == NO_TIME) & _flags(column.is_valid())


def _iso_ms(text: str | None) -> int:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return NO_TIME
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
