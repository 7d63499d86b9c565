"""The synthetic sample: seeded, shaped like a market, and whole through every file format."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from candle_files import MINUTE, START, bars_at
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError
from core.events import make_events
from core.model import Kind, Records
from markets.candles import read_candles
from markets.export import write
from markets.history import Floats, History, Quality, assemble, make_bars, make_funding, select
from markets.synthetic import START_MS, binary_sample, sample


@pytest.fixture(scope="module")
def sol() -> History:
    return sample()["SOL-PERP"]


def quotes_of(history: History) -> Records:
    return select(history.events, history.events["kind"] == Kind.QUOTE)


def returns_of(history: History) -> Floats:
    return np.asarray(np.diff(np.log(history.bars["close"])))


def test_the_seed_decides_everything() -> None:
    first, again, other = (sample(seed, 500)["SOL-PERP"].digest for seed in (7, 7, 8))
    assert first == again != other


def test_a_symbol_does_not_depend_on_the_others() -> None:
    alone = sample(bars=500, symbols=["SOL-PERP"])["SOL-PERP"]
    assert alone.digest == sample(bars=500)["SOL-PERP"].digest


def test_twenty_thousand_bars_take_less_than_a_second() -> None:
    started = time.perf_counter()
    sample(bars=20_000)
    assert time.perf_counter() - started < 1.0


def test_volatility_clusters_and_tails_are_fat(sol: History) -> None:
    size = np.abs(returns_of(sol))
    assert np.corrcoef(size[20:], size[:-20])[0, 1] > 0.05
    assert np.mean(size**4) / np.mean(size**2) ** 2 > 5


def test_volume_rises_with_movement_and_spread_with_volatility(sol: History) -> None:
    size, quotes = np.abs(returns_of(sol)), quotes_of(sol)
    assert np.corrcoef(np.log(sol.bars["volume"][1:]), size)[0, 1] > 0.3
    spread = (quotes["ask"] - quotes["bid"]) / quotes["mark"]
    assert np.corrcoef(spread[1:], size)[0, 1] > 0.1


def test_the_book_leans_a_little_before_the_price_moves(sol: History) -> None:
    quotes = quotes_of(sol)
    total = quotes["bid_depth"] + quotes["ask_depth"]
    lean = (quotes["bid_depth"] - quotes["ask_depth"]) / total
    assert 0.02 < np.corrcoef(lean[:-1], returns_of(sol))[0, 1] < 0.2


def test_the_premium_strays_and_comes_back(sol: History) -> None:
    quotes = quotes_of(sol)
    premium = quotes["mark"] / quotes["oracle"] - 1
    assert np.abs(premium).max() > 15e-4
    assert abs(premium.mean()) < 2e-4
    assert np.corrcoef(premium[:-1], np.diff(premium))[0, 1] < -0.05


def test_funding_settles_on_every_hour_and_reveals_its_rate(sol: History) -> None:
    settled = select(sol.events, sol.events["kind"] == Kind.FUNDING)
    assert (settled["ts_known"] % (60 * MINUTE) == 0).all()
    assert len(settled) == 20_000 // 60
    rates = quotes_of(sol)["funding_rate"]
    assert rates[np.isfinite(rates)].tolist() == settled["rate"].tolist()


def test_symbols_move_together() -> None:
    one, two = (returns_of(history) for history in sample(bars=5_000).values())
    assert 0.3 < np.corrcoef(one, two)[0, 1] < 0.8


@pytest.mark.parametrize("interval_ms", [MINUTE, 7 * MINUTE, 240 * MINUTE])
def test_every_bar_and_quote_is_possible(interval_ms: int) -> None:
    history = sample(bars=800, interval_ms=interval_ms, symbols=["X"])["X"]
    bars, quotes = history.bars, quotes_of(history)
    assert (bars["low"] <= np.minimum(bars["open"], bars["close"])).all()
    assert (bars["high"] >= np.maximum(bars["open"], bars["close"])).all()
    assert (bars["low"] > 0).all()
    assert (quotes["bid"] < quotes["ask"]).all()
    assert bars["ts_event"][0] == START_MS


def test_a_binary_ends_at_its_resolution_and_stays_inside_the_cent() -> None:
    for history in binary_sample(markets=20).values():
        last = select(history.events, history.events["kind"] == Kind.RESOLUTION)
        assert last["ts_known"].tolist() == [history.quality.last_ms]
        assert last["value"][0] in (0.0, 1.0)
        assert history.bars["low"].min() >= 0.01
        assert history.bars["high"].max() <= 0.99
        assert history.fields >= {"probability", "hours_left", "bid"}


def test_forecasts_know_more_than_the_price() -> None:
    errors = []
    for history in binary_sample(markets=200, bars=80).values():
        kinds, events = history.events["kind"], history.events
        value = events["value"][kinds == Kind.RESOLUTION][0]
        forecast = events["probability"][kinds == Kind.FORECAST][50]
        errors.append(((forecast - value) ** 2, (history.bars["close"][50] - value) ** 2))
    forecast_score, market_score = np.mean(errors, axis=0)
    assert forecast_score < market_score < 0.25


@pytest.mark.parametrize("suffix", ["feather", "parquet", "csv", "csv.gz"])
def test_what_is_written_reads_back_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    for name, history in (sample(bars=300) | binary_sample(bars=50)).items():
        path = tmp_path / f"{name}.{suffix}"
        write(history, path)
        read = read_candles(path)
        assert read.digest == history.digest
        assert read.fields == history.fields


PRICE = st.floats(1e-6, 1e9)
CELL = st.one_of(st.just(np.nan), PRICE)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(PRICE, PRICE, CELL, CELL), min_size=2, max_size=20),
    st.sampled_from(["csv", "feather"]),
)
def test_any_prices_survive_a_file(
    rows: list[tuple[float, float, float, float]], suffix: str
) -> None:
    first, last, mark, depth = np.array(rows).T
    opens = START + MINUTE * np.arange(len(rows))
    prices = {"open": first, "close": last, "volume": last}
    spans = {"high": np.maximum(first, last), "low": np.minimum(first, last)}
    there = ~(np.isnan(mark) & np.isnan(depth))
    known = opens[there] + MINUTE
    quotes = make_events(Kind.QUOTE, known, mark=mark[there], bid_depth=depth[there])
    history = assemble([quotes, make_bars(opens, MINUTE, **prices, **spans)], MINUTE, Quality())
    with TemporaryDirectory() as folder:
        write(history, f"{folder}/x.{suffix}")
        assert read_candles(f"{folder}/x.{suffix}").digest == history.digest


def test_an_event_off_the_closes_is_refused_and_one_on_them_is_written(tmp_path: Path) -> None:
    history = bars_at([0, 1])
    write(history, tmp_path / "x.csv")
    stray = make_events(Kind.QUOTE, [START + 5], mark=[1.0])
    settled = make_events(Kind.FUNDING, [START + 5], rate=[0.1])
    for beside in ([], [settled]):
        events = assemble([history.events, stray, *beside], MINUTE, Quality())
        with pytest.raises(DataError, match=r"a QUOTE at .* falls on no bar's close"):
            write(events, tmp_path / "y.csv")


@pytest.mark.parametrize("suffix", ["csv", "feather"])
def test_a_settlement_between_two_closes_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    stamps = START + np.array([5, 2 * MINUTE, 4 * MINUTE - 1])
    rate = np.array([0.1 / 3, -0.2, 0.3])
    settled = make_funding(stamps, rate, 1.0, np.array([np.nan, 7.5, 9.25]))
    oracle = make_events(Kind.QUOTE, START + MINUTE * np.array([1, 4]), oracle=[7.0, 8.0])
    path = tmp_path / f"x.{suffix}"
    write(assemble([bars_at([0, 1, 3]).events, settled, oracle], MINUTE, Quality()), path)
    read = read_candles(path)
    told = select(read.events, read.events["kind"] == Kind.FUNDING)
    assert told["ts_known"].tolist() == stamps.tolist()
    assert told["rate"].tolist() == rate.tolist()
    quotes = select(read.events, read.events["kind"] == Kind.QUOTE)
    revealed = select(quotes, ~np.isnan(quotes["funding_rate"]))
    assert revealed["ts_known"].tolist() == stamps.tolist()
    assert quotes["oracle"][~np.isnan(quotes["oracle"])].tolist() == [7.0, 8.0]


@pytest.mark.parametrize("stamps", [(MINUTE, MINUTE), (5, MINUTE)])
def test_two_settlements_of_one_bar_are_refused(stamps: tuple[int, int], tmp_path: Path) -> None:
    twice = make_events(Kind.FUNDING, [START + at for at in stamps], rate=[0.1, 0.1])
    with pytest.raises(DataError, match="two events of kind FUNDING"):
        write(assemble([bars_at([0]).events, twice], MINUTE, Quality()), tmp_path / "x.csv")


@pytest.mark.parametrize("at_ms", [0, MINUTE + 1])
def test_a_settlement_outside_all_bars_is_refused(at_ms: int, tmp_path: Path) -> None:
    stray = make_events(Kind.FUNDING, [START + at_ms], rate=[0.1])
    with pytest.raises(DataError, match=r"a FUNDING at .* falls on no bar's close"):
        write(assemble([bars_at([0]).events, stray], MINUTE, Quality()), tmp_path / "x.csv")


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"write to \.feather"):
        write(bars_at([0]), tmp_path / "x.txt")
