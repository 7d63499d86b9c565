"""Kalshi ladders: what ended how is known at the settlement and no sooner."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from core.errors import DataError
from core.model import Kind
from markets.kalshi.history import HOUR_MS, LADDER_FILE, Ladder, read_ladder, read_markets

CLOSE_S = 1_723_867_140  # 2024-08-17T03:59:00Z
EVENT = {"event_ticker": "E", "series_ticker": "S", "title": "Highest temperature?"}


def market(ticker: str = "E-T84", **fields: Any) -> dict[str, Any]:
    body = {
        "ticker": ticker,
        "event_ticker": "E",
        "subtitle": "83° or below",
        "open_time": "2024-08-15T14:00:00Z",
        "close_time": "2024-08-17T03:59:00Z",
        "expected_expiration_time": "2024-08-17T14:00:00Z",
        "settlement_timer_seconds": 3600,
        "result": "yes",
        "strike_type": "less",
        "cap_strike": 84,
    }
    return {key: value for key, value in (body | fields).items() if value is not None}


def ladder(folder: Path, *markets: Mapping[str, Any], hours: int = 3, **columns: list[Any]) -> Path:
    line = json.dumps({"event": EVENT, "markets": markets})
    (folder / "events_s.jsonl.gz").write_bytes(gzip.compress(f"{line}\nbroken\n".encode()))
    ends = [CLOSE_S + 60 - 3600 * (hours - 1 - hour) for hour in range(hours)]
    data: dict[str, Any] = {name: [0.5] * hours for name in ("open", "high", "low", "close")}
    data |= {"ticker": ["E-T84"] * hours, "end_period_ts": ends, "volume": [9] * hours} | columns
    pa.parquet.write_table(pa.table(data), folder / LADDER_FILE)
    return folder


def test_an_hour_is_known_at_its_end_and_the_result_at_the_settlement(tmp_path: Path) -> None:
    read = read_ladder(ladder(tmp_path, market()))
    history, terms = read.histories["E-T84"], read.markets["E-T84"]
    events = history.events
    assert events["kind"].tolist() == [Kind.BAR] * 3 + [Kind.RESOLUTION]
    assert events["ts_known"][2] == (CLOSE_S + 60) * 1000
    assert events["ts_event"][2] == events["ts_known"][2] - HOUR_MS
    assert events["ts_known"][3] == terms.resolved_ms == 1_723_906_800_000
    assert events["value"][3] == terms.value == 1.0
    assert history.fields == {"open", "high", "low", "close", "volume", "hours_left"}
    assert read.skipped == {"unreadable event": 1}


@pytest.mark.parametrize(("result", "value"), [("yes", 1.0), ("no", 0.0)])
def test_a_result_is_one_or_zero(tmp_path: Path, result: str, value: float) -> None:
    events = read_ladder(ladder(tmp_path, market(result=result))).histories["E-T84"].events
    assert events["value"][-1] == value


def test_an_unsettled_market_has_no_resolution(tmp_path: Path) -> None:
    read = read_ladder(ladder(tmp_path, market(result="")))
    assert read.histories["E-T84"].events["kind"].tolist() == [Kind.BAR] * 3
    assert read.markets["E-T84"].resolved_ms is None


def test_a_stated_settlement_time_wins(tmp_path: Path) -> None:
    terms = market(settlement_ts="2024-08-17T13:00:00Z")
    read = read_ladder(ladder(tmp_path, terms))
    assert read.markets["E-T84"].resolved_ms == 1_723_899_600_000


@pytest.mark.parametrize(
    ("subtitle", "expected"),
    [
        ("83° or below", ("less", np.nan, 84)),
        ("91° or above", ("greater", 90, np.nan)),
        ("-2° to -1°", ("between", -2, -1)),
    ],
)
def test_absent_strikes_come_from_the_subtitle(
    tmp_path: Path, subtitle: str, expected: tuple[str, float, float]
) -> None:
    body = market(subtitle=subtitle, strike_type=None, cap_strike=None)
    terms = read_ladder(ladder(tmp_path, body)).markets["E-T84"]
    np.testing.assert_equal((terms.strike_type, terms.floor, terms.cap), expected)


@pytest.mark.parametrize(
    "fields", [{"close_time": "soon"}, {"result": None}, {"subtitle": "hot", "strike_type": None}]
)
def test_a_market_that_cannot_be_read_is_counted(tmp_path: Path, fields: dict[str, Any]) -> None:
    read = read_ladder(ladder(tmp_path, market("OTHER", **fields), market()))
    assert read.skipped["unreadable market"] == 1
    assert list(read.markets) == ["E-T84"]


def test_impossible_hours_are_skipped_and_counted(tmp_path: Path) -> None:
    read = read_ladder(ladder(tmp_path, market(), high=[1.0, 1.5, 0.4]))
    assert read.skipped["impossible price"] == 2
    assert len(read.histories["E-T84"].bars) == 1


def test_an_hour_without_a_time_is_skipped_and_counted(tmp_path: Path) -> None:
    ends = [float("nan"), CLOSE_S - 3540.0, CLOSE_S + 60.0]
    read = read_ladder(ladder(tmp_path, market(), end_period_ts=ends))
    assert read.skipped["missing or unreadable time"] == 1
    assert len(read.histories["E-T84"].bars) == 2


def test_markets_without_trades_and_trades_without_a_market_are_counted(tmp_path: Path) -> None:
    folder = ladder(tmp_path, market(), market("QUIET"), ticker=["E-T84", "E-T84", "GONE"])
    skipped = read_ladder(folder).skipped
    assert skipped["market without a trade"] == skipped["hour of another market"] == 1


def test_a_series_nobody_has_is_refused(tmp_path: Path) -> None:
    assert len(read_ladder(ladder(tmp_path, market()), series="S").markets) == 1
    with pytest.raises(DataError, match="no market of series T"):
        read_ladder(tmp_path, series="T")


def test_a_broken_events_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events_s.jsonl.gz").write_text("x")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_markets(tmp_path / "events_s.jsonl.gz", {}))


@pytest.fixture(scope="module")
def recorded(market_data: Path) -> Ladder:
    return read_ladder(market_data / "kalshi_weather")


def test_every_recorded_cluster_settles_on_at_most_one_market(recorded: Ladder) -> None:
    wins: dict[str, float] = {}
    for terms in recorded.markets.values():
        wins[terms.cluster] = wins.get(terms.cluster, 0) + (terms.value or 0)
    assert (len(recorded.markets), len(wins)) == (4_725, 798)
    assert set(wins.values()) == {0.0, 1.0}
    assert list(wins.values()).count(1.0) == 759


def test_every_recorded_result_comes_after_the_last_hour(recorded: Ladder) -> None:
    for ticker, history in recorded.histories.items():
        terms = recorded.markets[ticker]
        last = history.bars["ts_known"][-1]
        assert terms.open_ms < last <= terms.close_ms + HOUR_MS
        assert terms.resolved_ms is None or terms.resolved_ms > terms.close_ms + 9 * HOUR_MS


def test_recorded_strikes_need_no_field_that_only_winners_lack(
    market_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = market_data / "kalshi_weather" / "events_kxhighny.jsonl.gz"
    stated = {market.ticker: market for market in read_markets(path, {})}
    text = gzip.decompress(path.read_bytes()).decode().replace('"strike_type"', '"x"')
    monkeypatch.setattr(Path, "read_bytes", lambda _: gzip.compress(text.encode()))
    read = list(read_markets(path, {}))
    assert len(read) == len(stated)
    for terms in read:
        np.testing.assert_equal(
            (terms.strike_type, terms.floor, terms.cap),
            (
                stated[terms.ticker].strike_type,
                stated[terms.ticker].floor,
                stated[terms.ticker].cap,
            ),
        )
