"""Drift's Data API, book server and archive over real sockets, and what is made of their rows."""

import gzip
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from standin_dlob import (
    DAY,
    HOUR,
    MINUTE,
    PROGRAM,
    SETTLED_AFTER_MS,
    Fault,
    Fill,
    StandinDlob,
    fills_of,
    record_files,
)
from worlds import START, walk

from core.errors import DataError
from core.model import Kind
from markets.candles import read_candles
from markets.drift.archive import Archive, ArchiveSettings, Gathered, Record
from markets.drift.book import Books, BookSettings
from markets.drift.data_api import DataApi, DataSettings, Rows
from markets.drift.gather import (
    from_candles,
    from_files,
    from_trades,
    join_settlements,
    settlement_events,
)
from markets.drift.parse import Trade
from markets.export import write
from markets.feeds.closing import Candle
from markets.feeds.errors import FeedError
from markets.feeds.funding import Settlement
from markets.feeds.link import Link, Trouble, VenueClock
from markets.history import History, select

pytestmark = pytest.mark.anyio
SOL = "SOL-PERP"
BARS = 150
FAST = {"wait_first_s": 0.002, "wait_longest_s": 0.01, "timeout_s": 1.0, "weight_per_minute": 1e9}


def standin_at(bars: int = BARS, *faults: Fault | None, **more: Any) -> StandinDlob:
    """A stand-in at the end of its market that answers the first requests so."""
    coming = iter(faults)
    fills = {SOL: fills_of(walk(bars))}
    start_ms = START + bars * MINUTE + HOUR
    return StandinDlob(fills, start_ms=start_ms, request_fault=lambda: next(coming, None), **more)


@asynccontextmanager
async def asking(standin: StandinDlob, **more: Any) -> AsyncIterator[tuple[DataApi, Books, Link]]:
    link, clock = Link(anyio.current_time), VenueClock(standin.now_ms)
    async with standin.open():
        data = DataSettings(url=standin.url, **(FAST | more))
        books = BookSettings(url=standin.url, **FAST)
        async with (
            DataApi(data, clock, link, lambda: 0.5) as api,
            Books(books, clock, link, lambda: 0.5) as server,
        ):
            yield api, server, link


def rows(history: History) -> list[tuple[float, ...]]:
    names = ("ts_event", "open", "high", "low", "close", "volume")
    return [tuple(bar[name].item() for name in names) for bar in history.bars]


def played(candles: list[Candle]) -> list[tuple[float, ...]]:
    return [tuple(candle[:6]) for candle in candles]


# -- the Data API


async def test_candles_are_asked_back_from_where_they_end_a_page_at_a_time() -> None:
    standin = standin_at()
    async with asking(standin, candles_per_page=60) as (api, _, link):
        first = await api.candles(SOL, MINUTE, START, START + BARS * MINUTE)
        every = await api.candle_rows(SOL, MINUTE, START, START + BARS * MINUTE)
    assert first.candles == standin.candles[SOL][:60]
    assert first.until_ms == START + 60 * MINUTE
    assert standin.now - 1_000 < first.venue_ms <= standin.now
    assert [row.candle for row in every.good] == standin.candles[SOL]
    assert len(standin.requests) == 4
    assert f"startTs={START // 1_000 + 3_599}" in standin.requests[0]
    assert not link.counts


async def test_trades_come_in_pages_and_make_the_same_bars() -> None:
    standin = standin_at()
    async with asking(standin) as (api, _, _link):
        trades = await api.trades(SOL, START, START + BARS * MINUTE)
        candles = await api.candle_rows(SOL, MINUTE, START, START + BARS * MINUTE)
    assert len(trades.good) == 4 * BARS
    made = from_trades(trades, MINUTE)
    assert rows(made) == played(standin.candles[SOL]) == rows(from_candles(candles, MINUTE))
    assert not any("missing" in note for note in made.quality.notes)
    del trades.good[7:9]
    assert from_trades(trades, MINUTE).quality.notes == ("2 fill records missing by their ids",)


async def test_funding_comes_by_page_and_by_day() -> None:
    standin = standin_at()
    async with asking(standin) as (api, _, _link):
        told = await api.settlements(SOL, START + HOUR, START + 3 * HOUR)
        days = await api.funding(SOL, START, START + 3 * HOUR)
    assert [row.time_ms for row in told.settlements] == [
        START + hour * HOUR + SETTLED_AFTER_MS for hour in (1, 2)
    ]
    assert {row.coin for row in told.settlements} == {SOL}
    assert told.settlements[0].rate == pytest.approx(standin.rate(START + HOUR))
    assert len(days.good) == (standin.now - START) // HOUR


