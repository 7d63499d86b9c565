"""Drift's record files, from the documented header: prices from amounts, never from the oracle."""

import gzip
from pathlib import Path

import pytest

from core.errors import DataError
from core.model import Kind
from markets.drift.history import read_funding, read_trades
from markets.history import select

START_S = 1_704_067_200
MINUTE = 60_000
TRADE_HEADER = (
    "fillerReward,baseAssetAmountFilled,quoteAssetAmountFilled,takerFee,makerRebate,referrerReward,"
    "quoteAssetAmountSurplus,takerOrderBaseAssetAmount,takerOrderCumulativeBaseAssetAmountFilled,"
    "takerOrderCumulativeQuoteAssetAmountFilled,makerOrderBaseAssetAmount,"
    "makerOrderCumulativeBaseAssetAmountFilled,makerOrderCumulativeQuoteAssetAmountFilled,"
    "oraclePrice,makerFee,txSig,slot,ts,action,actionExplanation,marketIndex,marketType,filler,"
    "fillRecordId,taker,takerOrderId,takerOrderDirection,maker,makerOrderId,makerOrderDirection,"
    "spotFulfillmentMethodFee,programId"
)
FUNDING_HEADER = (
    "txSig,slot,ts,recordId,marketIndex,fundingRate,cumulativeFundingRateLong,"
    "cumulativeFundingRateShort,oraclePriceTwap,markPriceTwap,fundingRateLong,fundingRateShort,"
    "periodRevenue,baseAssetAmountWithAmm,baseAssetAmountWithUnsettledLp,programId"
)


def line(header: str, **cells: object) -> str:
    return ",".join(str(cells.get(name, "")) for name in header.split(","))


def trade(second: int, price: float, record: object, **cells: object) -> str:
    known = {
        "ts": START_S + second,
        "baseAssetAmountFilled": "2.000000000",
        "quoteAssetAmountFilled": f"{2 * price:.6f}",
        "oraclePrice": f"{price + 50:.6f}",
        "action": "fill",
        "marketType": "perp",
        "marketIndex": 0,
        "fillRecordId": record,
    }
    return (
        line(TRADE_HEADER, **known, **cells) if not cells else line(TRADE_HEADER, **known | cells)
    )


def funding(hour: int, **cells: object) -> str:
    known = {"ts": START_S + 3600 * hour, "fundingRate": "0.0015", "oraclePriceTwap": "150.0"}
    return line(FUNDING_HEADER, **known | {"recordId": hour} | cells)


def write(path: Path, header: str, *lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))
    return path


def test_a_price_is_quote_over_base_and_the_oracle_is_a_quote(tmp_path: Path) -> None:
    lines = trade(0, 100, 1), trade(30, 102, 2), trade(59, 101, 3), trade(60, 99, 4)
    history = read_trades(write(tmp_path / "20240101", TRADE_HEADER, *lines))
    first = history.bars[0]
    assert [first[name] for name in ("open", "high", "low", "close", "volume")] == [
        100,
        102,
        100,
        101,
        6,
    ]
    quotes = select(history.events, history.events["kind"] == Kind.QUOTE)
    assert quotes["oracle"].tolist() == [151, 149]
    assert quotes["ts_known"].tolist() == history.bars["ts_known"].tolist()
    assert history.fields == {"open", "high", "low", "close", "volume", "oracle"}


def test_rows_of_one_second_are_ordered_by_their_record(tmp_path: Path) -> None:
    lines = trade(5, 103, 12), trade(5, 101, 10), trade(5, 102, 11)
    bar = read_trades(write(tmp_path / "a", TRADE_HEADER, *lines)).bars[0]
    assert (bar["open"], bar["close"]) == (101, 103)


