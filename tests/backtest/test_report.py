"""The page, the picture and the line: complete, self-contained, escaped, and never empty-handed."""

import json
import re
import struct
from dataclasses import replace as changed
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as draw
from worlds import FREE, NO_LIMITS, SCRIPT, one_book, play, scripted

from backtest.assemble import BookSetup, Setup
from backtest.breakdown import Breakdown
from backtest.replay import replay
from backtest.report import sparkline, write_png, write_report
from backtest.report.series import (
    POINTS_MAX,
    SPANS_MAX,
    Bars,
    bars_of,
    extremes,
    price_line,
    regime_spans,
    trades_of,
)
from backtest.report.texts import RULES, amount, lasted, percent, plain, rule_text
from backtest.run import Run
from core.engine import Book
from core.events import make_events
from core.instrument import Instrument, binary
from core.model import Kind
from markets.synthetic import binary_sample, sample
from risk.gate import Rule
from risk.limits import Limits, Sizing, SizingRule
from strategies.trend import TREND

SECTIONS = {
    *("figures", "caveats", "chart", "costs", "daily", "instruments", "regimes", "exits", "months"),
    *("days", "parameters", "refused", "quality", "provenance"),
}
NASTY = '<script>alert("x")</script>&\u2028$'


class Tags(HTMLParser):
    """Collects every tag, and every text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._raw = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.texts.append(data)


def trend_run(bars: int = 3_000) -> Run:
    """Two perpetuals under a trend strategy, refused now and then."""
    histories = sample(bars=bars)
    books = [
        BookSetup(
            book=Book(name=f"trend {k}", strategy=TREND, instrument=symbol, params={"fast": 5 + k}),
            sizing=Sizing(rule=SizingRule.NOTIONAL, value=3_000.0),
            limits=Limits(cooldown_ms=120_000),
        )
        for k, symbol in enumerate([*histories, *histories])
    ]
    terms = tuple(Instrument(name=symbol, tick=0.001, lot=1e-4) for symbol in histories)
    return replay(Setup(instruments=terms, books=tuple(books)), histories, seed=7)


def binary_run(markets: int = 3) -> Run:
    histories = binary_sample(bars=120, markets=markets)
    books = [
        BookSetup(
            book=Book(name=name, strategy=TREND, instrument=name, params={"fast": 5}, offset=0.05),
            sizing=Sizing(rule=SizingRule.NOTIONAL, value=200.0),
        )
        for name in histories
    ]
    terms = tuple(binary(name) for name in histories)
    return replay(Setup(instruments=terms, books=tuple(books)), histories)


def quiet_run(bars: int) -> Run:
    return play(scripted([0] * bars, [100.0] * bars, [100.0] * bars), one_book(SCRIPT))


@pytest.fixture(scope="module")
def traded() -> Run:
    return trend_run()


def written(run: Run, folder: Path) -> str:
    return write_report(run, folder / "deep" / "report.html").read_text("utf-8")


def specs(text: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" data-chart="(.+?)">(.*?)</script>', text)
    return {name: json.loads(told) for name, told in found}


RUNS = {
    "trades": trend_run,
    "binaries": binary_run,
    "many instruments": lambda: binary_run(9),
    "no trades": lambda: quiet_run(30),
    "one bar": lambda: quiet_run(1),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_run_gets_a_whole_page_a_picture_and_a_line(name: str, tmp_path: Path) -> None:
    run = RUNS[name]()
    text = written(run, tmp_path)
    ids = {attributes.get("id") for _, attributes in Tags(text).tags}
    optional = {"daily"} if not len(run.trades) else set()
    assert SECTIONS - optional <= ids
    for spec in specs(text).values():
        go.Figure(spec)
    assert len(sparkline(run)) == 72
    assert png_size(write_png(run, tmp_path / "equity.png")) == (1200, 800)


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_the_page_loads_nothing_from_anywhere(traded: Run, tmp_path: Path) -> None:
    text = written(traded, tmp_path)
    for tag, attributes in Tags(text).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        assert not {"src", "href", "srcset"} & set(attributes), (tag, attributes)
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert len(styles) == 1
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]
    assert not re.search(r"cdn\.plot\.ly|MathJax\.js", "".join(specs(text)))


def test_every_text_from_data_is_escaped(tmp_path: Path) -> None:
    terms = {**FREE, "name": NASTY}
    book = Book(name=NASTY, strategy=changed(SCRIPT, name=NASTY), instrument=NASTY)
    sizing = Sizing(rule=SizingRule.QUANTITY, value=1.0)
    setup = Setup(
        instruments=(Instrument(**terms),),
        books=(BookSetup(book=book, sizing=sizing, limits=NO_LIMITS),),
        limits=NO_LIMITS,
    )
    prices = [100.0, 101.0, 102.0, 103.0]
    run = replay(setup, {NASTY: scripted([1, 0, 1, 1], prices, prices)})
    text = written(run, tmp_path)
    assert "<script>alert" not in text
    assert "\\u003cscript>alert" not in text
    for told in re.findall(r'data-chart=".+?">(.*?)</script>', text):
        # a "<" in a specification could end the script that carries it
        assert "<" not in told
    assert NASTY in "".join(Tags(text).texts)
    write_png(run, tmp_path / "nasty.png")


def test_the_page_tells_caveats_before_charts(traded: Run, tmp_path: Path) -> None:
    text = written(traded, tmp_path)
    assert text.index('id="caveats"') < text.index('id="chart"')
    assert "synthetic" in "".join(Tags(text).texts)


def test_costs_that_are_off_are_shouted(tmp_path: Path) -> None:
    shouted = written(quiet_run(5), tmp_path)
    assert 'class="badge"' in shouted
    assert 'class="caveats grave"' in shouted
    assert 'class="badge"' not in written(trend_run(300), tmp_path)


def test_tables_show_the_figures_of_the_run(traded: Run, tmp_path: Path) -> None:
    shown = "\n".join(Tags(written(traded, tmp_path)).texts)
    total = Breakdown(traded).totals
    assert f"{total.trades:,}" in shown
    for micros in (total.fees_micros, total.spread_micros, total.net_micros):
        assert amount(abs(micros) / 1e6) in shown
    assert traded.run_id in shown
    assert traded.decisions_hash in shown
    assert "too soon after the last exit" in shown


def test_settings_read_back_from_json_give_the_same_page(traded: Run, tmp_path: Path) -> None:
    again = changed(traded, setup=json.loads(json.dumps(traded.setup, default=int)))
    assert written(again, tmp_path / "a") == written(traded, tmp_path / "b")


def test_no_trace_has_more_points_than_a_screen_can_show(tmp_path: Path) -> None:
    text = written(trend_run(20_000), tmp_path)
    for spec in specs(text).values():
        for trace in spec["data"]:
            assert len(trace["x"]) <= POINTS_MAX, trace["name"]


def test_hovering_over_an_exit_tells_what_happened(traded: Run, tmp_path: Path) -> None:
    told = [
        text
        for trace in specs(written(traded, tmp_path))["market"]["data"]
        if trace.get("name", "").startswith("exit")
        for text in trace["text"]
    ]
    assert len(told) == len(traded.trades)
    assert all(" UTC, held " in text and "→" in text for text in told)
    assert any("exit: signal, fast above slow" in text for text in told)


@settings(max_examples=60, deadline=None)
@given(draw.lists(draw.floats(-1e6, 1e6), min_size=1, max_size=400), draw.integers(4, 50))
def test_thinning_keeps_the_ends_and_the_extremes(values: list[float], points: int) -> None:
    series = np.array(values)
    at = extremes(series, points)
    assert len(at) <= max(points, 4)
    assert (np.diff(at) > 0).all()
    assert at[0] == 0
    assert at[-1] == len(series) - 1
    assert series[at].max() == series.max()
    assert series[at].min() == series.min()


def made_up(length: int, seed: int = 1) -> Bars:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, length)))
    ts = 60_000 * np.arange(1, length + 1)
    regime = rng.integers(1, 4, length)
    return Bars(ts, np.r_[100.0, close[:-1]], close * 1.01, close * 0.99, close, regime)


def test_a_thinned_price_keeps_its_highest_high_and_lowest_low() -> None:
    bars = made_up(50_001)
    line = price_line(bars)
    assert len(line.ts) <= POINTS_MAX
    assert (np.diff(line.ts) >= 0).all()
    assert (line.values.max(), line.values.min()) == (bars.high.max(), bars.low.min())


def test_regime_spans_join_and_cover_the_bars(traded: Run) -> None:
    bars = bars_of(Breakdown(traded), 0)
    edges, codes = regime_spans(bars)
    assert (codes[1:] != codes[:-1]).all()
    assert (edges[0], edges[-1]) == (bars.ts[0], bars.ts[-1])
    shown = codes[np.searchsorted(edges, bars.ts, side="right").clip(max=len(codes)) - 1]
    np.testing.assert_array_equal(shown[:-1], bars.regime[:-1])


def test_regimes_that_flicker_are_told_by_majority() -> None:
    edges, codes = regime_spans(made_up(30_000))
    assert len(codes) <= SPANS_MAX
    assert len(edges) == len(codes) + 1
    assert (np.diff(edges) > 0).all()


def test_of_many_trades_those_that_moved_most_and_open_ones_are_drawn() -> None:
    closes = [100.0, 101.0, 102.0, 90.0, 90.0, 91.0, 91.0]
    history = scripted([1, 0, 1, 0, 1, 1, 1], [100.0, *closes[:-1]], closes)
    parts = Breakdown(play(history, one_book(SCRIPT)))
    trades, count = trades_of(parts, 0, most=2)
    assert count == 3
    assert [trade.net for trade in trades] == [-12.0, 1.0]
    assert [trade.exit for trade in trades] == ["signal", "still open"]


def test_the_sparkline_goes_with_equity() -> None:
    closes = [100.0 + k for k in range(8)]
    targets = [1] * 8
    run = play(scripted(targets, [100.0, *closes[:-1]], closes), one_book(SCRIPT))
    assert sparkline(run, 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(quiet_run(5), 4) == "▁▁▁▁"
    assert sparkline(run, 0) == ""


def test_numbers_are_written_for_people() -> None:
    assert amount(-1234.5) == "−1,234.50"
    assert amount(-0.001, plus=True) == "0.00"
    assert amount(2_500_000.4, plus=True) == "+2,500,000"
    assert percent(None) == "–"
    assert percent(-0.1234) == "−12.3%"
    assert (plain(0.05), plain(120_000.0), plain(True), plain("")) == (
        "0.05",
        "120,000",
        "True",
        "–",
    )
    assert (lasted(90 * 60_000), lasted(0), lasted(49 * 3_600_000)) == (
        "1 h 30 min",
        "0 min",
        "2 d 1 h",
    )


def test_every_rule_of_the_gate_is_explained() -> None:
    assert set(RULES) == set(Rule) - {Rule.NONE}
    assert rule_text("stale_data") == "the last bar was too old"
    assert rule_text("some_new_rule") == "some new rule"


def test_settlement_is_an_exit_of_binaries(tmp_path: Path) -> None:
    run = binary_run()
    assert "settlement" in {row.name for row in Breakdown(run).by_exit}
    market = specs(written(run, tmp_path))["market"]
    assert market["layout"]["yaxis2"]["range"] == [-0.04, 1.04]


def test_events_without_bars_make_a_page(tmp_path: Path) -> None:
    quotes = make_events(Kind.QUOTE, [1_746_316_800_000], mark=[1.0])
    run = quiet_run(1)
    bare = changed(run, block=quotes, track=run.track[:1], outcomes=run.outcomes[:0])
    assert 'id="provenance"' in written(bare, tmp_path)