async def test_a_passing_failure_is_asked_again_and_a_lasting_one_is_told() -> None:
    passing = (Fault.SERVER_ERROR, Fault.DROPPED, Fault.TOO_MANY)
    async with asking(standin_at(5, *passing)) as (api, _, link):
        assert len((await api.candles(SOL, MINUTE, START, START + MINUTE)).candles) == 1
        assert link.counts[Trouble.RETRIED] == 3
        assert link.counts[Trouble.THROTTLED] == 1
    async with asking(standin_at(5, Fault.NOT_JSON)) as (api, _, link):
        with pytest.raises(DataError, match="is not JSON"):
            await api.candles(SOL, MINUTE, START, START + MINUTE)
        assert link.counts[Trouble.NOT_JSON] == 1
    async with asking(standin_at(5, Fault.FORBIDDEN)) as (api, _, link):
        with pytest.raises(FeedError, match=r"candles/1: status 403"):
            await api.candles(SOL, MINUTE, START, START + MINUTE)
        assert link.counts[Trouble.FAILED] == 1


async def test_the_api_answers_only_who_comes_from_its_site() -> None:
    async with asking(standin_at(5, browser=True)) as (api, _, _link):
        assert len((await api.candles(SOL, MINUTE, START, START + MINUTE)).candles) == 1
    async with asking(standin_at(5, browser=True), headers={}) as (api, _, _link):
        with pytest.raises(FeedError, match="403"):
            await api.candles(SOL, MINUTE, START, START + MINUTE)


def spoiled(change: Callable[[Any], Any]) -> StandinDlob:
    """A stand-in whose answers are changed before they are sent."""

    class Spoiled(StandinDlob):
        def _body(self, path: list[str], asked: dict[str, str]) -> Any:
            return change(super()._body(path, asked))

    return Spoiled({SOL: fills_of(walk(5))}, start_ms=START + HOUR)


async def test_a_bad_row_voids_a_live_answer_and_is_counted_in_a_history() -> None:
    def change(body: Any) -> Any:
        body["records"][1] |= {"fillHigh": 1, "baseAssetAmountFilled": 0, "oraclePriceTwap": 0}
        return body

    span = START, START + 5 * MINUTE
    async with asking(spoiled(change)) as (api, _, link):
        with pytest.raises(DataError, match="candles that cannot be used: impossible bar"):
            await api.candles(SOL, MINUTE, *span)
        assert link.counts[Trouble.IMPOSSIBLE_BAR] == 1
        history = from_candles(await api.candle_rows(SOL, MINUTE, *span), MINUTE)
        trades = from_trades(await api.trades(SOL, *span), MINUTE)
    assert history.quality.skipped == {"impossible bar": 1}
    assert (history.quality.rows_read, history.quality.rows_used) == (5, 4)
    assert trades.quality.skipped == {"bad number": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: {"success": False}, "venue error"),
        (lambda body: body["records"], "bad shape"),
        (lambda body: body | {"meta": {"nextPage": 3}}, "page 3 follows itself"),
    ],
)
async def test_a_listing_that_is_none_or_never_ends_is_one_error(
    change: Callable[[Any], Any], message: str
) -> None:
    async with asking(spoiled(change)) as (api, _, _link):
        with pytest.raises(DataError, match=message):
            await api.trades(SOL, START, START + 1)


async def test_lengths_the_api_has_not_and_an_empty_answer_are_told() -> None:
    async with asking(standin_at(5)) as (api, _, _link):
        with pytest.raises(DataError, match="no candles of 3m: it has 1m, 5m"):
            await api.candles(SOL, 3 * MINUTE, START, START + HOUR)
        nothing = await api.candle_rows(SOL, MINUTE, START - HOUR, START - MINUTE)
    with pytest.raises(DataError, match="no usable candle with a trade: it told none"):
        from_candles(nothing, MINUTE)


# -- the book server


