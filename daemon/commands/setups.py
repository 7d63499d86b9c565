"""From settings to what a replay needs: histories, instruments, books; and nothing left unused."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from backtest.assemble import BookSetup, Setup
from config.layers import Key, Resolved, suggest
from config.settings import Scalar
from core.engine import Advice, Book
from core.errors import ConfigError, DataError, LockstepError
from core.instrument import Instrument, binary
from core.model import FeeModel, InstrumentKind, OrderStyle
from core.strategy import Strategy
from daemon.commands.histories import read_histories
from daemon.commands.shelf import Shelf
from markets.history import Contract, History, crop
from markets.intervals import parse_interval
from risk.limits import Limits, Sizing, SizingRule

Terms = TypeVar("Terms", Limits, Sizing, Instrument, Advice)
TimeRange = tuple[int | None, int | None]

_ENUMS: Mapping[str, type[SizingRule | InstrumentKind | FeeModel]] = {
    "rule": SizingRule,
    "kind": InstrumentKind,
    "fee_model": FeeModel,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A run about to start."""

    setup: Setup
    histories: Mapping[str, History]
    shelf: Shelf


def plan_run(
    resolved: Resolved,
    shelf: Shelf,
    timerange: TimeRange = (None, None),
    given: Mapping[str, History] | None = None,
) -> Plan:
    """Read the data and build the setup. ``given`` histories stand in for files.

    ConfigError for a key that is wrong or that this run would never use.
    """
    settings = resolved.settings
    if not settings.strategies:
        raise ConfigError("nothing to run: give --strategy NAME, --rules FILE or --profile NAME")
    if not given and not settings.data:
        raise ConfigError("nothing to run on: give --data FILE (or try: lockstep demo)")
    _refuse_unused(resolved, [*(given or {}), *settings.data])
    strategies = {label: shelf.strategy(label) for label in settings.strategies}
    groups = {name: {name: history} for name, history in (given or {}).items()}
    for name, source in settings.data.items():
        groups[name] = read_histories(name, source.file, source.interval or None)
    histories = _cropped(groups, timerange)
    names = list(histories)
    traded = {label: _instruments(resolved, label, groups, names) for label in strategies}
    setup = Setup(
        instruments=tuple(_instrument(resolved, name, histories[name].contract) for name in names),
        books=tuple(
            _book(resolved, shelf, label, strategies[label], name)
            for label, chosen in traded.items()
            for name in chosen
        ),
        equity=settings.account.equity,
        limits=limits_of(resolved, ("account", "limits")),
    )
    return Plan(setup, histories, shelf)


def _refuse_unused(resolved: Resolved, names: list[str]) -> None:
    settings = resolved.settings
    for name in settings.instruments:
        if name not in names:
            where = resolved.source("instruments", name)
            hint = suggest(name, names)
            raise ConfigError(f"{where}: unused key 'instruments.{name}': no data for it, {hint}")
    listed = [stanza.instruments for stanza in settings.strategies.values()]
    used = {name for chosen in listed for name in chosen}
    for name in settings.data:
        if all(listed) and name not in used:
            where = resolved.source("data", name)
            raise ConfigError(f"{where}: unused key 'data.{name}': no strategy trades it")


def _instruments(
    resolved: Resolved, label: str, groups: Mapping[str, Mapping[str, History]], names: list[str]
) -> list[str]:
    """What a stanza trades: the instruments it names, or a ladder by its data's name, or all."""
    traded: list[str] = []
    for name in resolved.settings.strategies[label].instruments:
        if name not in names and name not in groups:
            where = resolved.source("strategies", label, "instruments")
            hint = suggest(name, [*groups, *names])
            raise ConfigError(f"{where}: strategies.{label}: no data for '{name}': {hint}")
        traded += [name] if name in names else [t for t in groups[name] if t in names]
    return traded or names


def _cropped(
    groups: Mapping[str, Mapping[str, History]], timerange: TimeRange
) -> dict[str, History]:
    """Every history within the time range; of many in one data, those that have bars there."""
    kept: dict[str, History] = {}
    for group in groups.values():
        failure: DataError | None = None
        found: dict[str, History] = {}
        for name, history in group.items():
            try:
                found[name] = history if timerange == (None, None) else crop(history, *timerange)
            except DataError as error:
                failure = DataError(f"{name}: {error}")
        if not found and failure is not None:
            raise failure
        kept |= found
    return kept


def live_setup(resolved: Resolved, shelf: Shelf) -> Setup:
    """The setup of a live run: every ``[instruments.NAME]``, named as the venue names it."""
    settings = resolved.settings
    names = list(settings.instruments)
    if not settings.strategies:
        raise ConfigError("nothing to run: give --strategy NAME, --rules FILE or --profile NAME")
    if not names:
        raise ConfigError("nothing to trade: add a table [instruments.NAME] for each, such as BTC")
    groups: dict[str, dict[str, History]] = {name: {} for name in names}
    strategies = {label: shelf.strategy(label) for label in settings.strategies}
    return Setup(
        instruments=tuple(
            replace(_instrument(resolved, name, None), external=settings.live.venue != "paper")
            for name in names
        ),
        books=tuple(
            _book(resolved, shelf, label, strategy, name)
            for label, strategy in strategies.items()
            for name in _instruments(resolved, label, groups, names)
        ),
        equity=settings.account.equity,
        limits=limits_of(resolved, ("account", "limits")),
    )


def instrument_lots(resolved: Resolved) -> dict[str, float]:
    """The lot of every ``[instruments.NAME]``."""
    names = resolved.settings.instruments
    return {name: _instrument(resolved, name, None).lot for name in names}


