"""From what a person typed to settings: which profile, and what every flag says in its terms.

A flag is only a short way to set a key, so profile, environment and flags meet in one tree and the
same checks hold for all three.
"""

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.layers import (
    DEFAULT_RULES,
    Key,
    Layer,
    Resolved,
    SettingsError,
    layer_of,
    parse_value,
    profile_path,
    read_environment,
    read_toml,
    resolve,
    suggest,
)
from config.settings import Settings, Stanza
from core.errors import ConfigError
from daemon.commands.names import instrument_of
from daemon.commands.narrowing import narrow

Knows = Callable[[str, str], bool]
"""Whether the strategy of this stanza has a parameter of that name."""

_STANZA_KEYS = frozenset(Stanza.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The flags of a command that reads settings."""

    profile: str | None = None
    config: Path | None = None
    strategies: Sequence[str] = ()
    rules: Sequence[str] = ()
    data: Sequence[str] = ()
    instruments: Sequence[str] = ()
    resample: str | None = None
    runs: Path | None = None
    sets: Sequence[str] = ()


def flags_of(choices: Choices) -> list[str]:
    """The flags of ``lockstep run`` that say the same, for another process."""
    pairs = [
        *([("--profile", choices.profile)] if choices.profile else []),
        *([("--config", str(choices.config))] if choices.config else []),
        *(("--strategy", name) for name in choices.strategies),
        *(("--rules", path) for path in choices.rules),
        *(("--set", text) for text in choices.sets),
    ]
    return [word for pair in pairs for word in pair]


def read_settings(choices: Choices, environ: Mapping[str, str] | None = None) -> Resolved:
    """Defaults, then profile, environment and flags. ConfigError for anything not understood."""
    try:
        return _read(choices, os.environ if environ is None else environ)
    except SettingsError as error:
        raise ConfigError(str(error)) from error


def _read(choices: Choices, environ: Mapping[str, str]) -> Resolved:
    wanted = [*choices.strategies, *(_rules_name(path) for path in choices.rules)]
    _once("--strategy or --rules", wanted)
    layers = [_profile(choices, wanted)] if choices.profile or choices.config else []
    flags = layer_of("flags", _flag_pairs(choices, _names("data", layers)))
    stanzas = _names("strategies", [*layers, flags])
    instruments = [*_names("data", [*layers, flags]), *_names("instruments", layers)]
    environment = read_environment(environ, [*stanzas, *instruments])
    _refuse_strangers(environment, stanzas)
    known = [*layers, environment, flags]
    names = Names(stanzas, instruments, _parameters_of(known))
    sets = layer_of("--set", [names.pair(text) for text in choices.sets])
    return resolve([*known, sets])


def _profile(choices: Choices, strategies: Sequence[str]) -> Layer:
    if choices.profile and choices.config:
        raise ConfigError("--profile and --config both name a profile: give one")
    layer = read_toml(choices.config or profile_path(choices.profile or ""))
    renames = len(choices.instruments) == len(choices.data) == 1
    return narrow(layer, strategies, () if renames else choices.instruments)


def _names(table: str, layers: Iterable[Layer]) -> list[str]:
    """Names that layers give below a table, in the order given."""
    tables = [layer.values.get(table) for layer in layers]
    return list(dict.fromkeys(name for t in tables if isinstance(t, dict) for name in t))


def _refuse_strangers(environment: Layer, stanzas: Sequence[str]) -> None:
    """A variable must not bring a strategy into a run that nobody named there."""
    for key, place in environment.at.items():
        if key[0] == "strategies" and len(key) > 1 and key[1] not in stanzas:
            raise ConfigError(
                f"{place}: this run has no strategy '{key[1]}': {suggest(key[1], stanzas)}"
            )


def _flag_pairs(choices: Choices, profiled: Sequence[str]) -> list[tuple[Key, Any, str]]:
    """Keys that flags set; ``profiled`` are the instruments the profile has data of."""
    data = _chosen(choices, _data(choices), profiled)
    resampled = dict.fromkeys([*profiled, *(name for name, _ in data)]) if choices.resample else ()
    return [
        *((("strategies", name), {}, f"--strategy {name}") for name in choices.strategies),
        *(
            (("strategies", _rules_name(path), "rules"), path, f"--rules {path}")
            for path in choices.rules
        ),
        *((("data", name, "file"), path, f"--data {path}") for name, path in data),
        *((("data", name, "interval"), choices.resample, "--resample") for name in resampled),
        *([(("paths", "runs"), str(choices.runs), "--runs")] if choices.runs else []),
    ]


def _once(flag: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{flag} {twice[0]} is given twice: give it once")


def _rules_name(path: str) -> str:
    return "rules" if path == DEFAULT_RULES else Path(path).stem


def _data(choices: Choices) -> list[tuple[str, str]]:
    """Instrument and file of each ``--data``."""
    pairs = [_named(text) for text in choices.data]
    unnamed = [place for place, (name, _) in enumerate(pairs) if not name]
    if len(pairs) == len(choices.instruments) == len(unnamed) == 1:
        return [(choices.instruments[0], pairs[0][1])]
    named = [(name or instrument_of(Path(path)), path) for name, path in pairs]
    names = [name for name, _ in named]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(
            f"--data: two files for instrument '{twice[0]}': name them, as in --data NAME=FILE"
        )
    return named


def _chosen(
    choices: Choices, data: list[tuple[str, str]], profiled: Sequence[str]
) -> list[tuple[str, str]]:
    """The data of the instruments that ``--instrument`` names, all when it names none."""
    known = [*profiled, *(name for name, _ in data)]
    for name in choices.instruments:
        if name not in known:
            raise ConfigError(f"--instrument {name}: no data for it: {suggest(name, known)}")
    return [pair for pair in data if not choices.instruments or pair[0] in choices.instruments]


def _named(text: str) -> tuple[str, str]:
    """``NAME=FILE``, or a FILE whose path may hold a ``=`` itself."""
    name, sign, path = text.partition("=")
    if sign and "/" not in name and not Path(text).exists():
        return name, path
    return "", text


def _parameters_of(layers: Sequence[Layer]) -> Knows:
    """Whether a stanza's strategy has a parameter; imports strategies only when asked."""

    def knows(stanza: str, parameter: str) -> bool:
        from daemon.commands.shelf import open_shelf

        shelf = open_shelf(resolve(layers))
        return parameter in shelf.strategy(stanza).params

    return knows


@dataclass(frozen=True, slots=True)
class Names:
    """What the short keys of ``--set`` may mean in this run."""

    stanzas: Sequence[str]
    instruments: Sequence[str]
    has_parameter: Knows

    def pair(self, text: str) -> tuple[Key, Any, str]:
        """The full key, the value and the place of one ``--set key=value``."""
        place = f"--set {text}"
        name, sign, value = text.partition("=")
        key = _key(name.strip()) if sign else None
        if not key:
            raise ConfigError(f"{place}: write key=value, as in --set fast=10")
        return self._full(key, place), parse_value(value.strip()), place

    def _full(self, key: Key, place: str) -> Key:
        if len(key) == 1:
            return ("strategies", self._owner(key[0], place), "params", key[0])
        if key[0] in Settings.model_fields:
            self._refuse_stranger(key, place)
            return key
        if key[0] in self.stanzas:
            inner = key[1:] if key[1] in _STANZA_KEYS else ("params", *key[1:])
            return ("strategies", key[0], *inner)
        if key[0] in self.instruments:
            return ("instruments", *key)
        known = [*Settings.model_fields, *self.stanzas, *self.instruments]
        raise ConfigError(f"{place}: unknown key '{key[0]}': {suggest(key[0], known)}")

    def _refuse_stranger(self, key: Key, place: str) -> None:
        if key[0] == "strategies" and key[1] not in self.stanzas:
            hint = suggest(key[1], self.stanzas)
            raise ConfigError(f"{place}: this run has no strategy '{key[1]}': {hint}")

    def _owner(self, parameter: str, place: str) -> str:
        """The stanza a bare parameter belongs to."""
        if parameter in Settings.model_fields:
            raise ConfigError(
                f"{place}: '{parameter}' is a table: write --set {parameter}.KEY=VALUE"
            )
        if not self.stanzas:
            raise ConfigError(f"{place}: no strategy has it: give --strategy NAME")
        if len(self.stanzas) == 1:
            return self.stanzas[0]
        owners = [name for name in self.stanzas if self.has_parameter(name, parameter)]
        if len(owners) != 1:
            having = ", ".join(owners) or "no strategy of this run"
            example = f"{(owners or self.stanzas)[0]}.{parameter}"
            raise ConfigError(f"{place}: {having} has '{parameter}': write --set {example}=VALUE")
        return owners[0]


def _key(text: str) -> Key | None:
    """The parts of a dotted key as TOML reads it, so a quoted part may hold dots."""
    try:
        table = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return None
    parts = []
    while isinstance(table, dict):
        name, table = next(iter(table.items()))
        parts.append(name)
    return tuple(parts)
