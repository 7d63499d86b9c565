"""Candle files: every guard blocks and passes, every format reads, nothing dies on a bad line."""

import gzip
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from candle_files import HEADER, MINUTE, START, row, write_lines
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.model import Kind
from markets.candles import parse_candles, read_candles
from markets.history import crop, select
from markets.tables import parse_csv

GOOD = "10,12,9,11,5"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("10,inf,9,11,5", "non-finite high"),
        ("-1,12,9,11,5", "price not positive"),
        ("10,12,0,11,5", "price not positive"),
        ("10,8,9,11,5", "high below low"),
        ("13,12,9,11,5", "open outside the range"),
        ("10,12,9,8.5,5", "close outside the range"),
        ("10,12,9,11,-5", "negative volume"),
        ("10,12,9,oops,5", "unreadable close"),
        ("10,12,9,11,", "missing volume"),
        ("10,NaN,9,11,5", "missing high"),
        ("10,12,9,11", "malformed line"),
        ("10,12,9,11,5,6", "malformed line"),
    ],
)
def test_a_bad_row_is_skipped_and_counted_by_reason(tmp_path: Path, bad: str, reason: str) -> None:
    path = write_lines(tmp_path, row(0, GOOD), row(1, bad), row(2, GOOD), row(3, GOOD))
    quality = read_candles(path).quality
    assert dict(quality.skipped) == {reason: 1}
    assert (quality.rows_read, quality.rows_used, quality.bars_missing) == (4, 3, 1)


@pytest.mark.parametrize("good", ["10,12,9,11,5", "10,10,10,10,0", "1e1,12.,9,+11, 5 "])
def test_a_good_row_is_used(tmp_path: Path, good: str) -> None:
    history = read_candles(write_lines(tmp_path, row(0), row(1, good), row(2)))
    assert history.quality.rows_used == 3
    assert dict(history.quality.skipped) == {}


def test_unsorted_rows_are_sorted_and_counted(tmp_path: Path) -> None:
    history = read_candles(write_lines(tmp_path, row(0), row(2), row(1), row(3)))
    assert history.quality.unsorted == 1
    assert np.diff(history.bars["ts_event"]).tolist() == [MINUTE] * 3


def test_of_duplicates_the_last_good_row_stays(tmp_path: Path) -> None:
    lines = row(0), row(1, "10,12,9,9.5,5"), row(1, "10,12,9,9.9,5"), row(1, "10,12,9,99,5"), row(2)
    history = read_candles(write_lines(tmp_path, *lines))
    assert history.bars["close"].tolist() == [11, 9.9, 11]
    assert history.quality.duplicates == 1


def test_a_row_inside_the_bar_before_it_is_left_out(tmp_path: Path) -> None:
    stray = f"{START + MINUTE // 2},{GOOD}"
    lines = row(0), stray, row(1), row(2), row(3), row(4)
    quality = read_candles(write_lines(tmp_path, *lines)).quality
    assert dict(quality.skipped) == {"overlaps the bar before": 1}


def test_the_interval_is_the_most_common_step(tmp_path: Path) -> None:
    history = read_candles(write_lines(tmp_path, row(0), row(5), row(10), row(25)))
    assert (history.interval_ms, history.quality.bars_missing) == (5 * MINUTE, 2)


def test_one_row_needs_an_interval_and_takes_it(tmp_path: Path) -> None:
    path = write_lines(tmp_path, row(0))
    with pytest.raises(DataError, match="no interval"):
        read_candles(path)
    assert read_candles(path, interval="5m").interval_ms == 5 * MINUTE


def test_a_coarser_interval_resamples_and_a_finer_one_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path, *[row(minute) for minute in range(10)])
    assert len(read_candles(path, interval=5 * MINUTE).bars) == 2
    with pytest.raises(DataError, match=r"x\.csv: 1m bars cannot become 30s bars"):
        read_candles(path, interval="30s")


def test_columns_beside_the_bar_become_a_quote_before_it(tmp_path: Path) -> None:
    header = HEADER + ",Mark,bid,ask,probability,colour"
    lines = [row(0, GOOD + ",10.5,10,11,0.4,red"), row(1, GOOD + ",,,,,"), row(2, GOOD + ",9,,,,")]
    history = read_candles(write_lines(tmp_path, *lines, header=header))
    bar, quote, forecast = Kind.BAR, Kind.QUOTE, Kind.FORECAST
    assert history.events["kind"].tolist() == [quote, forecast, bar, bar, quote, bar]
    assert history.events["mark"][[0, 4]].tolist() == [10.5, 9.0]
    assert np.isnan(history.events["bid"][4])
    assert history.events["ts_known"][0] == START + MINUTE
    assert history.fields >= {"mark", "bid", "ask", "probability"}
    assert "oracle" not in history.fields


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("mark", "10", "0"),
        ("oracle", "10", "oops"),
        ("bid_depth", "0", "-1"),
        ("open_interest", "5", "inf"),
        ("probability", "1", "1.01"),
        ("funding_rate", "-0.001", "-2"),
    ],
)
def test_a_cell_beside_the_bar_is_blanked_when_out_of_reach(
    tmp_path: Path, name: str, good: str, bad: str
) -> None:
    lines = [row(0, f"{GOOD},{good}"), row(1, f"{GOOD},{bad}"), row(2, f"{GOOD},{good}")]
    history = read_candles(write_lines(tmp_path, *lines, header=f"{HEADER},{name}"))
    assert dict(history.quality.blanked) == {name: 1}
    assert history.quality.rows_used == 3
    assert len(history.events) == 5


