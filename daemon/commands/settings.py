"""``lockstep show-config``: every setting as it stands, and where each value came from."""

import re
from collections.abc import Iterator
from enum import Enum
from json import dumps
from typing import TYPE_CHECKING, Any, TypeAlias

from daemon.commands.options import Flags, Json, taking

if TYPE_CHECKING:
    from config.layers import Key, Resolved
    from daemon.commands.shelf import Shelf

    Leaf: TypeAlias = tuple[Key, Any, str]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
DEFAULT = "default"

EPILOG = (
    "Example: lockstep show-config --profile demo --set account.equity=5000\n\n"
    "Later wins: defaults, profile, environment (LOCKSTEP__ACCOUNT__EQUITY=5000), flags."
)


@taking(Flags)
def show_config(flags: Flags, json: Json = False) -> None:
    """Show every setting as a profile, and where it came from."""
    from daemon.commands.choices import read_settings
    from daemon.console import write, write_json

    leaves = _leaves(read_settings(flags.choices))
    if json:
        write_json({".".join(k): {"value": v, "source": source} for k, v, source in leaves})
    else:
        for line in _as_toml(leaves):
            write(line)


def _leaves(resolved: "Resolved") -> "list[Leaf]":
    """Every key with its value and source: what layers set, and the defaults of all else."""
    from daemon.commands.shelf import open_shelf

    shelf = open_shelf(resolved)
    tree = resolved.settings.model_dump(mode="json")
    _fill(shelf, tree)
    found = [(key, _plain(value), _source(shelf, key)) for key, value in _flat(tree, ())]
    return [(key, value, source) for key, value, source in found if value is not None]


def _as_toml(leaves: "list[Leaf]") -> Iterator[str]:
    """A profile one could keep: what is at its default stands as a comment."""
    tables: dict[Key, list[str]] = {}
    for key, value, source in leaves:
        mark = "# " if source == DEFAULT else ""
        line = f"{mark}{_quoted(key[-1])} = {dumps(value)}"
        tables.setdefault(key[:-1], []).append(f"{line:<40} # {source}")
    for table, lines in tables.items():
        yield f"[{'.'.join(_quoted(part) for part in table)}]"
        yield from lines
        yield ""


def _quoted(part: str) -> str:
    return part if _BARE.fullmatch(part) else f'"{part}"'


def _fill(shelf: "Shelf", tree: dict[str, Any]) -> None:
    """The defaults that do not stand in the settings but where they are used."""
    from dataclasses import asdict

    from core.instrument import Instrument
    from daemon.commands.setups import limits_of, shared_sizing

    resolved = shelf.resolved
    instrument = asdict(Instrument(name="any"))
    del instrument["name"]
    tree["account"]["limits"] = asdict(limits_of(resolved, ("account", "limits")))
    tree["limits"] = asdict(limits_of(resolved, ("limits",)))
    tree["sizing"] = asdict(shared_sizing(resolved))
    tree["instrument"] = {**instrument, **tree["instrument"]}
    for label, stanza in tree["strategies"].items():
        strategy = shelf.strategy(label)
        stanza["params"] = strategy.values(shelf.params(label, strategy))
        stanza["strategy"] = strategy.name


def _source(shelf: "Shelf", key: "Key") -> str:
    """Where a value came from; a profile that the strategy ships sets parameters too."""
    own = shelf.resolved.sources.get(key)
    if own is None and key[0] == "strategies" and key[2] == "params":
        profile = shelf.resolved.settings.strategies[key[1]].profile
        if profile and key[3] in shelf.strategy(key[1]).profile(profile):
            return f"profile {profile} of the strategy"
    return own or DEFAULT


def _flat(value: Any, key: "Key") -> "list[tuple[Key, Any]]":
    if isinstance(value, dict):
        return [pair for name, inner in value.items() for pair in _flat(inner, (*key, name))]
    return [(key, value)]


def _plain(value: Any) -> Any:
    """A value as settings write it: an enumeration by its name in lower case."""
    if isinstance(value, Enum):
        return value.name.lower()
    return list(value) if isinstance(value, tuple) else value