async def test_the_book_server_tells_the_book() -> None:
    standin = standin_at(5)
    async with asking(standin) as (_, server, _link):
        told = await server.l2(SOL)
        assert (told.market, told.slot) == (0, standin.now // 400)
        assert told.bid < told.mark < told.ask
        with pytest.raises(DataError, match="has no DOGE-PERP"):
            await server.l2("DOGE-PERP")


async def test_an_answer_of_the_book_server_that_is_none_is_named() -> None:
    async with asking(spoiled(lambda body: {"bids": 1})) as (_, server, link):
        with pytest.raises(DataError, match="/l2 of SOL-PERP cannot be used: bad shape"):
            await server.l2(SOL)
        assert link.counts[Trouble.BAD_SHAPE] == 1


# -- the archive


def archived(bars: int = 2 * DAY // MINUTE, lost: tuple[str, ...] = ()) -> StandinDlob:
    fills = fills_of(walk(bars))
    standin = StandinDlob({SOL: fills}, start_ms=START + bars * MINUTE)
    hours = range(START + HOUR, START + bars * MINUTE, HOUR)
    files = record_files(SOL, fills, {at + 7_000: (at // HOUR % 100) * 1e-6 for at in hours})
    standin.files = {path: data for path, data in files.items() if path[-8:] not in lost}
    return standin


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def gather(
    standin: StandinDlob, folder: Path, record: Record = Record.TRADES, days: int = 2
) -> Gathered:
    settings = ArchiveSettings(url=standin.url, **(FAST | {"attempts_max": 2}))
    async with Archive(settings, standin.now_ms, lambda: 0.5) as archive:
        return await archive.gather(SOL, record, START, START + days * DAY, folder)


async def test_days_are_fetched_once_and_a_missing_one_is_a_gap(tmp_path: Path) -> None:
    standin = archived(DAY // MINUTE)
    async with standin.open():
        first = await gather(standin, tmp_path, days=3)
        asked = len(standin.requests)
        again = await gather(standin, tmp_path, days=3)
    assert [path.name for path in first.files] == ["20250504"]
    assert (first.fetched, first.absent) == (1, ["20250505", "20250506"])
    # what is there is not asked for again; what was not might be by now
    assert (again.fetched, len(standin.requests) - asked) == (0, 2)
    assert standin.requests[0].startswith(f"/program/{PROGRAM}/market/SOL-PERP/tradeRecords/2025/")


async def test_files_make_the_bars_of_their_fills_and_a_file_a_replay_reads(
    tmp_path: Path,
) -> None:
    standin = archived(300)
    folders = {record: tmp_path / record for record in Record}
    async with standin.open():
        for record, folder in folders.items():
            await gather(standin, folder, record, days=1)
    span = START, START + 250 * MINUTE
    history = from_files(folders[Record.TRADES], folders[Record.FUNDING], MINUTE, *span)
    assert rows(history) == played(standin.candles[SOL][:250])
    settled = select(history.events, history.events["kind"] == Kind.FUNDING)
    assert settled["ts_known"].tolist() == [START + hour * HOUR + 7_000 for hour in (1, 2, 3, 4)]
    write(history, tmp_path / "SOL-PERP.feather")
    read = read_candles(tmp_path / "SOL-PERP.feather")
    assert read.digest == history.digest
    assert read.fields == history.fields


@pytest.mark.parametrize("fault", [Fault.TOO_MANY, Fault.SERVER_ERROR, Fault.DROPPED])
async def test_a_busy_host_is_asked_again(fault: Fault, tmp_path: Path) -> None:
    standin = archived(30)
    coming = iter([fault])
    standin.request_fault = lambda: next(coming, None)
    async with standin.open():
        assert (await gather(standin, tmp_path, days=1)).fetched == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.TRUNCATED, "tradeRecords/2025/20250504: damaged"),
        (Fault.NOT_JSON, "not a file of tradeRecords"),
    ],
)
async def test_a_damaged_file_is_an_error_and_never_kept(
    fault: Fault, message: str, tmp_path: Path
) -> None:
    standin = archived()
    files = dict(standin.files)
    coming = iter([fault])
    standin.request_fault = lambda: next(coming, None)
    async with standin.open():
        settings = ArchiveSettings(url=standin.url, connections_max=1, **FAST)
        async with Archive(settings, standin.now_ms, lambda: 0.5) as archive:
            span = START, START + 2 * DAY
            with pytest.raises(DataError, match=message):
                await archive.gather(SOL, Record.TRADES, *span, tmp_path)
            # the day beside it is kept, and a second go fetches the one that failed
            assert list(kept(tmp_path)) == ["20250505"]
            assert (await archive.gather(SOL, Record.TRADES, *span, tmp_path)).fetched == 1
    assert kept(tmp_path) == {path[-8:]: data for path, data in files.items() if "trade" in path}


@pytest.mark.parametrize("record", list(Record))
async def test_a_file_with_the_header_of_another_is_an_error_and_never_kept(
    record: Record, tmp_path: Path
) -> None:
    standin = archived(300)
    (path,) = (path for path in standin.files if record in path)
    (other,) = (path for path in standin.files if record not in path)
    standin.files[path] = standin.files[other]
    async with standin.open():
        with pytest.raises(DataError, match=f"{record}/2025/20250504: not a file of {record}"):
            await gather(standin, tmp_path, record, days=1)
    assert kept(tmp_path) == {}


async def test_a_host_that_is_gone_is_asked_no_more(tmp_path: Path) -> None:
    standin = archived(30)
    standin.request_fault = lambda: Fault.SERVER_ERROR
    async with standin.open():
        settings = ArchiveSettings(
            url=standin.url, connections_max=1, **(FAST | {"attempts_max": 2})
        )
        async with Archive(settings, standin.now_ms, lambda: 0.5) as archive:
            with pytest.raises(FeedError, match=r"drift's archive does not answer .*: status 500"):
                await archive.gather(SOL, Record.TRADES, START, START + 9 * DAY, tmp_path)
    assert len(standin.requests) == 2


async def test_plain_text_and_a_packed_answer_are_kept_alike(tmp_path: Path) -> None:
    standin = archived(30)
    standin.files = {path: gzip.decompress(data) for path, data in standin.files.items()}
    async with standin.open():
        await gather(standin, tmp_path, days=1)
    assert b"fillRecordId" in (tmp_path / "20250504").read_bytes()


# -- funding beside bars


def paid(at_ms: int, rate: float, price: float) -> Settlement:
    return Settlement(SOL, at_ms, rate, price)


def test_a_settlement_is_told_when_it_was_known_and_its_rate_is_kept_to_the_bit() -> None:
    history = bars_of([Fill(1 + at, START + at * MINUTE, 1.0, 150.0) for at in range(125)])
    stamps = START + HOUR, START + 2 * HOUR + 7_000
    told = [paid(at, 0.1 / 3, 150.7) for at in stamps]
    joined = join_settlements(history, settlement_events(told))
    settled = select(joined.events, joined.events["kind"] == Kind.FUNDING)
    # a bar that closes on the very hour did not wait for what is settled then
    assert settled["ts_known"].tolist() == [stamps[0] + 1, stamps[1]]
    assert settled["rate"].tolist() == [0.1 / 3] * 2
    assert joined.quality.notes[-1] == "2 hourly funding records inside"
    assert "funding_rate" in joined.fields


def test_two_settlements_before_one_close_are_one_of_the_same_cash(tmp_path: Path) -> None:
    minutes = enumerate((0, 1, 180))
    fills = [Fill(at, START + minute * MINUTE, 1.0, 150.0) for at, minute in minutes]
    history = bars_of(fills)
    told = [paid(START + HOUR + 7_000, 2e-5, 100.0), paid(START + 2 * HOUR + 7_000, 1e-5, 200.0)]
    joined = join_settlements(history, settlement_events(told))
    settled = select(joined.events, joined.events["kind"] == Kind.FUNDING)
    assert settled["ts_known"].tolist() == [START + 2 * HOUR + 7_000]
    assert joined.quality.notes[-1] == "1 of them joined with the next: no bar closed between"
    cash = settled["rate"] * settled["settle_price"]
    assert cash == pytest.approx([2e-5 * 100 + 1e-5 * 200])
    assert settled["interval_hours"].tolist() == [2]
    assert np.isfinite(joined.events["funding_rate"][joined.events["kind"] == Kind.QUOTE]).all()
    write(joined, tmp_path / "x.csv")
    assert read_candles(tmp_path / "x.csv").digest == joined.digest


def test_funding_outside_the_bars_is_left_out_and_said() -> None:
    history = bars_of([Fill(1, START, 1.0, 150.0)])
    late = settlement_events([paid(START + HOUR, 1e-5, 150.0)])
    joined = join_settlements(history, late)
    assert joined.quality.notes == ("no funding records inside",)
    assert rows(joined) == rows(history)


def bars_of(fills: list[Fill]) -> History:
    told = [Trade(0, fill.record, fill.time_ms, fill.price, fill.base) for fill in fills]
    return from_trades(Rows(list(told), Counter()), MINUTE)