def test_a_record_read_twice_counts_once_and_a_missing_one_is_noted(tmp_path: Path) -> None:
    lines = trade(0, 100, 1), trade(1, 100, 1), trade(2, 100, 4)
    history = read_trades(write(tmp_path / "a", TRADE_HEADER, *lines))
    assert history.bars["volume"].tolist() == [4]
    assert history.quality.duplicates == 1
    assert history.quality.notes[-1] == "2 fill records missing by their ids"
    whole = read_trades(write(tmp_path / "b", TRADE_HEADER, trade(0, 9, 1), trade(1, 9, 2)))
    assert not any("missing" in note for note in whole.quality.notes)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"baseAssetAmountFilled": "0"}, "no base filled"),
        ({"quoteAssetAmountFilled": "x"}, "no quote filled"),
        ({"ts": ""}, "missing or unreadable time"),
        ({"action": "place"}, "not a fill"),
        ({"marketType": "spot"}, "not a perpetual"),
        ({"marketIndex": 1}, "another market"),
        ({"programId": "a,b"}, "malformed line"),
    ],
)
def test_a_bad_row_is_skipped_and_counted_by_reason(
    tmp_path: Path, cells: dict[str, object], reason: str
) -> None:
    lines = trade(0, 100, 1), trade(1, 900, 2, **cells), trade(2, 100, 3)
    history = read_trades(write(tmp_path / "a", TRADE_HEADER, *lines))
    quality = history.quality
    assert dict(quality.skipped) == {reason: 1}
    assert (quality.rows_read, quality.rows_used) == (3, 2)
    assert history.bars["high"].tolist() == [100]


def test_the_market_asked_for_is_the_one_kept(tmp_path: Path) -> None:
    lines = trade(0, 100, 1), trade(1, 200, 1, marketIndex=1)
    history = read_trades(write(tmp_path / "a", TRADE_HEADER, *lines), market_index=1)
    assert history.bars["close"].tolist() == [200]


def test_a_directory_of_daily_files_is_one_history(tmp_path: Path) -> None:
    for day, text in ((1, trade(86_400, 101, 2)), (0, trade(0, 100, 1))):
        write(tmp_path / "2024" / f"2024010{day + 1}", TRADE_HEADER, text)
    (tmp_path / "2024" / ".hidden").write_text("x")
    history = read_trades(tmp_path, interval="1d")
    assert history.bars["close"].tolist() == [100, 101]
    assert history.quality.gaps == 0


def test_plain_and_packed_files_read_alike_and_empty_bars_fill_when_asked(tmp_path: Path) -> None:
    lines = trade(0, 100, 1), trade(150, 101, 2)
    packed = write(tmp_path / "packed", TRADE_HEADER, *lines)
    plain = tmp_path / "plain"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    assert read_trades(plain).digest == read_trades(packed).digest
    filled = read_trades(plain, fill_empty=True)
    assert filled.bars["close"].tolist() == [100, 100, 101]
    assert filled.quality.gaps == 0
    assert read_trades(plain).quality.bars_missing == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ts,baseAssetAmountFilled\n", "quoteassetamountfilled|quoteAssetAmountFilled"),
        (f"{TRADE_HEADER}\n", "no usable row: it has none"),
        (f"{TRADE_HEADER}\n{trade(0, 1, 1, action='place')}\n", "1 not a fill"),
        ("", "the file is empty"),
    ],
)
def test_a_file_without_a_trade_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(DataError, match=message):
        read_trades(tmp_path / "a")


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="YYYYMMDD"):
        read_trades(tmp_path)


def test_funding_is_a_fraction_of_the_oracle_that_settles_it(tmp_path: Path) -> None:
    events = read_funding(write(tmp_path / "a", FUNDING_HEADER, funding(0), funding(1)))
    settled = events[events["kind"] == Kind.FUNDING]
    assert settled["rate"] == pytest.approx([1e-5] * 2)
    assert settled["rate"] * settled["settle_price"] == pytest.approx([0.0015] * 2)
    assert settled["interval_hours"].tolist() == [1, 1]
    quotes = events[events["kind"] == Kind.QUOTE]
    assert quotes["funding_rate"] == pytest.approx([1e-5] * 2)


def test_longs_pay_their_own_rate_where_the_file_has_it(tmp_path: Path) -> None:
    lines = funding(0, fundingRateLong="0.003"), funding(1)
    events = read_funding(write(tmp_path / "a", FUNDING_HEADER, *lines))
    rates = events["rate"][events["kind"] == Kind.FUNDING]
    assert rates == pytest.approx([2e-5, 1e-5])


@pytest.mark.parametrize(
    "bad",
    [{"fundingRate": "x"}, {"fundingRate": "1500000"}, {"oraclePriceTwap": "0"}, {"ts": "soon"}],
)
def test_a_record_without_a_sane_rate_is_left_out(tmp_path: Path, bad: dict[str, object]) -> None:
    path = write(tmp_path / "a", FUNDING_HEADER, funding(0), funding(1, **bad))
    assert len(read_funding(path)) == 2
    with pytest.raises(DataError, match="no usable row"):
        read_funding(write(tmp_path / "b", FUNDING_HEADER, funding(1, **bad)))