def test_a_crossed_book_is_blanked_and_a_locked_one_passes(tmp_path: Path) -> None:
    lines = [row(0, GOOD + ",11,10"), row(1, GOOD + ",10,10"), row(2, GOOD + ",9,10")]
    history = read_candles(write_lines(tmp_path, *lines, header=HEADER + ",bid,ask"))
    assert dict(history.quality.blanked) == {"bid above ask": 1}
    assert (history.events["kind"] == Kind.QUOTE).sum() == 2


def test_a_settlement_column_becomes_funding_and_reveals_the_rate(tmp_path: Path) -> None:
    header = HEADER + ",funding_settled,funding_hours"
    lines = [row(0, GOOD + ",,"), row(1, GOOD + ",0.0008,8"), row(2, GOOD + ",,")]
    events = read_candles(write_lines(tmp_path, *lines, header=header)).events
    assert events["kind"].tolist() == [Kind.BAR, Kind.FUNDING, Kind.QUOTE, Kind.BAR, Kind.BAR]
    assert events["funding_rate"][2] == pytest.approx(1e-4)


def test_a_settlement_with_a_time_outside_its_bar_counts_at_the_close(tmp_path: Path) -> None:
    header = HEADER + ",funding_settled,funding_ts"
    stamps = START + 1, START + MINUTE, START + 2 * MINUTE + 1, "soon", ""
    lines = [row(at, f"{GOOD},0.001,{stamp}") for at, stamp in enumerate(stamps)]
    history = read_candles(write_lines(tmp_path, *lines, header=header))
    settled = select(history.events, history.events["kind"] == Kind.FUNDING)
    told = (settled["ts_known"] - START).tolist()
    assert told == [1, 2 * MINUTE, 2 * MINUTE + 1, 4 * MINUTE, 5 * MINUTE]
    # one was told before its bar opened, one is no number
    assert dict(history.quality.blanked) == {"funding_ts": 2}


@pytest.mark.parametrize(
    "stamps",
    [
        ["1704067200", "1704067260"],
        ["1704067200000", "1704067260000"],
        ["1704067200000000", "1704067260000000"],
        ["1704067200000000000", "1704067260000000000"],
        ["2024-01-01 00:00:00", "2024-01-01 00:01:00"],
        ["2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"],
        ["2024-01-01 00:00:00+00:00", "2024-01-01T01:01:00+01:00"],
        ["2024-01-01 00:00:00.000000000Z", "2024-01-01 00:01"],
        ["20240101T000000Z", "2024-01-01 00:01:00"],
    ],
)
def test_times_are_understood_in_every_spelling(tmp_path: Path, stamps: list[str]) -> None:
    lines = [f"{stamp},{GOOD}" for stamp in stamps]
    header = HEADER.replace("ts", "date")
    history = read_candles(write_lines(tmp_path, *lines, header=header))
    assert history.bars["ts_event"].tolist() == [START, START + MINUTE]


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (["1", "2", "3"], "give unix milliseconds"),
        (["20240101", "20240102"], "give unix milliseconds"),
        (["1704067200", "1704067260000"], "mixes seconds and milliseconds"),
    ],
)
def test_a_time_whose_unit_is_unclear_is_refused(
    tmp_path: Path, stamps: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_candles(write_lines(tmp_path, *[f"{stamp},{GOOD}" for stamp in stamps]))


@pytest.mark.parametrize("stamp", ["", "5", "soon"])
def test_a_lone_bad_time_costs_one_row(tmp_path: Path, stamp: str) -> None:
    quality = read_candles(write_lines(tmp_path, row(0), f"{stamp},{GOOD}", row(1))).quality
    assert (sum(quality.skipped.values()), quality.rows_used) == (1, 2)


def test_an_impossible_date_among_good_ones_costs_one_row(tmp_path: Path) -> None:
    lines = [f"{date},{GOOD}" for date in ("2024-01-01", "2024-13-01", "", "2024-01-03Z", "soon")]
    lines += [f"2024-01-0{day}T00:00:00+00:00,{GOOD}" for day in (3, 4, 5)]
    history = read_candles(write_lines(tmp_path, *lines))
    assert history.quality.skipped == {"unreadable time": 3, "missing time or out of range": 1}
    assert len(history.bars) == 4


def test_formats_agree(tmp_path: Path) -> None:
    lines = [row(minute, f"10,12,9,{10 + minute / 7},{minute}") for minute in range(5)]
    path = write_lines(tmp_path, *lines)
    table = pa.csv.read_csv(path)
    stamps = table["ts"].cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("ns", "UTC"))
    freqtrade = table.drop_columns("ts").append_column("date", stamps)
    pa.feather.write_feather(freqtrade, str(tmp_path / "x.feather"))
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    names = ("x.csv", "x.csv.gz", "x.feather", "x.parquet")
    assert len({read_candles(tmp_path / name).digest for name in names}) == 1


