"""Profiles, environment, ``--set`` and plugins through the command line."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli_calls import desk, refuse, shop, succeed

__all__ = ["desk", "shop"]

pytestmark = pytest.mark.usefixtures("desk")

PLUGIN = '''
"""Always long: the shortest strategy there is."""

from enum import IntEnum

from core.strategy import Param, Strategy
from strategies.features import ema


class Reason(IntEnum):
    ABOVE = 1
    BELOW = 2


def decide(f, position, p):
    if f.close > f.mean * (1.0 + p.margin):
        return 1.0, 1.0, Reason.ABOVE
    return 0.0, 1.0, Reason.BELOW


STEADY = Strategy(
    name="steady",
    decide=decide,
    reasons=Reason,
    features={"close": "close", "mean": ema(window=10)},
    params={"margin": Param(0.0, 0.0, 0.1, "fraction above the mean")},
)
'''


def profile(desk: Path, text: str, name: str = "own.toml") -> Path:
    path = desk / name
    path.write_text(text)
    return path


def setup_of(*words: object, **environ: str) -> Any:
    """The setup a replay with these words ran under."""
    path = succeed("replay", *words, "--json", **environ).json["path"]
    return json.loads(Path(path, "manifest.json").read_text())["setup"]


def test_defaults_profile_environment_and_flags_in_that_order(shop: Path, desk: Path) -> None:
    config = profile(
        desk,
        f"""
        [account]
        equity = 1000
        [strategies.trend]
        params = {{ fast = 6, slow = 60 }}
        limits = {{ cooldown_ms = 1 }}
        [limits]
        cooldown_ms = 9
        leverage_max = 2
        [data.SOL]
        file = "{shop / "SOL-PERP.feather"}"
        """,
    )
    words = ("--config", config)
    plain = setup_of(*words)
    book = plain["books"][0]
    assert (plain["equity"], book["name"]) == (1000, "trend@SOL")
    assert (book["params"]["fast"], book["params"]["slow"]) == (6, 60)
    assert (book["limits"]["cooldown_ms"], book["limits"]["leverage_max"]) == (1, 2)
    assert book["limits"]["drawdown"] == 0.25
    environ = {
        "LOCKSTEP__ACCOUNT__EQUITY": "2000",
        "LOCKSTEP__STRATEGIES__TREND__PARAMS__FAST": "7",
    }
    varied = setup_of(*words, **environ)
    assert (varied["equity"], varied["books"][0]["params"]["fast"]) == (2000, 7)
    flagged = setup_of(*words, "--set", "account.equity=3000", "--set", "fast=8", **environ)
    assert (flagged["equity"], flagged["books"][0]["params"]["fast"]) == (3000, 8)


def test_every_short_form_of_a_key_means_the_long_one(shop: Path) -> None:
    words = ("--strategy", "trend", "--data", shop / "SOL-PERP.feather")
    sets = (
        *(
            "trend.fast=9",
            "trend.limits.cooldown_ms=60000",
            "trend.style=limit",
            "sizing.value=0.2",
        ),
        *("trend.sizing.cap=0.3", "limits.leverage_max=2", "account.limits.drawdown=0.5"),
        *("instrument.fee_rate=0.001", "SOL-PERP.tick=0.5", 'instruments."SOL-PERP".lot=0.1'),
        *("instrument.fee_model=quadratic", "sizing.rule=notional"),
    )
    setup = setup_of(*words, *(word for text in sets for word in ("--set", text)))
    book, instrument = setup["books"][0], setup["instruments"][0]
    assert book["params"]["fast"] == 9
    assert book["style"] == "LIMIT"
    assert (book["limits"]["cooldown_ms"], book["limits"]["leverage_max"]) == (60_000, 2)
    assert (book["sizing"]["value"], book["sizing"]["cap"], book["sizing"]["rule"]) == (0.2, 0.3, 0)
    assert setup["limits"]["drawdown"] == 0.5
    assert [instrument[key] for key in ("fee_rate", "tick", "lot")] == [0.001, 0.5, 0.1]
    assert instrument["fee_model"] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fasst=10", "unknown parameter of strategy trend 'fasst': did you mean 'fast'?"),
        ("fast", "write key=value, as in --set fast=10"),
        ("=1", "write key=value"),
        ("a b=1", "write key=value"),
        ("fast=ten", "strategies.trend.params.fast: Input should be a valid number"),
        ("fast=0", "strategy trend: window must be at least 1 bar, got 0"),
        ("fast=1e12", "it would need 1,000,000,000,000 bars to begin, at most 10,000,000"),
        ("fast=nan", "finite number"),
        ("account=1", "'account' is a table: write --set account.KEY=VALUE"),
        ("acount.equity=1", "unknown key 'acount': did you mean 'account'?"),
        ("account.equty=1", "unknown key 'account.equty': did you mean 'equity'?"),
        ("limits.cooldwn_ms=1", "unknown key 'limits.cooldwn_ms': did you mean 'cooldown_ms'?"),
        ("limits.cooldown_ms=-1", "limit cooldown_ms must be zero (off) or above"),
        ("limits.cooldown_ms=soon", "cooldown_ms must be a float, got 'soon'"),
        ("limits.daily_loss_soft=0.9", "daily_loss_soft must not exceed daily_loss"),
        ("trend.limits.colar=1", "'strategies.trend.limits.colar': did you mean 'collar'?"),
        ("sizing.rule=kely", "unknown rule 'kely': did you mean 'kelly'?"),
        ("sizing.value=0", "sizing: value, cap and atr_multiple must be above zero"),
        ("sizing.atr_multiple=2", "unused key 'sizing.atr_multiple': rule 'equity' ignores it"),
        ("instrument.fee_rat=0", "unknown key 'instrument.fee_rat': did you mean 'fee_rate'?"),
        ("instrument.name=X", "unknown key 'instrument.name'"),
        ("instrument.tick=0", "tick and lot must be above zero"),
        ("instrument.kind=spot", "unknown kind 'spot': known: binary, perp"),
        ("instrument.external=1", "external must be a bool, got 1"),
        ("instruments.XX.tick=1", "unused key 'instruments.XX': no data for it"),
        ("strategies.e3.profile=strict", "this run has no strategy 'e3'"),
        ("data.X.fle=a", "unknown key 'data.X.fle': did you mean 'file'?"),
        ("trend.profile=fast", "unknown profile of strategy trend 'fast'"),
        ("trend.style=market", "strategies.trend.style: Input should be 'ioc' or 'limit'"),
    ],
)
def test_a_set_that_means_nothing_is_named_with_the_right_one(
    shop: Path, text: str, told: str
) -> None:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather")
    line = refuse(2, *words, "--set", text)
    assert line.startswith(f"--set {text}: ")
    assert told in line


def test_sizing_by_atr_reads_the_multiple(shop: Path) -> None:
    words = ("--strategy", "trend", "--data", shop / "SOL-PERP.feather")
    sets = ("--set", "sizing.rule=atr_risk", "--set", "sizing.value=0.01")
    setup = setup_of(*words, *sets, "--set", "sizing.atr_multiple=3")
    assert setup["books"][0]["sizing"]["atr_multiple"] == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[instruments.OLD]\ntick = 0.1", "unused key 'instruments.OLD': no data for it"),
        ("[data.OLD]\nfile = 'x.csv'", "unused key 'data.OLD': no strategy trades it"),
        ("[strategies.trnd]", "unknown strategy 'trnd': did you mean 'trend'?"),
        ("[strategies.e3]\ninstruments = ['SLO']", "no data for 'SLO': did you mean 'SOL'?"),
        ("[strategies.e3]\nprofile = 'strickt'", "profile of strategy e3 'strickt': did you mean"),
        ("[plugins]\npaths = ['none']", "none is not there"),
        ("[strategies.x]\nstrategy = 'e3'\nrules = 'a.json'", "has both a strategy and rules"),
    ],
)
def test_a_profile_with_something_unknown_or_unused_is_refused(
    shop: Path, desk: Path, text: str, told: str
) -> None:
    base = "[strategies.trend]\ninstruments = ['SOL']\n" + text
    data = f"\n[data.SOL]\nfile = '{shop / 'SOL-PERP.feather'}'\n"
    line = refuse(2, "replay", "--config", profile(desk, base + data))
    assert told in line


def test_variables_that_mean_nothing_in_this_run_are_refused(shop: Path) -> None:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather")
    name = "LOCKSTEP__STRATEGIES__E3__PROFILE"
    assert refuse(2, *words, **{name: "strict"}).startswith(
        f"{name}: this run has no strategy 'e3'"
    )
    name = "LOCKSTEP__INSTRUMENTS__OLD__TICK"
    assert refuse(2, *words, **{name: "1"}).startswith(f"{name}: unused key 'instruments.old'")


def test_flags_narrow_a_profile_and_what_they_set_aside_is_not_unused(
    shop: Path, desk: Path
) -> None:
    config = profile(
        desk,
        f"""
        [strategies.trend]
        instruments = ["SOL", "BTC"]
        [strategies.e3]
        instruments = ["BTC"]
        [instruments.BTC]
        tick = 0.5
        [data.SOL]
        file = "{shop / "SOL-PERP.feather"}"
        [data.BTC]
        file = "{shop / "BTC-PERP.feather"}"
        """,
    )

    def books(*more: str) -> list[str]:
        return [book["name"] for book in setup_of("--config", config, *more)["books"]]

    assert books() == ["trend@SOL", "trend@BTC", "e3@BTC"]
    assert books("--strategy", "e3") == ["e3@BTC"]
    assert books("--instrument", "SOL") == ["trend@SOL"]
    assert books("--strategy", "funding_fade", "--instrument", "SOL") == ["funding_fade@SOL"]
    assert "no data for it" in refuse(2, "replay", "--config", config, "--instrument", "ETH")
    line = refuse(2, "replay", "--config", config, "--profile", "trend")
    assert "--profile and --config" in line


def test_every_profile_that_ships_runs_on_the_sample(shop: Path) -> None:
    from config.layers import profiles

    for name in sorted(set(profiles()) - {"paper"}):
        setup = setup_of("--profile", name, "--data", shop / "SOL-PERP.feather")
        assert setup["books"], name


def test_the_paper_profile_is_a_live_setup_of_what_the_feed_carries() -> None:
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.run import CARRIED
    from daemon.commands.setups import live_setup
    from daemon.commands.shelf import open_shelf

    resolved = read_settings(Choices(profile="paper"), {})
    setup = live_setup(resolved, open_shelf(resolved))
    assert len(setup.books) == 2 * len(setup.instruments) > 0
    assert all(entry.book.strategy.fields <= CARRIED for entry in setup.books)


def test_show_config_tells_each_value_and_its_source(shop: Path) -> None:
    shown = succeed(
        *("show-config", "--profile", "e3-strict", "--set", "account.equity=7", "--json"),
        LOCKSTEP__SIZING__CAP="0.4",
    ).json
    assert shown["account.equity"] == {"value": 7.0, "source": "--set account.equity=7"}
    assert shown["sizing.cap"] == {"value": 0.4, "source": "LOCKSTEP__SIZING__CAP"}
    assert shown["sizing.rule"] == {"value": "volatility", "source": "config/e3-strict.toml"}
    assert shown["limits.collar"] == {"value": 0.05, "source": "default"}
    assert shown["strategies.e3.params.volume_z"]["source"] == "profile strict of the strategy"
    assert shown["strategies.e3.params.big_body"]["source"] == "default"
    assert shown["instrument.kind"] == {"value": "perp", "source": "default"}


def test_what_show_config_prints_is_a_profile_that_gives_the_same_run(
    shop: Path, desk: Path
) -> None:
    flags = ("--profile", "e3-strict", "--set", "limits.collar=0.1", "--set", "SOL-PERP.tick=0.01")
    flags += ("--data", str(shop / "SOL-PERP.feather"))
    text = succeed("show-config", *flags).out
    assert tomllib.loads(text)["limits"] == {"collar": 0.1}
    assert setup_of("--config", profile(desk, text)) == setup_of(*flags)


def test_a_new_strategy_is_one_file_and_a_stanza(shop: Path, desk: Path) -> None:
    (desk / "own").mkdir()
    (desk / "own" / "steady.py").write_text(PLUGIN)
    data = f"[data.SOL]\nfile = '{shop / 'SOL-PERP.feather'}'\n"
    stanza = "[strategies.steady]\nparams = { margin = 0.0001 }\n[plugins]\npaths = ['own']\n"
    config = profile(desk, data + stanza)
    first = succeed("replay", "--config", config, "--json").json
    assert first["trades"] > 0
    assert not any("plain Python" in caveat for caveat in first["caveats"])
    listed = succeed("strategies", "--config", config).out
    assert "steady" in listed
    assert "(plugin)" in listed
    told = succeed("strategies", "steady", "--config", config, "--json").json[0]
    assert told["plugin"] == str(desk / "own" / "steady.py")
    assert told["params"]["margin"]["about"] == "fraction above the mean"
    (desk / "own" / "steady.py").write_text(PLUGIN + "\n# another text is another cause\n")
    assert succeed("replay", "--config", config, "--json").json["run_id"] != first["run_id"]


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (5, "x = 1\ndef broken(:\n", "bad.py, line 2: SyntaxError: invalid syntax"),
        (5, "import nothing_of_the_kind\n", "bad.py, line 1: ModuleNotFoundError: No module"),
        (5, "\n\nvalue = 1 / 0\n", "bad.py, line 3: ZeroDivisionError: division by zero"),
        (2, PLUGIN.replace('"steady"', '"trend"'), "'trend' has the name of one that ships"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named_with_its_line(
    shop: Path, desk: Path, code: int, text: str, told: str
) -> None:
    (desk / "own").mkdir()
    (desk / "own" / "bad.py").write_text(text)
    config = profile(desk, "[plugins]\npaths = ['own']\n")
    assert told in refuse(code, "strategies", "--config", config)


def test_a_plugin_name_taken_twice_is_refused(desk: Path) -> None:
    (desk / "own").mkdir()
    for name in ("a.py", "b.py"):
        (desk / "own" / name).write_text(PLUGIN)
    (desk / "own" / "_part.py").write_text("1 / 0")
    line = refuse(2, "strategies", "--config", profile(desk, "[plugins]\npaths = ['own']\n"))
    assert "strategy 'steady' stands in" in line


def test_a_strategy_that_fails_ends_with_its_own_code(shop: Path, desk: Path) -> None:
    (desk / "own").mkdir()
    wild = PLUGIN.replace("return 1.0, 1.0, Reason.ABOVE", "return 3.0, 1.0, Reason.ABOVE")
    (desk / "own" / "wild.py").write_text(wild)
    config = profile(desk, "[plugins]\npaths = ['own']\n[strategies.steady]\n")
    line = refuse(5, "replay", "--config", config, "--data", shop / "SOL-PERP.feather")
    assert line.startswith("strategy steady on SOL-PERP at ")
    assert "target must lie in [-1, 1]" in line
