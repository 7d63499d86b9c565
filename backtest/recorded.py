"""A recorded run, built again from what its journal says of its causes, changed or as it was.

The journal keeps every setting that decided a run, so an audit needs nothing but the journal and
the code; and a what-if is the same events under one setting that is another.
"""

import hashlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeAlias

from backtest.assemble import BookSetup, Setup, assemble
from backtest.replay import Advise, Source, replay_block
from backtest.run import Run, program_hash
from core.engine import Advice, Book, Engine
from core.errors import ConfigError, UnknownName
from core.instrument import Instrument
from core.model import MARKET_FIELDS, FeeModel, InstrumentKind, Kind, OrderStyle, Records
from core.strategy import Strategy
from risk.limits import Limits, Sizing, SizingRule

Find: TypeAlias = Callable[[str], Strategy]
Config: TypeAlias = dict[str, Any]


def setup_of(config: Mapping[str, Any], find: Find) -> Setup:
    """The setup of a recorded config. ConfigError when a strategy is not what it was."""
    return Setup(
        instruments=tuple(_instrument(terms) for terms in config["instruments"]),
        books=tuple(_book(terms, find) for terms in config["books"]),
        equity=config["equity"],
        limits=Limits(**config["limits"]),
    )


def replay_recorded(
    config: Mapping[str, Any], events: Records, find: Find, advisor: Advise | None = None
) -> Run:
    """Fold recorded events under a config; the data's digest is that of the events themselves. With
    an ``advisor`` the recorded opinions are left out, and it is asked instead."""
    setup = setup_of(config, find)
    if advisor is not None:
        events = events[events["kind"] != Kind.OPINION]
    return replay_block(
        setup,
        events,
        _everything(setup),
        Source(digests={"journal": hashlib.sha256(events.tobytes()).hexdigest()}),
        tell_all=bool(config["tell_all"]),
        advisor=advisor,
    )


def engine_of(config: Mapping[str, Any], find: Find) -> Engine:
    """The engine of a recorded config, at its beginning."""
    setup = setup_of(config, find)
    return assemble(setup, _everything(setup), tell_all=bool(config["tell_all"]))


def asks(config: Mapping[str, Any]) -> bool:
    """Whether any book of a config asks a model."""
    return any(book["advice"] for book in config["books"])


def changed(config: Mapping[str, Any], key: str, value: float | str) -> Config:
    """The config with one value changed: ``account.equity``, ``limits.NAME``, ``sizing.NAME``,
    ``instrument.NAME``, ``advice.NAME`` (``advice.model`` and ``advice.prompt`` are names, all else
    a number), or ``STRATEGY.PARAMETER``. Limits, sizing and advice change in every book."""
    table, _, name = key.partition(".")
    found = deepcopy(dict(config))
    tables = {
        "account": [found] if name == "equity" else [],
        "limits": [found["limits"], *(book["limits"] for book in found["books"])],
        "sizing": [book["sizing"] for book in found["books"]],
        "instrument": found["instruments"],
        "advice": [book["advice"] for book in found["books"] if book["advice"]],
    }
    for book in found["books"]:
        tables.setdefault(book["strategy"], []).append(book["params"])
    if table not in tables:
        raise UnknownName("table", table, tables)
    places = tables[table]
    if not places or name not in places[0]:
        raise UnknownName(f"number of {table}", name, places[0] if places else ["equity"])
    for place in places:
        kind = type(place[name])
        if isinstance(value, str) != (kind is str):
            wanted = "a name" if kind is str else "a number"
            raise ConfigError(f"{key}: expected {wanted} after the =, got {value}")
        place[name] = kind(value)
    return found


def _everything(setup: Setup) -> dict[str, frozenset[str]]:
    """What the events carry is not asked again: they were recorded by a run that could start."""
    return {instrument.name: frozenset(MARKET_FIELDS) for instrument in setup.instruments}


def _instrument(terms: Mapping[str, Any]) -> Instrument:
    kinds = {"kind": InstrumentKind(terms["kind"]), "fee_model": FeeModel(terms["fee_model"])}
    return Instrument(**{**terms, **kinds})


def _book(terms: Mapping[str, Any], find: Find) -> BookSetup:
    strategy = find(terms["strategy"])
    if program_hash(strategy) != terms["program"]:
        raise ConfigError(f"strategy {strategy.name} has other rules than when this was recorded")
    book = Book(
        name=terms["name"],
        strategy=strategy,
        instrument=terms["instrument"],
        params=terms["params"],
        style=OrderStyle[terms["style"]],
        offset=terms["offset"],
        ttl_bars=terms["ttl_bars"],
        advice=Advice(**terms["advice"]) if terms["advice"] else None,
    )
    sizing = {**terms["sizing"], "rule": SizingRule(terms["sizing"]["rule"])}
    return BookSetup(book=book, sizing=Sizing(**sizing), limits=Limits(**terms["limits"]))
