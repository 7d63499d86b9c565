"""``data``, ``strategies``, ``features`` and ``doctor`` through the command line."""

from pathlib import Path

import pytest
from cli_calls import BARS, call, desk, refuse, shop, succeed

from daemon.commands.names import instrument_of, parse_timerange
from strategies.features import FEATURES
from strategies.registry import all_strategies

__all__ = ["desk", "shop"]

pytestmark = pytest.mark.usefixtures("desk")


def test_inspect_tells_what_a_file_holds(shop: Path, desk: Path) -> None:
    facts = succeed("data", "inspect", shop / "SOL-PERP.feather", "--json").json
    assert (facts["bars"], facts["interval"], facts["gaps"]) == (BARS, "1m", 0)
    assert (facts["start"], facts["instrument"]) == ("2025-01-01T00:00:00Z", "SOL-PERP")
    assert {"close", "oracle", "funding_rate"} <= set(facts["fields"])
    assert len(facts["digest"]) == 64
    lines = ["ts,open,high,low,close,volume"]
    lines += [f"{60_000 * k + 1_735_689_600_000},5,6,4,5,1" for k in (0, 1, 2, 5, 6, 6)]
    (desk / "holes.csv").write_text("\n".join([*lines, "1735689960000,5,4,6,5,1"]))
    facts = succeed("data", "inspect", "holes.csv", "--json").json
    assert (facts["gaps"], facts["bars_missing"], facts["duplicates"]) == (1, 2, 1)
    assert facts["skipped"] == {"high below low": 1}
    assert facts["gaps_first"] == [{"start": "2025-01-01T00:03:00Z", "bars": 2}]
    told = succeed("data", "inspect", "holes.csv").out
    assert "high below low 1" in told
    assert max(len(line) for line in told.splitlines()) <= 80


def test_inspect_takes_a_range_and_longer_bars(shop: Path) -> None:
    words = ("data", "inspect", shop / "SOL-PERP.feather", "--json")
    assert succeed(*words, "--timerange", "20250101-20250102").json["bars"] == 1440
    assert succeed(*words, "--resample", "1h").json["bars"] == BARS // 60


