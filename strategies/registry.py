"""Finding a strategy by name, without a list to keep: a file in this package is on the shelf.

A module is imported only when a name asks for it: the one of that name first, all others when that
fails. Plugins are loaded by the daemon, because this package touches no files.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType

import strategies
from core.errors import ConfigError, UnknownName
from core.strategy import Strategy


def find(name: str, plugins: Mapping[str, Strategy] | None = None) -> Strategy:
    """A strategy by name, the shipped ones first; an unknown name suggests the nearest."""
    own = _in_module(name) if name in _modules() else {}
    if name not in own:
        own = all_strategies(plugins)
    if name not in own:
        raise UnknownName("strategy", name, own)
    return own[name]


def all_strategies(plugins: Mapping[str, Strategy] | None = None) -> dict[str, Strategy]:
    """Every strategy by name: those that ship, then the plugins. A name taken twice is an error."""
    found = gather(_import(module) for module in _modules())
    for name, strategy in (plugins or {}).items():
        if name in found:
            raise ConfigError(f"plugin strategy '{name}' has the name of one that ships: rename it")
        found[name] = strategy
    return found


def strategies_in(module: ModuleType) -> list[Strategy]:
    """The strategies among a module's own values."""
    return [value for value in vars(module).values() if isinstance(value, Strategy)]


def gather(modules: Iterable[ModuleType]) -> dict[str, Strategy]:
    """Strategies of many modules by name."""
    return {found.name: found for module in modules for found in strategies_in(module)}


def _in_module(name: str) -> dict[str, Strategy]:
    return gather([_import(name)])


def _import(name: str) -> ModuleType:
    return importlib.import_module(f"{strategies.__name__}.{name}")


def _modules() -> list[str]:
    """Modules of this package, beside this one; a package in it holds parts, not strategies."""
    found = pkgutil.iter_modules(strategies.__path__)
    return [info.name for info in found if not info.ispkg and info.name != "registry"]
