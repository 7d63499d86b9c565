"""Sidecars: funding and marks are found, dated when they were known, and reported."""

from pathlib import Path

import numpy as np
import pytest
from candle_files import MINUTE, START, row, write_lines

from core.errors import DataError
from core.model import Kind, Records
from markets.history import History, select
from markets.sidecars import find_sidecars, read_funding, read_market, read_marks

HOUR = 60 * MINUTE


def events_of(history: History, kind: Kind) -> Records:
    return select(history.events, history.events["kind"] == kind)


def rates(folder: Path, *lines: str) -> Path:
    return write_lines(folder, *lines, header="date,open", name="A-8h-funding_rate.csv")


@pytest.mark.parametrize("name", ["A-1m.csv", "A-1m-futures", "A-futures.csv"])
def test_a_name_of_another_form_has_no_sidecars(tmp_path: Path, name: str) -> None:
    rates(tmp_path)
    assert find_sidecars(tmp_path / name) == (None, None)


def test_siblings_of_the_same_market_and_suffix_are_found(tmp_path: Path) -> None:
    for name in ("A-1h-mark.csv", "A-8h-mark.csv", "AB-8h-mark.csv", "A-8h-funding_rate.feather"):
        (tmp_path / name).touch()
    assert find_sidecars(tmp_path / "A-1m-futures.csv") == (None, tmp_path / "A-8h-mark.csv")


def test_a_rate_is_per_settlement_and_its_quote_per_hour(tmp_path: Path) -> None:
    stamps = [START, START + 8 * HOUR + 1, START + 16 * HOUR]
    funding = read_funding(rates(tmp_path, *[f"{stamp},0.0008" for stamp in stamps]))
    settled, quotes = funding.events[:3], funding.events[3:]
    assert settled["rate"].tolist() == [0.0008] * 3
    assert settled["interval_hours"].tolist() == [8.0] * 3
    assert settled["ts_known"].tolist() == quotes["ts_known"].tolist() == stamps
    assert quotes["funding_rate"] == pytest.approx([0.0001] * 3)
    assert funding.note == "funding every 8 h from A-8h-funding_rate.csv"


@pytest.mark.parametrize("bad", ["", "x", "1.5", "inf"])
def test_a_bad_rate_is_skipped_and_a_file_of_them_refused(tmp_path: Path, bad: str) -> None:
    funding = read_funding(rates(tmp_path, f"{START},{bad}", f"{START + HOUR},0.001"))
    assert len(funding.events) == 2
    assert funding.note.endswith(", 1 rows skipped")
    with pytest.raises(DataError, match="no usable funding rate"):
        read_funding(rates(tmp_path, f"{START},{bad}"))


def test_a_mark_is_known_when_its_candle_closes(tmp_path: Path) -> None:
    marks = read_marks(write_lines(tmp_path, row(0), row(480))).events
    assert marks["ts_known"].tolist() == [START + 8 * HOUR, START + 16 * HOUR]
    assert marks["mark"].tolist() == [11, 11]


@pytest.mark.parametrize(
    ("late_ms", "price"), [(0, 11), (1, 11), (60_000, 11), (60_001, np.nan), (-1, np.nan)]
)
def test_a_settlement_price_is_the_mark_just_closed(
    tmp_path: Path, late_ms: int, price: float
) -> None:
    marks = read_marks(write_lines(tmp_path, row(0), row(480)))
    funding = read_funding(rates(tmp_path, f"{START + 8 * HOUR + late_ms},0.001"), marks)
    np.testing.assert_equal(funding.events["settle_price"][0], price)


def test_what_lies_outside_the_candles_stays_out(tmp_path: Path) -> None:
    stamps = [START - 1, START, START + 2 * MINUTE, START + 2 * MINUTE + 1]
    rates(tmp_path, *[f"{stamp},0.001" for stamp in stamps])
    path = write_lines(tmp_path, row(0), row(1), name="A-1m-futures.csv")
    history = read_market(path)
    assert len(events_of(history, Kind.FUNDING)) == 2
    assert "funding_rate" in history.fields
    assert history.quality.notes[0].endswith(": 2 stamps inside")
    assert "funding_rate" not in read_market(path, sidecars=False).fields


def test_recorded_funding_and_marks_join_the_candles(market_data: Path) -> None:
    path = market_data / "perps" / "SOL_USDT_USDT-1m-futures.feather"
    history = read_market(path, interval="1h")
    funding = events_of(history, Kind.FUNDING)
    assert history.fields >= {"mark", "funding_rate", "close"}
    assert len(history.quality.notes) == 3
    assert len(funding) == 89
    assert np.isfinite(funding["settle_price"]).all()
    late = funding["ts_known"] % (8 * HOUR)
    assert 0 < (late > 0).sum() < len(late)
    assert late.max() <= 20
    assert (np.diff(history.events["ts_known"]) >= 0).all()