def test_nulls_in_a_typed_column_are_missing_cells(tmp_path: Path) -> None:
    columns = {name: pa.array([1.0, None, 1.0]) for name in HEADER.split(",")[1:]}
    columns["ts"] = pa.array([START, START + MINUTE, None])
    pa.feather.write_feather(pa.table(columns), str(tmp_path / "x.feather"))
    history = read_candles(tmp_path / "x.feather", interval="1m")
    assert history.quality.skipped == {"missing open": 1, "missing time or out of range": 1}


@pytest.mark.parametrize(
    "text",
    [
        '"ts","open","high","low","close","volume"\n"{0}","10","12","9","11","5"\n',
        "\ufeff{header}\r\n{0},10,12,9,11,5\r\n",
        "\n\n ts ; Open;HIGH;low;close;volume\n{0};10;12;9;11;5\n",
        "{header}\n\n{0},10,12,9,11,5\n\n",
        '{header}\n{0},10,12,9,11,5\n"unclosed\n',
        "{header}\n{0},10,12,9,11,5\n\u00ff\u0000",
    ],
)
def test_odd_but_readable_csv_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text.format(START, header=HEADER).encode())
    assert read_candles(path, interval="1m").bars["close"].tolist() == [11]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.xlsx", b"", "unknown kind of file '.xlsx': use .feather"),
        ("x", b"", "unknown kind of file"),
        ("x.csv", b"", "the file is empty"),
        ("x.csv", HEADER.encode(), "no usable row: it has none; expected columns"),
        ("x.csv", f"{HEADER}\n{START},1,2\n".encode(), "no usable row: 1 malformed line"),
        ("x.csv", f"{HEADER}\n{START},0,0,0,0,0\n".encode(), "1 price not positive"),
        ("x.csv", b"ts,open,high,low,clsoe,volume\n", r"'close' \(nearest: 'clsoe'\)"),
        ("x.csv", b"ts,ts,open,high,low,close,volume\n", "'ts' is there twice"),
        ("x.csv.gz", gzip.compress(b"ts,open\n" * 99)[:-9], "cannot be read"),
        ("x.feather", b"not feather", "cannot be read"),
        ("x.parquet", b"", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_candles(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.csv", "x.feather", "x.parquet"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_candles(tmp_path / name)


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    columns = {name: pa.array([[1.0]]) for name in HEADER.split(",")}
    pa.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not numbers"):
        read_candles(tmp_path / "x.parquet")


CELL = st.sampled_from(["1", "2", "3", "0", "-1", "", "x", "inf", "nan"])
LINE = st.one_of(
    st.lists(CELL, min_size=4, max_size=6).map(",".join), st.just("1,3,1,2,5"), st.text(max_size=9)
)


@given(st.lists(st.tuples(st.integers(0, 9), LINE), min_size=1, max_size=30))
def test_every_row_is_accounted_for(lines: list[tuple[int, str]]) -> None:
    text = "\n".join([HEADER, row(20, GOOD), *(row(minute, cells) for minute, cells in lines)])
    quality = parse_candles(parse_csv(text.encode(), "x"), MINUTE).quality
    lost = quality.duplicates + sum(quality.skipped.values())
    assert quality.rows_read == quality.rows_used + lost


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with suppress(DataError):
        parse_candles(parse_csv(HEADER.encode() + b"\n" + data, "x"), MINUTE)


@pytest.mark.parametrize(
    ("name", "bars", "interval_ms"),
    [
        ("SOL_USDT_USDT-1m-futures", 43_200, 60_000),
        ("BTC_USDT_USDT-5m-futures", 10_906, 300_000),
        ("BTC_USDT_USDT-1h-futures", 719, 3_600_000),
    ],
)
def test_recorded_candles_are_whole(
    market_data: Path, name: str, bars: int, interval_ms: int
) -> None:
    history = read_candles(market_data / "perps" / f"{name}.feather")
    quality = history.quality
    assert (len(history.events), history.interval_ms) == (bars, interval_ms)
    assert (quality.gaps, quality.duplicates, dict(quality.skipped)) == (0, 0, {})
    assert crop(history).digest == history.digest
