"""Plugins: strategies from ``*.py`` files in folders the settings name.

Each file is a module under a name of its own, so two of one name do not meet, and a real file, so
that numba caches what it compiles.
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from core.errors import ConfigError, LockstepError, StrategyError
from core.strategy import Strategy
from strategies.registry import strategies_in

# what code can raise while it is imported; a Ctrl-C stays one
_BROKEN = (
    *(SyntaxError, ImportError, NameError, AttributeError, TypeError, ValueError),
    *(LookupError, ArithmeticError, AssertionError, RuntimeError, OSError, LockstepError),
)


@dataclass(frozen=True, slots=True)
class Plugins:
    """Strategies by name, and the file each came from."""

    strategies: Mapping[str, Strategy]
    files: Mapping[str, Path]

    def digest(self, name: str) -> str | None:
        """Hex digest of the file a strategy came from, None for one that ships."""
        path = self.files.get(name)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


def load_plugins(paths: Iterable[Path]) -> Plugins:
    """The strategies of every ``*.py`` in these folders (or files).

    ConfigError for a path that is not there or a name taken twice, StrategyError for a file that
    cannot be imported.
    """
    found: dict[str, Strategy] = {}
    files: dict[str, Path] = {}
    for path in [file for folder in paths for file in _python_files(folder)]:
        for strategy in strategies_in(_load(path)):
            if strategy.name in found:
                raise ConfigError(
                    f"{path}: strategy '{strategy.name}' stands in {files[strategy.name]} too: "
                    "rename one"
                )
            found[strategy.name], files[strategy.name] = strategy, path
    return Plugins(found, files)


def _python_files(path: Path) -> list[Path]:
    path = path.expanduser().resolve()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"plugins.paths: {path} is not there: create it, or mend the path")
    return sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))


def _load(path: Path) -> ModuleType:
    name = f"lockstep_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StrategyError(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except _BROKEN as error:
        del sys.modules[name]
        kind = type(error).__name__
        raise StrategyError(
            f"{path}, line {_line(error, path)}: {kind}: {_first(error)}"
        ) from error
    return module


def _line(error: BaseException, path: Path) -> int:
    """The last line of this file on the way to the error."""
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return max((frame.lineno or 0 for frame in frames if frame.filename == str(path)), default=0)


def _first(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return text.splitlines()[0] if text else "no message"
