"""The sandbox under the shipped unit: Landlock stands and holds, bubblewrap says that it cannot.

What systemd would do to the daemon is read from the unit and done to a child of ours.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import unit_confined

from forecasting.sandbox.local import Local

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "lockstep.service"
HERE = """
import ctypes, errno, json, os, socket
from contextlib import suppress
import anyio
from forecasting.sandbox import choose
from forecasting.sandbox.local import Local

def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]

def unshare():
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) < 0:
        raise OSError(ctypes.get_errno(), "unshare")

async def walls():
    named = {name: Local(name) for name in ("bubblewrap", "landlock")}
    reasons = {name: await wall.available() for name, wall in named.items()}
    return {"reasons": reasons, "chosen": (await choose(named)).name}

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(json.dumps({
    "namespace": refused(unshare),
    "affinity": refused(os.sched_setaffinity, 0, {0}),
    "netlink": refused(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW),
    "nice": refused(os.setpriority, os.PRIO_PROCESS, 0, 10),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "new privileges": status["NoNewPrivs"].strip(),
    **anyio.run(walls),
}))
"""


def settings(name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", UNIT.read_text())


def groups() -> dict[str, list[str]]:
    """Systemd's groups of system calls, as this machine's version has them."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not here (Debian: apt-get install systemd)")
    told = subprocess.run(
        [found, "--no-pager", "syscall-filter"], capture_output=True, text=True, check=True
    )
    members: dict[str, list[str]] = {}
    for line in told.stdout.splitlines():
        word = line.strip()
        if line.startswith("@"):
            members[word] = []
        elif line.startswith("    ") and not word.startswith("#"):
            members[next(reversed(members))].append(word)
    return members


def expanded(words: list[str], known: dict[str, list[str]]) -> set[str]:
    """The calls that words name, groups among them."""
    return {
        call
        for word in words
        for call in (expanded(known[word], known) if word.startswith("@") else {word})
    }


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the unit says, in a file for the child."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root may take privileges away as systemd does")
    known, calls = groups(), set[str]()
    for line in settings("SystemCallFilter"):
        if line.startswith("~"):
            calls -= expanded(line[1:].split(), known)
        else:
            calls |= expanded(line.split(), known)
    assert settings("RestrictNamespaces") == settings("NoNewPrivileges") == ["yes"]
    assert settings("CapabilityBoundingSet") == [""]
    (families,) = settings("RestrictAddressFamilies")
    told = {
        "calls": sorted(calls),
        "families": [int(getattr(socket, name)) for name in families.split()],
        "umask": settings("UMask")[0],
        "limits": {name: int(settings(f"Limit{name}")[0]) for name in ("NOFILE", "CORE")},
    }
    path = tmp_path_factory.mktemp("unit") / "terms.json"
    path.write_text(json.dumps(told))
    return path


def confined(terms: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, under the unit's terms."""
    child = [sys.executable, unit_confined.__file__, str(terms), sys.executable, *command]
    return subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_bubblewrap_says_that_it_cannot_and_landlock_is_taken(terms: Path) -> None:
    done = confined(terms, "-c", HERE)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    reasons = told.pop("reasons")
    assert told == {
        "namespace": "EPERM",
        "affinity": "EPERM",
        "netlink": "EAFNOSUPPORT",
        "nice": None,
        "capabilities": 0,
        "new privileges": "1",
        "chosen": "landlock",
    }
    assert reasons["landlock"] is None
    assert reasons["bubblewrap"]
    assert "\n" not in reasons["bubblewrap"]


@pytest.mark.slow
def test_landlock_holds_there_as_it_does_elsewhere(terms: Path) -> None:
    """Its own tests, escapes and kills, run as the daemon would run it; none may be skipped."""
    suite = str(Path(__file__).with_name("test_sandbox.py"))
    chosen = "(escape or environment or benign or killed or parent) and landlock"
    done = confined(terms, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite, "-k", chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^5 passed, \d+ deselected", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.anyio
async def test_unconfined_both_are_there() -> None:
    """The proof that it is the unit's terms which keep bubblewrap from standing."""
    for wall in ("bubblewrap", "landlock"):
        if shutil.which("bwrap") is None:
            pytest.skip("bwrap is not here (Debian: apt-get install bubblewrap)")
        assert await Local(wall).available() is None
