"""What stands between code and this machine: namespaces through bubblewrap, or Landlock without.

Inside is an interpreter with its standard library, numpy, the shared libraries these load, and
nothing else; nothing is writable. The filter of system calls and the limits stand in both.
"""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forecasting.sandbox.port import SandboxUnavailable
from forecasting.sandbox.seccomp import MACHINES, program

CHILD = Path(__file__).with_name("child.py")
PYTHON_FLAGS = ("-P", "-s", "-S", "-B")
_SURVEY_S = 60
# modules whose extensions load shared libraries, so that the survey sees them
_SURVEY = """
import json, os, sys, sysconfig
from importlib import import_module
for name in sys.argv[1:]:
    try:
        import_module(name)
    except ImportError:
        pass
maps = {line.split(None, 5)[-1].strip() for line in open("/proc/self/maps")}
print(json.dumps({
    "executable": os.path.realpath(sys.executable),
    "library": sysconfig.get_path("stdlib"),
    "libraries": sorted(path for path in maps if ".so" in path),
}))
"""
_SURVEYED: tuple[str, ...] = (
    "bz2",
    "ctypes",
    "decimal",
    "hashlib",
    "lzma",
    "numpy",
    "numpy.fft",
    "numpy.linalg",
)
_SURVEYED += ("numpy.random", "sqlite3", "ssl", "unicodedata", "uuid", "zlib")


@dataclass(frozen=True, slots=True)
class Prefix:
    """The least an interpreter needs. ``packages`` holds numpy, ``libraries`` are all names by
    which the loader may ask for a shared library."""

    executable: Path
    library: Path
    packages: Path
    libraries: tuple[Path, ...]

    @property
    def numpy(self) -> tuple[Path, ...]:
        """Numpy, and where its wheel keeps its own shared libraries."""
        folders = (self.packages / "numpy", self.packages / "numpy.libs")
        return tuple(folder for folder in folders if folder.is_dir())


@dataclass(frozen=True, slots=True)
class Wall:
    """How the interpreter is started, and what it then does to itself.

    ``readable`` are the paths Landlock leaves open, empty where it is not used.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    readable: tuple[str, ...]
    filter: bytes


@cache
def survey() -> Prefix:
    """The prefix of this very interpreter; SandboxUnavailable where it cannot be told."""
    import numpy

    packages = Path(numpy.__file__).parent.parent
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    command = [str(executable), *PYTHON_FLAGS, "-c", _SURVEY, *_SURVEYED]
    try:
        done = subprocess.run(
            command,
            env={"PYTHONPATH": str(packages)},
            capture_output=True,
            check=True,
            timeout=_SURVEY_S,
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SandboxUnavailable(f"{executable}: cannot be surveyed: {error}") from error
    inside = (f"{found['library']}/", f"{packages}/")
    return Prefix(
        executable=Path(found["executable"]),
        library=Path(found["library"]),
        packages=packages,
        libraries=_names(Path(path) for path in found["libraries"] if not path.startswith(inside)),
    )


def bubblewrap() -> Wall:
    """Namespaces of its own for everything, and a file system with the prefix in it alone."""
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxUnavailable("bwrap is not installed (package bubblewrap)")
    prefix = survey()
    argv = [found, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    argv += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    for path in (prefix.executable, prefix.library, *prefix.libraries):
        argv += ["--ro-bind", str(path), str(path)]
    site = prefix.library / "site-packages"
    if site.is_dir():
        argv += ["--tmpfs", str(site), "--remount-ro", str(site)]
    for folder in prefix.numpy:
        argv += ["--ro-bind", str(folder), f"/packages/{folder.name}"]
    argv += ["--ro-bind", str(CHILD), "/child.py", "--remount-ro", "/", "--chdir", "/", "--"]
    argv += [str(prefix.executable), *PYTHON_FLAGS, "/child.py"]
    return Wall(tuple(argv), _env(prefix, "/packages"), (), _filter())


def landlock() -> Wall:
    """The kernel lets the interpreter open what is in the prefix, and no other file."""
    prefix = survey()
    beneath = (prefix.executable, prefix.library, *prefix.numpy, *prefix.libraries, CHILD)
    readable = (*map(str, beneath), f"{prefix.packages}/")
    argv = (str(prefix.executable), *PYTHON_FLAGS, str(CHILD))
    return Wall(argv, _env(prefix, str(prefix.packages)), readable, _filter())


WALLS: dict[str, Callable[[], Wall]] = {"bubblewrap": bubblewrap, "landlock": landlock}


def _filter() -> bytes:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in MACHINES:
        raise SandboxUnavailable(f"no system calls are listed for {sys.platform} on {machine}")
    return program(machine)


def _env(prefix: Prefix, packages: str) -> dict[str, str]:
    """All the environment there is. Hashes are not drawn anew: the same code runs the same way."""
    folders = dict.fromkeys(str(path.parent) for path in prefix.libraries)
    return {
        "LD_LIBRARY_PATH": ":".join(folders),
        "PYTHONPATH": packages,
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "LANG": "C.UTF-8",
    }


def _names(found: Iterable[Path]) -> tuple[Path, ...]:
    """Each library outside the prefix by all its names beside it, and the loader by its own."""
    names: set[Path] = set()
    for path in found:
        stem = path.name.partition(".so")[0]
        names |= {
            link for link in path.parent.glob(f"{stem}.so*") if link.resolve() == path.resolve()
        }
    loaders = [*Path("/lib64").glob("ld-linux-*"), *Path("/lib").glob("ld-linux-*")]
    return (*loaders, *sorted(names))
