"""Layers of settings: built-in defaults, a profile, the environment, flags; the later one wins.

Each value remembers where it came from, so that an error can name the file, variable or flag to
mend, and ``show-config`` can answer "why is this so?".
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from config.settings import Settings

FOLDER = Path(__file__).resolve().parent
ENVIRONMENT = "LOCKSTEP__"
DEFAULT = "default"
DEFAULT_RULES = "default"
"""Instead of a file of rules: those that ship."""

Key: TypeAlias = tuple[str, ...]
Tree: TypeAlias = dict[str, Any]


class SettingsError(ValueError):
    """A layer cannot be read, or says something no setting answers to."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Some values, and where they stand. ``at`` names the place of single keys, if they differ."""

    source: str
    values: Tree
    at: Mapping[Key, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, and for each key that a layer set the source that set it last."""

    settings: Settings
    sources: Mapping[Key, str]

    def source(self, *key: str) -> str:
        """Where a value came from; of a table, where the first of its values did."""
        inside = (at for known, at in self.sources.items() if known[: len(key)] == key)
        return self.sources.get(key) or next(inside, DEFAULT)

    def is_set(self, *key: str) -> bool:
        """Whether any layer said something here, or below it."""
        return self.source(*key) != DEFAULT


def profiles() -> dict[str, Path]:
    """The profiles that ship, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def profile_path(name: str) -> Path:
    """Path of a shipped profile."""
    known = profiles()
    if name not in known:
        raise SettingsError(f"unknown profile '{name}': {suggest(name, known)}")
    return known[name]


def suggest(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or all of them."""
    choices = sorted(known)
    near = get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(choices) or 'none'}"


def read_toml(path: Path) -> Layer:
    """A TOML file. Relative paths in it are relative to its own folder."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}") from error
    return Layer(_spoken(path), _anchored(values, path.resolve().parent))


def _spoken(path: Path) -> str:
    """The path as a person names it: a shipped profile from the checkout, any other as given."""
    return path.relative_to(FOLDER.parent).as_posix() if path.parent == FOLDER else str(path)


def _anchored(values: Tree, folder: Path) -> Tree:
    """The same with every path that the schema knows joined to the folder."""
    for table, name in (("data", "file"), ("strategies", "rules")):
        stanzas = values.get(table)
        for stanza in stanzas.values() if isinstance(stanzas, dict) else ():
            _anchor(stanza, name, folder)
    for table, name in _PATHS:
        _anchor(values.get(table), name, folder)
    models = values.get("models")
    keys = models.get("key_files") if isinstance(models, dict) else None
    for name in keys if isinstance(keys, dict) else ():
        _anchor(keys, name, folder)
    plugins = values.get("plugins")
    if isinstance(plugins, dict) and isinstance(plugins.get("paths"), list):
        plugins["paths"] = [str(folder / Path(path).expanduser()) for path in plugins["paths"]]
    return values


_PATHS = (
    ("paths", "runs"),
    ("api", "token_file"),
    ("api", "read_token_file"),
    ("notify", "webhook_file"),
    ("notify", "telegram_token_file"),
    ("models", "file"),
    ("models", "cassette"),
    ("drift", "key_file"),
)


def _anchor(table: Any, name: str, folder: Path) -> None:
    path = table.get(name) if isinstance(table, dict) else None
    if isinstance(path, str) and (name, path) != ("rules", DEFAULT_RULES):
        table[name] = str(folder / Path(path).expanduser())


def read_environment(environ: Mapping[str, str], named: Iterable[str] = ()) -> Layer:
    """Variables such as ``LOCKSTEP__ACCOUNT__EQUITY``.

    A variable's name knows neither case nor dashes: where it means a name that a person chose, the
    spelling is looked up in ``named``.
    """
    spelling = {_loosely(name): name for name in named}
    pairs = []
    for variable, text in sorted(environ.items()):
        if variable.upper().startswith(ENVIRONMENT):
            parts = variable[len(ENVIRONMENT) :].split("__")
            key = tuple(spelling.get(_loosely(part), part.lower()) for part in parts)
            pairs.append((key, parse_value(text), variable))
    return layer_of("environment", pairs)


def _loosely(name: str) -> str:
    return name.lower().replace("-", "_")


def parse_value(text: str) -> Any:
    """A value as TOML writes it; anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def layer_of(source: str, pairs: Iterable[tuple[Key, Any, str]]) -> Layer:
    """A layer from (key, value, where it was said), such as flags."""
    values: Tree = {}
    at: dict[Key, str] = {}
    for key, value, place in pairs:
        table = values
        for part in key[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise SettingsError(f"{place}: {'.'.join(key[:-1])} is a value, not a table")
        if isinstance(table.get(key[-1]), dict):
            raise SettingsError(f"{place}: {'.'.join(key)} is a table, not a value")
        table[key[-1]] = value
        at[key] = place
    return Layer(source, values, at)


def resolve(layers: Iterable[Layer]) -> Resolved:
    """Lay the layers over each other and check the whole."""
    layers = list(layers)
    sources: dict[Key, str] = {}
    for layer in layers:
        _trace(layer.values, (), layer, sources)
    try:
        settings = Settings.laid(layer.values for layer in layers)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # a misspelt key is why another one is missing, so it is the one to tell
        unknown = (fault for fault in found if fault["type"] == "extra_forbidden")
        raise SettingsError(_explain(next(unknown, found[0]), sources)) from error
    return Resolved(settings, sources)


def _trace(values: Tree, key: Key, layer: Layer, sources: dict[Key, str]) -> None:
    """Note the layer as the source of each of its values."""
    for name, value in values.items():
        here = (*key, name)
        if isinstance(value, dict):
            sources.setdefault(here, _place(layer, here))
            _trace(value, here, layer, sources)
        else:
            sources[here] = _place(layer, here)


def _place(layer: Layer, key: Key) -> str:
    """Where a layer says something of this key, or of one below it."""
    below = (place for known, place in layer.at.items() if known[: len(key)] == key)
    return layer.at.get(key) or next(below, layer.source)


def _explain(error: Any, sources: Mapping[Key, str]) -> str:
    """One line from pydantic's account: where it was said, which key, what is wrong."""
    key = tuple(str(part) for part in error["loc"])
    while key and key not in sources:
        key = key[:-1]
    name = ".".join(key)
    where = sources.get(key, "settings")
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key '{name}': {suggest(key[-1], _keys_beside(key))}"
    if error["type"] == "missing":
        return f"{where}: {name} lacks '{error['loc'][-1]}'"
    wanted = "must be a number, a text, true or false" if "bool" in error["loc"] else error["msg"]
    return f"{where}: {name}: {wanted}, got {error['input']!r}"


def _keys_beside(key: Key) -> list[str]:
    """The keys the schema allows where this one stands."""
    model: Any = Settings
    named = False
    for part in key[:-1]:
        if not named:
            annotation = model.model_fields[part].annotation
            inner = getattr(annotation, "__args__", ())
            model = inner[-1] if inner else annotation
        named = bool(inner) and not named
    return list(model.model_fields)
