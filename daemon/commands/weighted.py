"""The books of runs as a profile, sized by their weights: what turns an allocation into orders.

A weight becomes the ``value`` of a book's sizing, so a live run, a paper run and a replay take it
in the one place where sizes are decided, and the gate judges the orders as ever.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from enum import IntEnum
from pathlib import Path
from typing import Any

from backtest.breakdown import DAY_MS
from backtest.portfolio.books import Books
from backtest.portfolio.walk import Walk
from backtest.run import Run
from core.errors import ConfigError, LockstepError
from core.instrument import Instrument
from core.model import FeeModel, InstrumentKind
from markets.history import utc
from risk.limits import Limits, SizingRule

CODES: Mapping[str, type[IntEnum]] = {"kind": InstrumentKind, "fee_model": FeeModel}


def write_profile(path: Path, runs: Sequence[Run], books: Books, found: Walk) -> Path:
    """Write the profile; answers its path. ConfigError when one profile cannot hold these runs."""
    known = utc((books.first_day + int(found.known_days[-1])) * DAY_MS)
    head = f"# Weights known {known}, of the runs {', '.join(run.run_id for run in runs)}."
    lines = [head, *_shared(runs), *_books(runs, books, found)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise LockstepError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _shared(runs: Sequence[Run]) -> Iterator[str]:
    """The account and the instruments, which all runs must agree on."""
    equity = _agreed("account.equity", [run.setup["equity"] for run in runs])
    limits = _agreed("account.limits", [run.setup["limits"] for run in runs])
    yield from ("", "[account]", f"equity = {equity!r}")
    yield from _table("account.limits", _changed(limits, Limits()))
    named: dict[str, list[Any]] = {}
    for terms in (terms for run in runs for terms in run.setup["instruments"]):
        named.setdefault(terms["name"], []).append(terms)
    for name, each in named.items():
        terms = _agreed(f"instrument {name}", each)
        # a live run trades the instruments that have a table, so an empty one is written too
        yield from ("", f"[instruments.{_quoted(name)}]")
        yield from _pairs(_changed(terms, Instrument(name=name)))


def _agreed(what: str, values: Sequence[Any]) -> Any:
    if any(value != values[0] for value in values[1:]):
        raise ConfigError(f"{what} differs between the runs: one profile cannot hold both")
    return values[0]


def _changed(terms: Mapping[str, Any], default: Limits | Instrument) -> dict[str, Any]:
    """What is not as it is by default."""
    names = (field.name for field in fields(default))
    return {name: terms[name] for name in names if terms[name] != getattr(default, name)}


def _books(runs: Sequence[Run], books: Books, found: Walk) -> Iterator[str]:
    # the engine keeps books by instrument, a setup as they were named
    terms = [{book["name"]: book for book in run.setup["books"]} for run in runs]
    recorded = [known[b.name] for known, run in zip(terms, runs, strict=True) for b in run.books]
    stanzas = [book["name"].rpartition("@")[0] for book in recorded]
    for place, book in enumerate(recorded):
        weight = float(found.weights[-1, place])
        label = stanzas[place]
        if stanzas.count(label) > 1:
            label = books.names[place].replace("/", "-").replace("@", "-")
        if weight <= 0:
            yield from ("", f"# {books.names[place]}: weight 0, left out")
            continue
        yield from ("", f"# {books.names[place]}: weight {weight:.6g}")
        yield from _stanza(label, book, weight * float(books.sharing[place]))


def _stanza(label: str, book: Mapping[str, Any], factor: float) -> Iterator[str]:
    if book["program"] is not None or book["advice"] is not None:
        what = "follows a file of rules" if book["program"] is not None else "asks a model"
        raise ConfigError(f"book {book['name']} {what}: set its sizing.value in your own profile")
    name = f"strategies.{_quoted(label)}"
    yield from (
        f"[{name}]",
        f"strategy = {_quoted(book['strategy'])}",
        f"instruments = [{_quoted(book['instrument'])}]",
        f"style = {_quoted(book['style'].lower())}",
        f"offset = {book['offset']!r}",
        f"ttl_bars = {book['ttl_bars']}",
    )
    yield from _table(f"{name}.params", book["params"])
    yield from _table(f"{name}.sizing", _sized(book["sizing"], factor))
    yield from _table(f"{name}.limits", _changed(book["limits"], Limits()))


def _sized(sizing: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The sizing times a factor. The cap goes with it, or a size that stood at the cap would stay;
    a Kelly share cannot pass one."""
    rule = SizingRule(sizing["rule"])
    value = sizing["value"] * factor
    return {
        "rule": rule.name.lower(),
        "value": min(value, 1.0) if rule is SizingRule.KELLY else value,
        "cap": sizing["cap"] * factor,
        **({"atr_multiple": sizing["atr_multiple"]} if rule is SizingRule.ATR_RISK else {}),
    }


def _table(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    if values:
        yield from ("", f"[{name}]", *_pairs(values))


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{key} = {_value(key, value)}"


def _value(key: str, value: Any) -> str:
    if key in CODES:
        return _quoted(CODES[key](value).name.lower())
    if isinstance(value, str):
        return _quoted(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
