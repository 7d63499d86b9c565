"""Where an error ends: one line and its exit code, out of whatever group, and no secret in it."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from cli_calls import call, desk, refuse

from core.errors import ConfigError, JournalError, JournalUnreachable, StrategyError
from daemon.control.credentials import read_secret
from daemon.observe.redaction import SECRETS
from daemon.supervisor import Task, supervise

__all__ = ["desk"]

PLANTED = "planted-token-9d2e-4411"


def raising(monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]) -> None:
    """Let ``lockstep journal list`` end as a supervised core task does that raises this."""

    async def core() -> None:
        raise error()

    async def life() -> None:
        tasks = [Task("loop", core, core=True), Task("edge", anyio.sleep_forever)]
        await supervise(tasks, lambda: False)

    def broken(*_: object) -> None:
        anyio.run(life)

    monkeypatch.setattr("daemon.commands.journals.journal_url", broken)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a key is wrong"), 2),
        (StrategyError("it divided by zero"), 5),
        (JournalError("the disk is full"), 6),
        (JournalUnreachable("nobody answers"), 7),
    ],
)
def test_what_ends_a_task_ends_the_process_with_its_code(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    raising(monkeypatch, lambda: error)
    assert refuse(code, "journal", "list") == str(error)


def test_a_group_with_a_slip_of_ours_in_it_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = ExceptionGroup("", [ConfigError("a key is wrong"), ZeroDivisionError("a slip")])
    raising(monkeypatch, lambda: mixed)
    with pytest.raises(ExceptionGroup):
        call("journal", "list")


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_a_secret_that_was_read_is_in_no_error(
    monkeypatch: pytest.MonkeyPatch, debug: tuple[str, ...], tmp_path: Path
) -> None:
    def told() -> BaseException:
        secret = read_secret("api", "token", given=None, file=file, environ={})
        return JournalError(f"the proxy says: Cookie {secret} is no key")

    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(PLANTED)
    raising(monkeypatch, told)
    answer = call("journal", "list", *debug)
    assert answer.code == 6
    assert "Cookie [hidden] is no key" in answer.err
    assert PLANTED not in answer.err
    assert ("Traceback" in answer.err) == bool(debug)


def test_a_secret_of_the_environment_is_in_no_error(desk: Path) -> None:
    """Here as the value of a setting that is no secret, which an error would repeat."""
    secret = f"{PLANTED}-env"
    variables = {"LOCKSTEP__API__TOKEN": secret, "LOCKSTEP__ACCOUNT__EQUITY": secret}
    answer = call("show-config", **variables)
    assert answer.code == 2
    assert "LOCKSTEP__ACCOUNT__EQUITY: account.equity" in answer.err
    assert secret not in answer.err
    assert "got 'much'" in refuse(2, "show-config", LOCKSTEP__ACCOUNT__EQUITY="much")


def test_the_token_of_a_flag_is_known_as_a_secret(desk: Path) -> None:
    file = desk / "own"
    file.touch(0o600)
    file.write_text(f"{PLANTED}-flag")
    refuse(1, "status", "--url", "http://127.0.0.1:9", "--token-file", file)
    assert SECRETS.hide(f"{PLANTED}-flag") == "[hidden]"
