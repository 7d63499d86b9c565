"""The folder of runs: keeping one, finding one again, listing all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backtest.run import MANIFEST, Run, load, save
from core.errors import ConfigError, DataError, LockstepError, UnknownName


def keep(run: Run, folder: Path) -> Path:
    """Save a run; a folder that cannot be written is an error of one line."""
    try:
        return save(run, folder)
    except OSError as error:
        raise LockstepError(f"{folder}: cannot keep the run: {error.strerror}") from error


def open_run(folder: Path, name: str) -> Run:
    """A run by its id, by the start of it, by ``latest``, or by the path of its folder."""
    path = Path(name)
    if "/" in name or (path / MANIFEST).is_file():
        folder, name = path.resolve().parent, path.resolve().name
    else:
        name = _full_id(folder, name)
    try:
        return load(folder, name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / name}: cannot be read: run it again ({error})") from error


def _full_id(folder: Path, name: str) -> str:
    known = [path.name for path in _folders(folder)]
    if not known:
        raise ConfigError(f"{folder}: holds no run yet: make one with 'lockstep replay'")
    if name == "latest":
        return known[0]
    matches = [run_id for run_id in known if run_id.startswith(name)]
    if len(matches) > 1:
        raise ConfigError(
            f"run '{name}' may be any of {', '.join(sorted(matches))}: give more of it"
        )
    if not matches:
        raise UnknownName("run", name, known)
    return matches[0]


def manifests(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder and manifest of every run, the newest first."""
    for path in _folders(folder):
        try:
            yield path, json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue


def _folders(folder: Path) -> list[Path]:
    found = [path.parent for path in folder.glob(f"*/{MANIFEST}")]
    return sorted(found, key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True)
