"""``lockstep doctor``: whether this machine can do what will be asked of it."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daemon.commands.options import Config, Json, Profile, Runs

if TYPE_CHECKING:
    from config.layers import Resolved

EPILOG = "Example: lockstep doctor --json\n\nExit code 0 when nothing failed, 1 otherwise."
PYTHON_MIN = (3, 11)
DISK_BYTES_MIN, DISK_BYTES_WARN = 100_000_000, 2_000_000_000
CLOCK_SKEW_MS_MAX = 2_000
BUILT_MS = 1_746_000_000_000
"""2025-04-30: a clock before it is wrong for certain."""
PACKAGES = ("numba", "numpy", "pyarrow", "pydantic", "rich", "sqlalchemy", "typer")


Venue = Annotated[
    Literal["drift"] | None,
    typer.Option("--venue", help="Also look whether this venue can be traded with the settings."),
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, ``ok``, ``warn`` or ``fail``, and what to do about it."""

    check: str
    state: str
    detail: str


def doctor(
    runs: Runs = None,
    venue: Venue = None,
    profile: Profile = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Check that this machine, and a venue, are fit to trade."""
    from daemon.commands.choices import Choices, read_settings
    from daemon.console import write_json, write_table

    resolved = read_settings(Choices(runs=runs, profile=profile, config=config))
    settings = resolved.settings
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _compiled_step,
        lambda: _disk(settings.paths.runs),
        _clock,
        _data,
        lambda: _journal(settings.paths.journal),
    ]
    found = [check() for check in checks]
    if venue is not None:
        found += _venue(resolved)
    failed = any(finding.state == "fail" for finding in found)
    if json:
        write_json({"ok": not failed, "checks": [asdict(finding) for finding in found]})
    else:
        rows = [(finding.check, finding.state, finding.detail) for finding in found]
        write_table(("check", "state", "detail"), rows, wraps=["detail"])
    if failed:
        raise typer.Exit(1)


def _venue(resolved: "Resolved") -> list[Finding]:
    """What the venue's own checks say."""
    import anyio

    from daemon.clock import now_ms
    from daemon.commands.setups import instrument_lots
    from daemon.venues.drift_checks import drift_looks

    settings = resolved.settings

    async def look() -> list[Finding]:
        lots = instrument_lots(resolved)
        looks = drift_looks(settings.drift, settings.live, lots, os.environ, now_ms)
        return [Finding(f"drift {one.check}", one.state, one.detail) async for one in looks]

    return anyio.run(look)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < PYTHON_MIN:
        return Finding("python", "fail", f"{version}: install 3.11 or later")
    return Finding("python", "ok", version)


def _packages() -> Finding:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", "fail", f"missing {', '.join(missing)}: run ./setup")
    return Finding("packages", "ok", ", ".join(found))


def _compiled_step() -> Finding:
    from core.compiled import INTERPRETED

    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    if INTERPRETED:
        return Finding("compiled step", "warn", "NUMBA_DISABLE_JIT is set: replays are slow")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = f"{folder}: {error.strerror}; set LOCKSTEP_CACHE to a folder that can be written"
        return Finding("compiled step", "fail", why)
    warm = any(folder.rglob("*.nbc"))
    told = "warm" if warm else "cold, so the first replay compiles for some ten seconds"
    return Finding("compiled step", "ok" if warm else "warn", f"{told}: {folder}")


def _disk(runs: Path) -> Finding:
    folder = _existing(runs.expanduser().resolve())
    free = shutil.disk_usage(folder).free
    told = f"{free / 1e9:.1f} GB free where runs are kept ({folder})"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "fail", f"{folder} cannot be written: give --runs DIR")
    if free < DISK_BYTES_MIN:
        return Finding("disk", "fail", f"{told}: make room")
    return Finding("disk", "warn" if free < DISK_BYTES_WARN else "ok", told)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _clock() -> Finding:
    """The wall clock against a lower bound, and against the clock that only goes forward."""
    from daemon.clock import now_ms

    before, steady = now_ms(), time.monotonic()
    time.sleep(0.05)
    drift_ms = abs((now_ms() - before) - (time.monotonic() - steady) * 1000)
    if before < BUILT_MS:
        return Finding("clock", "fail", "the clock is years behind: set it, and keep it by NTP")
    if drift_ms > CLOCK_SKEW_MS_MAX:
        return Finding("clock", "fail", f"the clock jumped {drift_ms:.0f} ms while we looked")
    zone = time.strftime("%z")
    return Finding("clock", "ok", f"steady; the machine's zone is UTC{zone}, ours is always UTC")


def _data() -> Finding:
    named = os.environ.get("LOCKSTEP_DATA")
    if named is None:
        return Finding("data", "ok", "LOCKSTEP_DATA is not set; 'lockstep demo' needs no data")
    if not Path(named).is_dir():
        return Finding("data", "warn", f"LOCKSTEP_DATA: {named} is not a folder")
    files = sum(1 for path in _files(Path(named)))
    return Finding("data", "ok" if files else "warn", f"{files} candle files in {named}")


def _files(folder: Path) -> Iterator[Path]:
    for suffix in ("feather", "parquet", "csv", "csv.gz"):
        yield from folder.rglob(f"*.{suffix}")


def _journal(url: str) -> Finding:
    from core.errors import JournalError
    from daemon.journal import open_journal

    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.exists():
        return Finding("journal", "ok", f"{path} is made by the first run that is recorded")
    try:
        engine = open_journal(url)
    except JournalError as error:
        return Finding("journal", "fail", str(error))
    engine.dispose()
    return Finding("journal", "ok", engine.url.render_as_string(hide_password=True))
