"""A reload: what may change does, what decides is refused by name, a slip changes nothing."""

import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from config.settings import Settings
from core.errors import ConfigError
from daemon.commands.choices import Choices, read_settings
from daemon.live.reloading import Reload, changes
from daemon.sdnotify import Notifier

PROFILE = """
[account]
equity = 1_000
[strategies.trend]
params = { fast = 10 }
[instruments.BTC]
[notify]
topics = ["mode"]
"""


class Run:
    """A run whose profile a person edits, and what it took up."""

    def __init__(self, folder: Path, systemd: socket.socket) -> None:
        self.profile, self._systemd = folder / "own.toml", systemd
        self.write(PROFILE)
        self.applied: list[Settings] = []
        self.refuses = ""
        self.reload = Reload(
            self.read(), self.read, self._apply, Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
        )

    def write(self, text: str) -> None:
        self.profile.write_text(text)

    def read(self) -> Settings:
        return read_settings(Choices(config=self.profile), {}).settings

    def _apply(self, settings: Settings) -> None:
        if self.refuses:
            raise ConfigError(self.refuses)
        self.applied.append(settings)

    def reloaded(self, text: str) -> tuple[list[dict[str, object]], str]:
        """What the log and the status say of a reload with this profile."""
        self.write(text)
        with capture_logs() as lines:
            anyio.run(self.reload)
        begun, over = (self._systemd.recv(4096).decode().splitlines() for _ in range(2))
        assert begun[0] == "RELOADING=1"
        assert begun[1].startswith("MONOTONIC_USEC=")
        assert over[0] == "READY=1"
        return [dict(line) for line in lines], over[1].removeprefix("STATUS=")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        yield Run(tmp_path, systemd)


def test_what_is_only_shell_is_taken_up(run: Run) -> None:
    text = PROFILE.replace('"mode"', '"mode", "fill"') + "[log]\nlevel = 'debug'\n[api]\nburst = 3"
    [line], status = run.reloaded(text)
    assert (line["event"], line["changed"], status) == (
        "reloaded",
        ["api.burst", "notify.topics", "log.level"],
        "reloaded",
    )
    [taken] = run.applied
    assert (taken.api.burst, taken.log.level, taken.notify.topics) == (3, "debug", ("mode", "fill"))
    [line], _ = run.reloaded(text)
    assert line["changed"] == []


@pytest.mark.parametrize(
    ("was", "now", "key"),
    [
        ("equity = 1_000", "equity = 2_000", "account.equity"),
        ("fast = 10", "fast = 11", "strategies.trend.params.fast"),
        ("fast = 10", "fast = 10, slow = 30", "strategies.trend.params.slow"),
        ("[instruments.BTC]", "[instruments.BTC]\nlot = 1", "instruments.BTC.lot"),
        ("[instruments.BTC]", "[instruments.BTC]\n[instruments.ETH]", "instruments.ETH"),
        ("[notify]", "[limits]\ncooldown_ms = 5\n[notify]", "limits.cooldown_ms"),
        ("[notify]", "[sizing]\nvalue = 5\n[notify]", "sizing.value"),
        ("[notify]", "[live]\nrun = 'b'\n[notify]", "live.run"),
    ],
)
def test_what_decides_the_run_is_refused_by_its_name(
    run: Run, was: str, now: str, key: str
) -> None:
    (told, refused), status = run.reloaded(PROFILE.replace(was, now).replace('"mode"', '"fill"'))
    assert told["changed"] == ["notify.topics"]
    assert (refused["event"], refused["keys"], refused["log_level"]) == (
        "reload refused",
        [key],
        "warning",
    )
    assert "restart to apply, which begins a new run" in str(refused["why"])
    assert status == f"reloaded; refused: {key}"
    run.write(PROFILE)
    assert changes(run.applied[0], run.read()) == [("notify", "topics")]
    # it is refused for as long as it stands there, and no longer
    _, again = run.reloaded(PROFILE.replace(was, now))
    assert again == status
    assert run.reloaded(PROFILE)[1] == "reloaded"


def test_what_a_restart_takes_up_without_a_new_run_is_told_so(run: Run) -> None:
    (_, refused), _ = run.reloaded(PROFILE + "[api]\nport = 9_999\n[live]\nsnapshot_events = 5")
    assert refused["keys"] == ["live.snapshot_events", "api.port"]
    assert refused["why"] == "restart to apply; the run goes on"
    assert run.applied[0].api.port == Settings.laid([]).api.port


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[account", "Expected"),
        (PROFILE + "[lgo]\nlevel = 'info'", "did you mean 'log'"),
        (PROFILE + "[log]\nlevel = 'loud'", "log.level"),
        (PROFILE.replace('"mode"', '"mood"'), "notify.topics"),
    ],
)
def test_a_profile_that_is_wrong_changes_nothing(run: Run, text: str, why: str) -> None:
    [line], status = run.reloaded(text)
    assert (line["event"], line["log_level"]) == ("reload failed, the settings stay", "error")
    assert why in str(line["why"])
    assert status == "reload failed, see the log"
    assert run.applied == []


def test_what_cannot_be_used_changes_nothing_and_is_tried_again_when_mended(run: Run) -> None:
    run.refuses = "notify.webhook: must be an http or https address"
    text = PROFILE.replace('"mode"', '"fill"')
    [line], _ = run.reloaded(text)
    assert line["why"] == run.refuses
    run.refuses = ""
    [line], _ = run.reloaded(text)
    assert line["changed"] == ["notify.topics"]