def _instrument(resolved: Resolved, name: str, contract: Contract | None) -> Instrument:
    """Terms of an instrument; data of a contract make it a binary unless stated."""
    paths = [("instrument",), ("instruments", name)]
    terms = _merged(resolved, paths, Instrument, barred={"name"})
    kind = terms.pop("kind", None)
    if kind is None:
        kind = InstrumentKind.PERP if contract is None else InstrumentKind.BINARY
    base = binary(name) if kind == InstrumentKind.BINARY else Instrument(name=name)
    if contract is not None:
        base = replace(base, expires_ts=contract.expires_ms, cluster=contract.cluster or name)
    return _built(resolved, paths, lambda: replace(base, **terms))


def _book(
    resolved: Resolved, shelf: Shelf, label: str, strategy: Strategy, instrument: str
) -> BookSetup:
    stanza = resolved.settings.strategies[label]
    params = shelf.params(label, strategy)
    limits = limits_of(resolved, ("limits",), ("strategies", label, "limits"))
    book = Book(
        name=f"{label}@{instrument}",
        strategy=strategy,
        instrument=instrument,
        params=params,
        style=OrderStyle[stanza.style.upper()],
        offset=stanza.offset,
        ttl_bars=stanza.ttl_bars,
        advice=_advice(resolved, label),
    )
    return BookSetup(book=book, sizing=sizing_of(resolved, label, strategy, params), limits=limits)


def sizing_of(
    resolved: Resolved, label: str, strategy: Strategy, params: Mapping[str, float]
) -> Sizing:
    """The sizing of a stanza's books under these parameters."""
    paths = [("sizing",), ("strategies", label, "sizing")]
    return _sizing(resolved, paths, _sizing_base(strategy, params))


def _advice(resolved: Resolved, label: str) -> Advice | None:
    """Whom a stanza asks, if anyone."""
    said = resolved.settings.strategies[label].advice
    if said is None:
        return None
    terms = said.model_dump(exclude={"consult", "answer_s_max"})
    path = ("strategies", label, "advice")
    return _built(
        resolved,
        [path],
        lambda: Advice(
            consult_ms=parse_interval(said.consult) if said.consult else 0,
            answer_ms_max=round(said.answer_s_max * 1_000),
            **terms,
        ),
    )


def limits_of(resolved: Resolved, *paths: Key) -> Limits:
    """Limits from tables laid over each other, each key checked."""
    terms = _merged(resolved, paths, Limits)
    return _built(resolved, paths, lambda: Limits(**terms))


def _sizing_base(strategy: Strategy, params: Mapping[str, float]) -> Sizing:
    """Rules state the size of an order themselves; every other strategy takes the default."""
    if strategy.program is None:
        return Sizing()
    from strategies.rules import full_size

    full = full_size(strategy.values(params))
    return Sizing(value=full, cap=max(1.0, full))


def shared_sizing(resolved: Resolved) -> Sizing:
    """The sizing of a book whose stanza says nothing about it."""
    return _sizing(resolved, [("sizing",)], Sizing())


def _sizing(resolved: Resolved, paths: Sequence[Key], base: Sizing) -> Sizing:
    terms = _merged(resolved, paths, Sizing)
    sizing = _built(resolved, paths, lambda: replace(base, **terms))
    if "atr_multiple" in terms and sizing.rule != SizingRule.ATR_RISK:
        rule = sizing.rule.name.lower()
        raise ConfigError(
            f"{_where(resolved, paths, 'atr_multiple')}: unused key 'sizing.atr_multiple': rule "
            f"'{rule}' ignores it, atr_risk reads it"
        )
    return sizing


def _merged(
    resolved: Resolved,
    paths: Iterable[Key],
    kind: type[Limits] | type[Sizing] | type[Instrument],
    barred: Iterable[str] = (),
) -> dict[str, Any]:
    """Tables laid over each other, each key checked against the fields of what they describe."""
    known = {field.name: field.type for field in fields(kind) if field.name not in barred}
    merged: dict[str, Any] = {}
    for path in paths:
        for name, value in _table(resolved, path).items():
            where = f"{resolved.source(*path, name)}: "
            if name not in known:
                full = ".".join((*path, name))
                raise ConfigError(f"{where}unknown key '{full}': {suggest(name, known)}")
            merged[name] = _value(name, value, known[name], where)
    return merged


def _table(resolved: Resolved, path: Key) -> Mapping[str, Scalar]:
    found: Any = resolved.settings
    for part in path:
        found = found.get(part, {}) if isinstance(found, dict) else getattr(found, part)
    table: Mapping[str, Scalar] = found
    return table


def _value(name: str, value: Scalar, kind: Any, where: str) -> Any:
    if name in _ENUMS:
        choices = {member.name.lower(): member for member in _ENUMS[name]}
        if str(value).lower() not in choices:
            raise ConfigError(f"{where}unknown {name} '{value}': {suggest(str(value), choices)}")
        return choices[str(value).lower()]
    wanted = {float: (float, int), int: (int,), str: (str,), bool: (bool,)}[kind]
    if not isinstance(value, wanted) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where}{name} must be a {kind.__name__}, got {value!r}")
    return kind(value)


def _built(resolved: Resolved, paths: Iterable[Key], build: Callable[[], Terms]) -> Terms:
    """What ``build`` makes; its complaint is given the place where a person can mend it."""
    try:
        return build()
    except LockstepError as error:
        places = [resolved.source(*path) for path in paths if resolved.is_set(*path)]
        raise type(error)(f"{', '.join(places) or 'settings'}: {error}") from error


def _where(resolved: Resolved, paths: Iterable[Key], name: str) -> str:
    said = [resolved.source(*path, name) for path in paths if resolved.is_set(*path, name)]
    return said[-1]


def runs_folder(resolved: Resolved) -> Path:
    """Where runs are kept."""
    return resolved.settings.paths.runs.expanduser()