@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        (3, ["inspect", "none.csv"], "none.csv: no such file"),
        (3, ["inspect", "empty.csv"], "empty.csv"),
        (3, ["inspect", "notes.txt"], "notes.txt: a trade-record file needs column"),
        (2, ["convert", "good.csv", "good.csv"], "good.csv: is there already"),
        (3, ["convert", "good.csv", "out.xls"], "write to .feather, .parquet, .csv or .csv.gz"),
        (3, ["convert", "good.csv", "none/out.csv"], "none/out.csv: cannot be written"),
        (3, ["sample", "/proc/none"], "/proc/none: cannot be written"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(
    desk: Path, code: int, words: list[str], told: str
) -> None:
    (desk / "empty.csv").write_text("")
    (desk / "notes.txt").write_text("nothing here is a table\n")
    rows = "".join(f"{60_000 * k + 1_735_689_600_000},5,6,4,5,1\n" for k in range(3))
    (desk / "good.csv").write_text("ts,open,high,low,close,volume\n" + rows)
    assert told in refuse(code, "data", *words)


def test_a_converted_file_holds_the_same_history(shop: Path) -> None:
    source = shop / "SOL-PERP.feather"
    for name in ("a.csv.gz", "a.parquet"):
        facts = succeed("data", "convert", source, name, "--json").json
        assert facts["bars"] == BARS
        assert succeed("data", "inspect", name, "--json").json["digest"] == facts["digest"]
    succeed("data", "convert", source, "a.parquet", "--force", "--resample", "5m", "--bars-only")
    assert succeed("data", "inspect", "a.parquet", "--json").json["bars"] == BARS // 5
    assert "add --bars-only" in refuse(3, "data", "convert", source, "b.csv", "--resample", "7m")


def test_the_sample_can_be_written_and_replayed(desk: Path) -> None:
    files = succeed("data", "sample", "sample", "--bars", 300, "--json").json["files"]
    assert {"SOL-PERP", "BTC-PERP", "EVENT-01"} <= set(files)
    words = ("replay", "--strategy", "trend", "--data", files["SOL-PERP"], "--json")
    assert succeed(*words).json["bars"] == 300
    assert "Next: lockstep replay" in succeed("data", "sample", "sample", "--bars", 300).out


def test_every_strategy_is_listed_with_its_parameters_and_bounds() -> None:
    listed = {row["name"]: row for row in succeed("strategies", "--json").json}
    assert set(listed) == set(all_strategies())
    assert listed["trend"]["params"]["fast"] == {
        "default": 20,
        "low": 5,
        "high": 100,
        "about": "bars in the fast average",
    }
    assert listed["e3"]["profiles"]["strict"]["volume_z"] == 2.0
    assert listed["trend"]["warmup_bars"] == 50
    assert "oracle" in listed["e3"]["inputs"]
    for name in listed:
        told = succeed("strategies", name).out
        assert max(len(line) for line in told.splitlines()) <= 80
        assert "parameter" in told
    assert "did you mean 'trend'?" in refuse(2, "strategies", "trnd")


def test_every_feature_is_listed_with_its_unit() -> None:
    listed = {row["name"]: row for row in succeed("features", "--json").json}
    assert set(listed) == set(FEATURES)
    assert all(row["unit"] and row["about"] for row in listed.values())
    told = succeed("features").out
    assert max(len(line) for line in told.splitlines()) <= 80
    assert "window=14" in succeed("features", "rsi").out
    assert "did you mean 'rsi'?" in refuse(2, "features", "rsii")


def test_the_doctor_finds_this_machine_fit(desk: Path) -> None:
    report = succeed("doctor", "--json").json
    assert report["ok"] is True
    names = [check["check"] for check in report["checks"]]
    assert names == ["python", "packages", "compiled step", "disk", "clock", "data", "journal"]
    assert "journal.sqlite is made by the first run" in report["checks"][-1]["detail"]


def test_the_doctor_says_what_must_be_mended(desk: Path) -> None:
    (desk / "journal.sqlite").write_text("this is no database")
    answer = call("doctor", "--runs", "/proc/none", "--json")
    states = {check["check"]: check["state"] for check in answer.json["checks"]}
    assert answer.code == 1
    assert (states["journal"], states["python"]) == ("fail", "ok")
    assert call("doctor").code == 1
    warned = call("doctor", "--json", LOCKSTEP_DATA="/none").json["checks"][-2]
    assert (warned["state"], warned["detail"]) == ("warn", "LOCKSTEP_DATA: /none is not a folder")


@pytest.mark.parametrize(
    ("name", "instrument"),
    [
        ("SOL_USDT_USDT-1m-futures.feather", "SOL_USDT_USDT"),
        ("SOL-PERP.csv.gz", "SOL-PERP"),
        ("BTC-15m.parquet", "BTC"),
        ("EVENT-01.feather", "EVENT-01"),
        ("records", "records"),
    ],
)
def test_a_file_name_tells_its_instrument(name: str, instrument: str) -> None:
    assert instrument_of(Path(name)) == instrument


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("20250504-20250510", (1_746_316_800_000, 1_746_835_200_000)),
        ("20250504-", (1_746_316_800_000, None)),
        ("-20250510", (None, 1_746_835_200_000)),
        ("2025-05-04/2025-05-10", (1_746_316_800_000, 1_746_835_200_000)),
        ("2025-05-04-2025-05-10", (1_746_316_800_000, 1_746_835_200_000)),
        ("2025-05-04T00:00Z/", (1_746_316_800_000, None)),
        ("2025-05-04T02:00+02:00/", (1_746_316_800_000, None)),
        ("1746316800-1746835200000", (1_746_316_800_000, 1_746_835_200_000)),
    ],
)
def test_a_range_of_time_is_read(text: str, span: tuple[int | None, int | None]) -> None:
    assert parse_timerange(text) == span
