"""Settings: what overrides what, and that nothing unknown passes."""

from pathlib import Path

import pytest

from config.layers import (
    Layer,
    Resolved,
    SettingsError,
    layer_of,
    parse_value,
    profile_path,
    profiles,
    read_environment,
    read_toml,
    resolve,
)


def toml(tmp_path: Path, text: str) -> Layer:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return read_toml(path)


def environment(**variables: str) -> Layer:
    return read_environment(variables, ["SOL-PERP", "trend"])


def flag(key: str, value: object) -> Layer:
    return layer_of("--set", [(tuple(key.split(".")), value, f"--set {key}")])


def equity(resolved: Resolved) -> float:
    return resolved.settings.account.equity


def test_later_layers_override_earlier_ones_and_each_value_knows_its_source(tmp_path: Path) -> None:
    profile = toml(tmp_path, "[account]\nequity = 1\nlimits = { leverage_max = 2 }\n")
    variable = environment(LOCKSTEP__ACCOUNT__EQUITY="2")
    said = flag("account.equity", 3)
    assert equity(resolve([])) == 10_000
    assert equity(resolve([profile])) == 1
    assert equity(resolve([profile, variable])) == 2
    last = resolve([profile, variable, said])
    assert equity(last) == 3
    assert last.settings.account.limits == {"leverage_max": 2}
    assert last.source("account", "equity") == "--set account.equity"
    assert last.source("account", "limits", "leverage_max") == str(tmp_path / "own.toml")
    assert last.source("paths", "runs") == "default"
    assert resolve([variable]).source("account", "equity") == "LOCKSTEP__ACCOUNT__EQUITY"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[acount]\nequity = 1", "unknown key 'acount': did you mean 'account'?"),
        ("[account]\nequty = 1", "unknown key 'account.equty': did you mean 'equity'?"),
        ("[strategies.a]\nparam = {}", "unknown key 'strategies.a.param': did you mean 'params'?"),
        ("[data.X]\nfil = 'a'\nfile = 'b'", "unknown key 'data.X.fil': did you mean 'file'?"),
        ("[data.X]\ninterval = '5m'", "data.X lacks 'file'"),
        ("[account]\nequity = 'much'", "account.equity: Input should be a valid number"),
        ("[account]\nequity = 0", "account.equity: Input should be greater than 0, got 0"),
        ("[account]\nequity = nan", "account.equity: Input should be a finite number, got nan"),
        (
            "[strategies.a]\nstyle = 'market'",
            "strategies.a.style: Input should be 'ioc' or 'limit'",
        ),
        ("[sizing]\nvalue = [1]", "sizing.value: must be a number, a text, true or false"),
        ("account = 3", "account: Input should be a valid dictionary"),
        ("[account", "Expected ']'"),
    ],
)
def test_a_profile_that_says_something_wrong_is_named_with_the_key(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve([toml(tmp_path, text)])
    assert told in str(caught.value)
    assert str(tmp_path / "own.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_that_is_not_there_or_is_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not text in UTF-8"):
        read_toml(tmp_path / "bytes.toml")


def test_paths_in_a_profile_are_relative_to_it_and_others_to_the_working_folder(
    tmp_path: Path,
) -> None:
    text = "data.X.file = 'x.csv'\nplugins.paths = ['own']\npaths.runs = 'kept'\n"
    settings = resolve([toml(tmp_path, text + "strategies.a.rules = 'a.json'")]).settings
    assert settings.data["X"].file == tmp_path / "x.csv"
    assert settings.plugins.paths == (tmp_path / "own",)
    assert settings.paths.runs == tmp_path / "kept"
    assert settings.strategies["a"].rules == tmp_path / "a.json"
    secrets = (
        "[api]\ntoken_file = 'a'\nread_token_file = '/etc/b'\n"
        "[notify]\nwebhook_file = 'c'\ntelegram_token_file = '~/d'"
    )
    beside = resolve([toml(tmp_path, secrets)]).settings
    assert (beside.api.token_file, beside.api.read_token_file) == (tmp_path / "a", Path("/etc/b"))
    assert beside.notify.webhook_file == tmp_path / "c"
    assert beside.notify.telegram_token_file == Path("~/d").expanduser()
    assert resolve([flag("api.token_file", "a")]).settings.api.token_file == Path("a")
    shipped = toml(tmp_path, "strategies.a.rules = 'default'")
    assert resolve([shipped]).settings.strategies["a"].rules == Path("default")
    assert resolve([flag("data.X.file", "x.csv")]).settings.data["X"].file == Path("x.csv")


def test_a_variable_finds_names_whatever_their_case_and_dashes() -> None:
    layer = environment(
        LOCKSTEP__INSTRUMENTS__SOL_PERP__TICK="0.01",
        lockstep__strategies__TREND__params__fast="7",
        LOCKSTEP_CACHE="/elsewhere",
        PATH="/bin",
    )
    settings = resolve([layer]).settings
    assert settings.instruments == {"SOL-PERP": {"tick": 0.01}}
    assert settings.strategies["trend"].params == {"fast": 7}


def test_an_unknown_variable_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^LOCKSTEP__ACOUNT__EQUITY: unknown key 'acount'"):
        resolve([environment(LOCKSTEP__ACOUNT__EQUITY="1")])


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("0.5", 0.5), ("true", True), ("[1, 2]", [1, 2]), ("'a'", "a"), ("kelly", "kelly")],
)
def test_a_value_is_read_as_toml_and_else_as_text(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_a_key_cannot_be_a_table_and_a_value() -> None:
    with pytest.raises(SettingsError, match="account is a value, not a table"):
        layer_of("--set", [(("account",), 1, "a"), (("account", "equity"), 2, "b")])
    with pytest.raises(SettingsError, match="account is a table, not a value"):
        layer_of("--set", [(("account", "equity"), 2, "b"), (("account",), 1, "a")])


def test_every_profile_that_ships_is_read_and_another_is_suggested() -> None:
    assert {"demo", "trend", "e3-strict"} <= set(profiles())
    for name, path in profiles().items():
        assert resolve([read_toml(profile_path(name))]).settings.strategies, path
    with pytest.raises(SettingsError, match=r"unknown profile 'tren': did you mean 'trend'\?"):
        profile_path("tren")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        resolve([]).settings.account.equity = 1.0  # type: ignore[misc]
