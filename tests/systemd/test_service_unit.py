"""The unit: systemd accepts it, it stands hardened below the promised score, and codes agree."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import JournalUnreachable, LockstepError

EXPOSURE_MAX = 1.5
PROGRAM = "/opt/lockstep/.venv/bin/lockstep"


@pytest.fixture(scope="module")
def unit(folder: Path) -> str:
    return (folder / "lockstep.service").read_text()


@pytest.fixture
def installed(unit: str, tmp_path: Path) -> Path:
    """The unit as it stands where its program is ours: systemd wants it to be there."""
    path = tmp_path / "lockstep.service"
    path.write_text(unit.replace(PROGRAM, str(Path(sys.executable).with_name("lockstep"))))
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not here (Debian: apt-get install systemd)")
    command = [found, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def score(path: Path, threshold: float) -> tuple[int, float]:
    """Whether the unit stays at or below, and its exposure."""
    done = analyze("security", "--offline=true", f"--threshold={round(threshold * 10)}", path)
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    return done.returncode, float(level[1])


def test_systemd_accepts_the_unit(installed: Path) -> None:
    done = analyze("verify", "--man=no", installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_would_refuse_a_slip(installed: Path) -> None:
    """The proof that the test above can fail."""
    installed.write_text(installed.read_text().replace("WatchdogSec=60", "WatchdogSecs=60"))
    assert "WatchdogSecs" in analyze("verify", "--man=no", installed).stderr


def test_little_is_exposed(installed: Path) -> None:
    code, level = score(installed, EXPOSURE_MAX)
    assert (code, level <= EXPOSURE_MAX) == (0, True), level


def test_without_the_sandbox_too_much_would_be(installed: Path) -> None:
    bare = re.sub(r"(?m)^(Protect|Private|Restrict|SystemCall)\w+=.*$", "", installed.read_text())
    installed.write_text(bare)
    code, level = score(installed, EXPOSURE_MAX)
    assert code != 0
    assert level > EXPOSURE_MAX


def settings(unit: str, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", unit)


def subclasses(kind: type[LockstepError]) -> set[type[LockstepError]]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_what_no_restart_mends_is_not_restarted(unit: str) -> None:
    """Every exit code of an error that names its cause; a crash (1), a signal, and a journal that
    cannot be reached now (7) are restarted."""
    own = {kind.exit_code for kind in subclasses(LockstepError) if kind.__module__ == "core.errors"}
    prevented = {int(code) for code in settings(unit, "RestartPreventExitStatus")[0].split()}
    assert prevented == own - {LockstepError.exit_code, JournalUnreachable.exit_code}
    assert JournalUnreachable.exit_code in own
    assert settings(unit, "Restart") == ["on-failure"]


def test_systemd_waits_for_ready_and_watches_the_ticks(unit: str) -> None:
    assert settings(unit, "Type") == ["notify"]
    assert settings(unit, "NotifyAccess") == ["main"]
    assert int(settings(unit, "WatchdogSec")[0]) > 0
    assert settings(unit, "ExecStart") == [f"{PROGRAM} run --config /etc/lockstep/lockstep.toml"]


def test_numba_may_write_code_and_finds_its_cache(unit: str) -> None:
    assert settings(unit, "MemoryDenyWriteExecute") == []
    assert settings(unit, "CacheDirectory") == ["lockstep"]


def test_no_secret_stands_in_the_unit(unit: str) -> None:
    assert settings(unit, "SetCredential") == []
    assert all("token" not in line.lower() for line in settings(unit, "Environment"))
