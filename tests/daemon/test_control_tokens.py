"""Where a token may come from, and that no error, listing or file shows it to others."""

import stat
from pathlib import Path
from typing import Any

import pytest
from cli_calls import desk, refuse, succeed

from config.layers import SettingsError, layer_of, parse_value, resolve
from config.settings import Settings
from core.errors import ConfigError
from daemon.control.auth import Role, daemon_tokens, find_token, token_file
from daemon.control.credentials import read_private, read_secret

__all__ = ["desk"]

TOKEN = "planted-token-5c1e0a77"
VARIABLE = "LOCKSTEP__API__TOKEN"


def settings_of(tmp_path: Path, **api: Any) -> Settings:
    return Settings.laid([{"paths": {"runs": str(tmp_path / "runs")}, "api": api}])


def private(path: Path, text: str = TOKEN, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_comes_from_credential_variable_or_file_in_that_order(tmp_path: Path) -> None:
    private(tmp_path / "api_token", "from-the-credential-00", 0o440)
    file = private(tmp_path / "token", "from-the-file-00000000\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), VARIABLE: "from-the-variable-0000"}
    settings = settings_of(tmp_path, token_file=str(file), token=environ[VARIABLE])
    assert find_token(settings, environ) == "from-the-credential-00"
    del environ["CREDENTIALS_DIRECTORY"]
    assert find_token(settings, environ) == "from-the-variable-0000"
    lower = {"lockstep__api__token": "from-the-variable-0000"}
    assert find_token(settings, lower) == "from-the-variable-0000"
    assert find_token(settings_of(tmp_path, token_file=str(file)), {}) == "from-the-file-00000000"
    assert find_token(settings_of(tmp_path), {"CREDENTIALS_DIRECTORY": "/nonexistent"}) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o777, 0o610, 0o601])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "token", mode=mode)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        read_private(path)
    assert TOKEN not in str(caught.value)
    path.chmod(0o600)
    assert read_private(path) == TOKEN
    path.chmod(0o400)
    assert read_private(path) == TOKEN


def test_what_is_no_file_of_one_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_private(tmp_path / "none")
    with pytest.raises(ConfigError, match="regular file"):
        read_private(Path("/dev/null"))
    for text, why in [
        ("", "is empty"),
        (" \n", "is empty"),
        (f"{TOKEN}\nsecond", "one line"),
        (f"{TOKEN}\x00", "one line"),
        (f"{TOKEN}\x7f", "one line"),
        (f"tök{TOKEN}", "one line"),
        (f"a b{TOKEN}", "one line"),
        (TOKEN * 1_000, "at most"),
    ]:
        with pytest.raises(ConfigError, match=why) as caught:
            read_private(private(tmp_path / "token", text))
        assert TOKEN not in str(caught.value)


def test_an_empty_variable_is_a_mistake_and_not_an_open_door(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LOCKSTEP__API__TOKEN: the secret is empty"):
        daemon_tokens(settings_of(tmp_path, token=""), {VARIABLE: ""})


def test_a_secret_in_a_profile_or_flag_is_refused_unseen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must not stand in a profile or a flag") as caught:
        daemon_tokens(settings_of(tmp_path, token=TOKEN), {})
    assert TOKEN not in str(caught.value)


def test_on_loopback_a_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    daemon_tokens(settings, {})
    path = token_file(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = read_private(path)
    assert len(token) >= 32
    again = daemon_tokens(settings, {})
    assert again.role([f"Bearer {token}".encode()]) is Role.OPERATOR
    assert find_token(settings, {}) == token


def test_elsewhere_no_token_is_made(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.0.2.7", "desk.example"):
        with pytest.raises(ConfigError, match="is not loopback and there is no token"):
            daemon_tokens(settings_of(tmp_path, host=host), {})
    assert not (tmp_path / "runs").exists()
    environ = {VARIABLE: TOKEN}
    given = daemon_tokens(settings_of(tmp_path, host="0.0.0.0", token=TOKEN), environ)
    assert given.role([f"Bearer {TOKEN}".encode()]) is Role.OPERATOR


def test_whoever_reads_a_secret_tells_the_log_to_hide_it(tmp_path: Path) -> None:
    hidden: list[str] = []
    daemon_tokens(settings_of(tmp_path), {}, hidden.append)
    assert hidden == [read_private(token_file(settings_of(tmp_path)))]
    file = private(tmp_path / "read")
    daemon_tokens(settings_of(tmp_path, read_token_file=str(file)), {}, hidden.append)
    assert TOKEN in hidden


@pytest.mark.parametrize("text", [TOKEN, "1234567890123456", "1e5", "true", "[1,2]", "2025-01-01"])
def test_a_secret_of_any_look_passes_the_settings_unseen(text: str, tmp_path: Path) -> None:
    pairs = [(("api", "token"), parse_value(text), VARIABLE)]
    settings = resolve([layer_of("environment", pairs)]).settings
    shown = settings.model_dump_json() + repr(settings) + str(settings.model_dump())
    assert text not in shown or text == "true"
    read = read_secret(
        "api", "token", given=settings.api.token, file=None, environ={VARIABLE: text}
    )
    assert read == text


def test_an_error_beside_a_secret_does_not_tell_it() -> None:
    layer = {"api": {"token": TOKEN, "prot": 1}, "notify": {"webhook": TOKEN}}
    with pytest.raises(SettingsError) as caught:
        resolve([layer_of("x", [(("api", "token"), TOKEN, "x"), (("api", "prot"), 1, "y")])])
    assert TOKEN not in str(caught.value)
    with pytest.raises(ValueError, match="prot") as raised:
        Settings.laid([layer])
    assert TOKEN not in str(raised.value)


@pytest.mark.usefixtures("desk")
def test_show_config_shows_no_secret() -> None:
    secrets = {
        VARIABLE: TOKEN,
        "LOCKSTEP__API__READ_TOKEN": TOKEN,
        "LOCKSTEP__NOTIFY__WEBHOOK": f"https://hooks.example/{TOKEN}",
        "LOCKSTEP__NOTIFY__TELEGRAM_TOKEN": f"12:{TOKEN}",
        "LOCKSTEP__NOTIFY__TELEGRAM_CHAT": "-100123",
    }
    for words in (["show-config"], ["show-config", "--json"]):
        answer = succeed(*words, **secrets)
        assert TOKEN not in answer.out + answer.err
        assert "-100123" in answer.out
    assert "did you mean 'token'" in refuse(2, "show-config", LOCKSTEP__API__TOKN=TOKEN)
    assert TOKEN not in refuse(2, "show-config", LOCKSTEP__API__TOKN=TOKEN)
