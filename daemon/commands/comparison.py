"""Comparing two runs: the first decision in which they part, and the causes that differ.

Equal causes give equal runs, so whatever differs between two runs must show in their manifests:
code, configuration or data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from backtest.run import Run
from backtest.statistics import summary
from core.model import Records, Result
from markets.history import utc

_COMPARED = (
    "ts",
    "kind",
    "target",
    "confidence",
    "reason",
    "rule",
    "quantity",
    "price",
    "amount_micros",
)
_RESULTS = ("net_pnl", "return", "max_drawdown", "sharpe", "trades", "fees", "funding")


Pair: TypeAlias = tuple[str, Any, Any]
"""A name, and what each of the two runs has there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What two runs do not share. ``first`` is None when every row agrees."""

    equal: bool
    causes: Sequence[Pair]
    first: Mapping[str, Any] | None
    results: Sequence[Pair]


def compare(a: Run, b: Run) -> Difference:
    """The difference between two runs; equal means that every decision and outcome agrees."""
    left, right = summary(a), summary(b)
    equal = a.decisions_hash == b.decisions_hash
    return Difference(
        equal=equal,
        causes=list(_causes(a, b)),
        first=None if equal else _first(a, b),
        results=[(name, left[name], right[name]) for name in _RESULTS],
    )


def _causes(a: Run, b: Run) -> list[Pair]:
    left, right = _flat(_by_name(a.setup)), _flat(_by_name(b.setup))
    data = dict.fromkeys([*a.manifest.data, *b.manifest.data])
    pairs = [
        ("code", a.manifest.code, b.manifest.code),
        *((key, left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])),
        *((f"data.{name}", _data(a, name), _data(b, name)) for name in data),
        ("seed", a.manifest.seed, b.manifest.seed),
    ]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _data(run: Run, name: str) -> str | None:
    if name not in run.manifest.data:
        return None
    quality, digest = run.quality.get(name), run.manifest.data[name][:12]
    if quality is None:
        return digest
    return f"{digest}: {utc(quality.first_ms)[:16]} to {utc(quality.last_ms)[:16]}"


def _by_name(setup: Mapping[str, Any]) -> dict[str, Any]:
    """A setup with its lists keyed by name, so that an inserted entry shifts no other."""
    named = {
        key: {entry["name"]: entry for entry in setup[key]} for key in ("instruments", "books")
    }
    return {**setup, **named}


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {key: value}
    parts = [_flat(inner, f"{key}.{name}" if key else str(name)) for name, inner in value.items()]
    return {name: found for part in parts for name, found in part.items()}


def _first(a: Run, b: Run) -> dict[str, Any]:
    """The first decision that differs; failing that, the first outcome of any kind."""
    for kinds in ((Result.DECISION,), tuple(Result)):
        left, right = (_rows(run, kinds) for run in (a, b))
        at = _parting(_keys(a, left), _keys(b, right))
        if at is not None:
            rows = [rows[at] if at < len(rows) else None for rows in (left, right)]
            return _context(a, b, rows, left[at - 1] if at else None)
    return {"what": "a confidence or a target between two rows told: no outcome differs"}


def _rows(run: Run, kinds: Sequence[Result]) -> Records:
    return run.outcomes[np.isin(run.outcomes["kind"], kinds)]


def _keys(run: Run, rows: Records) -> list[tuple[Any, ...]]:
    """What must agree of every row: not its number, which further events shift."""
    names = [book.name for book in run.books]
    columns = [np.nan_to_num(rows[name], nan=-1e300).tolist() for name in _COMPARED]
    owners = [names[b] if 0 <= b < len(names) else "" for b in rows["book"].tolist()]
    return list(zip(owners, *columns, strict=True))


def _parting(left: list[tuple[Any, ...]], right: list[tuple[Any, ...]]) -> int | None:
    for at, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return at
    return min(len(left), len(right)) if len(left) != len(right) else None


def _context(a: Run, b: Run, rows: Sequence[Any], before: Any) -> dict[str, Any]:
    told = [None if row is None else _row(run, row) for run, row in zip((a, b), rows, strict=True)]
    earliest = min(int(row["ts"]) for row in rows if row is not None)
    return {
        "what": " / ".join(dict.fromkeys(str(row["kind"]) for row in told if row)),
        "time": utc(earliest),
        "a": told[0],
        "b": told[1],
        "last_in_common": None if before is None else _row(a, before),
    }


def _row(run: Run, row: Any) -> dict[str, Any]:
    """One outcome as a person reads it."""
    kind = Result(int(row["kind"]))
    place = int(row["book"])
    told: dict[str, Any] = {"time": utc(int(row["ts"])), "kind": kind.name.lower()}
    if 0 <= place < len(run.books) and kind != Result.MODE:
        book = run.books[place]
        told |= {"book": book.name, "params": dict(book.params)}
        if kind == Result.DECISION:
            told["target"], told["confidence"] = float(row["target"]), float(row["confidence"])
            told["reason"] = book.reasons.get(int(row["reason"]), str(int(row["reason"])))
            return told
    return told | {"quantity": float(row["quantity"]), "price": float(row["price"])}
