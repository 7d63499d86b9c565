"""``lockstep replay`` and ``demo``, as a person types them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_calls import BARS, call, desk, refuse, shop, succeed

__all__ = ["desk", "shop"]

pytestmark = pytest.mark.usefixtures("desk")

PROMISED = {
    *("run_id", "bars", "events", "seconds", "events_per_second", "trades", "fees", "funding"),
    *("net_pnl", "return", "max_drawdown", "sharpe", "decisions_hash", "refused"),
}
LOCKSTEP = Path(sys.executable).with_name("lockstep")


def test_a_replay_prints_one_json_object_with_what_is_promised(shop: Path, desk: Path) -> None:
    data = shop / "SOL-PERP.feather"
    result = succeed("replay", "--strategy", "trend", "--data", data, "--json").json
    assert set(result) >= PROMISED
    assert result["bars"] == BARS
    assert result["trades"] > 0
    assert result["refused"] == {}
    assert (desk / "runs" / result["run_id"] / "manifest.json").is_file()


def test_backtest_is_another_name_and_any_cut_into_blocks_gives_the_same_run(shop: Path) -> None:
    words = ("--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--json")
    first = succeed("replay", *words).json
    for other in (succeed("backtest", *words), succeed("replay", *words, "--block", 7)):
        assert other.json["decisions_hash"] == first["decisions_hash"]
        assert other.json["run_id"] == first["run_id"]


def test_a_replay_for_people_fits_80_columns_and_ends_with_where_it_is_kept(shop: Path) -> None:
    answer = succeed("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather")
    assert max(len(line) for line in answer.out.splitlines()) <= 80
    assert "trend@SOL-PERP" in answer.out
    assert re.search(r"kept: runs/[0-9a-f]{12}$", answer.out.strip())


def test_several_strategies_and_instruments_run_in_one_account(shop: Path) -> None:
    result = succeed(
        *("replay", "--strategy", "trend", "--strategy", "funding_fade"),
        *("--data", f"A={shop / 'SOL-PERP.feather'}", "--data", shop / "BTC-PERP.feather"),
        *("--set", "fast=10", "--set", "funding_fade.take_profit=0", "--json"),
    )
    manifest = json.loads(Path(result.json["path"], "manifest.json").read_text())
    books = {book["name"]: book["params"] for book in manifest["books"]}
    assert set(books) == {*("trend@A", "trend@BTC-PERP", "funding_fade@A", "funding_fade@BTC-PERP")}
    assert books["trend@A"]["fast"] == 10
    assert books["funding_fade@BTC-PERP"]["take_profit"] == 0


def test_a_bare_parameter_of_two_strategies_is_ambiguous(shop: Path) -> None:
    words = (
        "--strategy",
        "trend",
        "--strategy",
        "funding_fade",
        "--data",
        shop / "SOL-PERP.feather",
    )
    line = refuse(2, "replay", *words, "--set", "stop_loss=0")
    assert "trend, funding_fade has 'stop_loss': write --set trend.stop_loss=VALUE" in line


def test_the_instrument_is_named_after_the_file_or_by_a_flag(shop: Path) -> None:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather")
    assert "trend@SOL-PERP" in succeed(*words).out
    assert "trend@X" in succeed(*words, "--instrument", "X").out


def test_a_timerange_and_a_longer_bar_leave_fewer_bars(shop: Path) -> None:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--json")
    assert succeed(*words, "--timerange", "20250101-20250102").json["bars"] == 1440
    assert succeed(*words, "--timerange", "2025-01-01T12:00/").json["bars"] == BARS - 720
    assert succeed(*words, "--resample", "5m").json["bars"] == BARS // 5


@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        (2, ["--timerange", "2025"], "--timerange 2025: write 20250504-20250510"),
        (2, ["--timerange", "-"], "write 20250504-20250510"),
        (2, ["--timerange", "20250532-"], "write 20250504-20250510"),
        (2, ["--timerange", "20250103-20250101"], "ends before it starts"),
        (3, ["--timerange", "20300101-"], "SOL-PERP: no bar between 2030"),
        (3, ["--resample", "90s"], "1m bars cannot become 90s bars"),
        (2, ["--resample", "soon"], "'soon' is not a duration"),
        (2, ["--strategy", "trnd"], "unknown strategy 'trnd': did you mean 'trend'?"),
        (2, ["--strategy", "trend"], "--strategy or --rules trend is given twice"),
        (2, ["--block", "0"], "Invalid value for '--block'"),
        (2, ["--bogus"], "No such option: --bogus"),
        (
            2,
            ["--instrument", "A", "--instrument", "B"],
            "--instrument A: no data for it: known: SOL-PERP",
        ),
        (2, ["--data", "elsewhere/SOL-PERP.feather"], "two files for instrument 'SOL-PERP'"),
        (2, ["--rules", "none.json"], "none.json: cannot be read"),
        (1, ["--runs", "/proc/none"], "/proc/none: cannot keep the run"),
        (1, ["--report", "/proc/none.html"], "/proc/none.html: cannot be written"),
        (6, ["--to-journal", "--journal", "mysql://x/y"], "a journal cannot live in 'mysql'"),
    ],
)
def test_a_flag_that_cannot_be_met_is_one_line(
    shop: Path, code: int, words: list[str], told: str
) -> None:
    data = shop / "SOL-PERP.feather"
    assert told in refuse(code, "replay", "--strategy", "trend", "--data", data, *words)


@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        (2, [], "nothing to run: give --strategy NAME"),
        (2, ["--strategy", "trend"], "nothing to run on: give --data FILE"),
        (3, ["--strategy", "trend", "--data", "none.csv"], "none.csv: no such file"),
    ],
)
def test_a_replay_of_nothing_says_what_to_add(code: int, words: list[str], told: str) -> None:
    assert told in refuse(code, "replay", *words)


def test_a_strategy_whose_inputs_the_data_lack_is_refused(shop: Path, desk: Path) -> None:
    succeed("data", "convert", shop / "EVENT-01.feather", "bare.csv", "--bars-only")
    line = refuse(4, "replay", "--strategy", "probability", "--data", "bare.csv")
    assert "needs probability, which the data of bare does not carry" in line


def test_data_that_resolve_make_a_binary_unless_it_is_stated(shop: Path) -> None:
    words = ("replay", "--strategy", "probability", "--data", shop / "EVENT-01.feather", "--json")
    kinds = []
    for more in ((), ("--set", "instrument.kind=perp"), ("--set", "EVENT-01.kind=perp")):
        path = Path(succeed(*words, *more).json["path"], "manifest.json")
        kinds.append(json.loads(path.read_text())["setup"]["instruments"][0]["kind"])
    assert kinds == [1, 0, 0]


def test_rules_run_at_the_size_they_state(shop: Path, desk: Path) -> None:
    rules = {"conditions": {"entry": ["close > sma(close, 5)"], "exit": ["close < sma(close, 5)"]}}
    (desk / "cross.json").write_text(json.dumps(rules))
    words = ("replay", "--data", shop / "SOL-PERP.feather", "--json", "--rules")
    result = succeed(*words, "cross.json").json
    setup = json.loads(Path(result["path"], "manifest.json").read_text())["setup"]["books"][0]
    full = setup["params"]["order_size"] * int(setup["params"]["max_orders"])
    assert setup["name"] == "cross@SOL-PERP"
    assert setup["sizing"]["value"] == full
    shipped = succeed(*words, "default").json
    named = succeed("replay", "--strategy", "seed_rules", *words[1:-1]).json
    assert named["trades"] == shipped["trades"]
    assert named["net_pnl"] == shipped["net_pnl"]
    (desk / "bad.json").write_text('{"conditions": {"entry": ["close >"]}}')
    assert refuse(2, *words, "bad.json").startswith("bad.json: ")


def test_a_strategy_that_could_never_decide_is_pointed_out(shop: Path) -> None:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--json")
    told = succeed(*words, "--set", "slow=9000").json["caveats"]
    assert told[0] == "trend@SOL-PERP never decided: it needs 9,000 bars to begin, of 1,500 here."
    assert not any("never decided" in caveat for caveat in succeed(*words).json["caveats"])


def test_a_recorded_run_is_in_the_journal_once_and_can_be_removed(shop: Path, desk: Path) -> None:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--json")
    for _ in range(2):
        result = succeed(*words, "--to-journal").json
        assert result["journal"] == "sqlite:///journal.sqlite"
    listed = succeed("journal", "list", "--json").json
    assert [(run["run"], run["events"]) for run in listed] == [(result["run_id"], result["events"])]
    assert result["run_id"] in succeed("journal", "list").out
    assert "unknown run" in refuse(2, "journal", "remove", "none")
    assert succeed("journal", "remove", result["run_id"], "--json").code == 0
    assert "no run yet" in succeed("journal", "list").out
    assert succeed("journal", "upgrade", "--json").json["revision"]


def test_the_report_is_written_where_it_was_wished_for(shop: Path, desk: Path) -> None:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--json")
    auto = succeed(*words, "--report", "auto").json
    named = succeed(*words, "--report", "out/mine.html").json
    assert Path(auto["report"]) == Path(auto["path"], "report.html")
    assert (desk / "out" / "mine.html").read_text().startswith("<!")
    assert named["report"] == "out/mine.html"


def test_the_demo_writes_a_report_and_a_chart_and_shows_equity(desk: Path) -> None:
    answer = succeed("demo", "--bars", 1000)
    assert "equity " in answer.out
    assert len(list(desk.glob("runs/*/report.html"))) == 1
    result = succeed("demo", "--bars", 1000, "--seed", 8, "--json").json
    assert set(result) >= PROMISED
    assert Path(result["chart"]).read_bytes().startswith(b"\x89PNG")
    assert result["trades"] > 0
    assert any("synthetic" in caveat for caveat in result["caveats"])


def test_the_demo_costs_something_and_takes_settings() -> None:
    result = succeed("demo", "--bars", 1000, "--set", "account.equity=500", "--json").json
    assert result["fees"] > 0
    assert result["spread"] > 0
    assert abs(result["net_pnl"]) < 500
    assert "unknown key 'acount'" in refuse(2, "demo", "--set", "acount.equity=5")


def test_the_installed_script_answers_and_exits_as_documented(shop: Path, desk: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(LOCKSTEP), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=desk)

    done = run("replay", "--strategy", "trend", "--data", str(shop / "SOL-PERP.feather"), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["bars"] == BARS
    wrong = run("replay", "--strategy", "trnd", "--data", str(shop / "SOL-PERP.feather"))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    traced = run("replay", "--data", "none.csv", "--strategy", "trend", "--debug")
    assert traced.returncode == 3
    assert "Traceback" in traced.stderr


def test_help_lists_every_command_and_the_exit_codes() -> None:
    told = succeed("--help").out
    assert told == succeed().out
    for word in ("demo", "replay", "strategies", "features", "data", "report", "runs", "diff"):
        assert re.search(rf"^  {word} ", told, re.MULTILINE), word
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "130"):
        assert re.search(rf"^    {code}", told, re.MULTILINE), code
    assert "did you mean" in refuse(2, "replai").lower()
    assert "Missing command" in refuse(2, "data")


@pytest.mark.parametrize(
    "command",
    [
        *(["demo"], ["replay"], ["runs"], ["report"], ["diff"], ["strategies"], ["features"]),
        *(["show-config"], ["doctor"], ["data", "inspect"], ["data", "convert"]),
        *(["data", "sample"], ["journal", "list"], ["journal", "upgrade"], ["journal", "remove"]),
    ],
)
def test_every_command_has_short_help_with_an_example_and_json(command: list[str]) -> None:
    told = call(*command, "--help").out
    assert f"Example: lockstep {' '.join(command)}" in told
    assert "--json" in told
    assert max(len(line) for line in told.splitlines()) <= 80


def test_an_interrupt_and_an_error_of_the_system_end_with_their_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    def refuse_to_read(_text: str) -> None:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr("daemon.commands.names.parse_timerange", interrupt)
    assert call("replay", "--timerange", "x").code == 130
    monkeypatch.setattr("daemon.commands.names.parse_timerange", refuse_to_read)
    assert refuse(1, "replay", "--timerange", "x") == "/secret: Permission denied"


def test_a_programming_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_text: str) -> None:
        raise AssertionError("impossible")

    monkeypatch.setattr("daemon.commands.names.parse_timerange", fail)
    with pytest.raises(AssertionError, match="impossible"):
        call("replay", "--timerange", "x")


def test_help_imports_nothing_that_is_slow() -> None:
    slow = ("matplotlib", "numba", "numpy", "plotly", "pyarrow", "pydantic", "rich", "sqlalchemy")
    code = f"import sys, daemon.main; print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_of_ladders_is_many_binaries(market_data: Path) -> None:
    ladder = ("--data", f"KXHIGHNY={market_data / 'kalshi_weather'}")
    days = ("--timerange", "20241201-20241203", "--set", "fast=2", "--set", "slow=5")
    result = succeed("replay", "--strategy", "trend", *ladder, *days, "--json").json
    manifest = json.loads(Path(result["path"], "manifest.json").read_text())
    assert len(manifest["instruments"]) > 10
    assert {terms["kind"] for terms in manifest["setup"]["instruments"]} == {1}
    assert all(
        terms["expires_ts"] and terms["cluster"] for terms in manifest["setup"]["instruments"]
    )
    assert "needs probability" in refuse(4, "replay", "--strategy", "probability", *ladder)


def test_every_decision_can_be_kept_and_changes_nothing_else(shop: Path) -> None:
    words = ("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--json")
    some, every = succeed(*words).json, succeed(*words, "--every-decision").json
    assert some["run_id"] != every["run_id"]
    assert {k: some[k] for k in ("trades", "net_pnl")} == {
        k: every[k] for k in ("trades", "net_pnl")
    }
