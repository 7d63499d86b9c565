"""A walk forward: nothing it does in a window depends on what came after, and it trades nowhere
else."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from worlds import MINUTE, SCRIPT, START, bar_history, scripted, subject, walk

from backtest.report.walk_forward import curve, parameters, scatter, write_walk
from backtest.statistics import daily_returns
from backtest.stretches import best_of, within
from backtest.sweep.rows import Row, rank_key
from backtest.sweep.space import Point
from backtest.sweep.sweep import Subject, Sweep
from backtest.walk_forward import (
    Cut,
    Terms,
    Walk,
    cuts_of,
    fits_here,
    fitted_on,
)
from backtest.walk_forward import walk as walk_on
from core.errors import ConfigError, DataError, UnknownName
from core.model import Kind, Result
from markets.history import crop

HOUR = 60 * MINUTE
TERMS = Terms(train_ms=24 * HOUR, test_ms=12 * HOUR, metric="return")
POINTS: list[Point] = [{"fast": f, "slow": s} for f in (5.0, 10.0, 20.0) for s in (40.0, 80.0)]
BARS = 60 * 24 * 4


def rows_of(seen: Subject) -> list[Row]:
    return list(Sweep(seen, threads=1).run(POINTS))


def walked(whole: Subject, terms: Terms = TERMS) -> Walk:
    cuts = cuts_of(whole, terms)
    return walk_on(whole, terms, cuts, fits_here(whole, terms, cuts, rows_of))


@cache
def usual() -> Walk:
    return walked(subject(walk(BARS)))


def test_a_window_knows_nothing_of_what_follows_it() -> None:
    whole, full = walk(BARS), usual()
    assert len(full.windows) == 6
    for count in (1, 3):
        end = full.windows[count - 1].cut.end_ms
        shorter = walked(subject(crop(whole, None, end)))
        assert [w.plain() for w in shorter.windows] == [w.plain() for w in full.windows[:count]]
        events = whole.events.copy()
        later = events["ts_known"] > end
        for price in ("open", "high", "low", "close"):
            events[price][later] *= 1.5
        other = walked(subject(replace(whole, events=events)))
        assert [w.plain() for w in other.windows[:count]] == [
            w.plain() for w in full.windows[:count]
        ]
        assert other.decisions_hash != full.decisions_hash


def test_a_fit_is_a_sweep_over_its_training_and_the_best_of_it() -> None:
    whole = subject(walk(BARS))
    for window in usual().windows:
        cut = window.cut
        assert cut.train_end_ms < cut.begin_ms == cut.train_begin_ms + TERMS.train_ms
        seen = fitted_on(whole, cut, TERMS)
        assert int(seen.histories["X"].events["ts_known"].max()) == cut.train_end_ms
        assert window.fit == min(rows_of(seen), key=rank_key("return"))


def test_it_trades_in_its_windows_only_and_is_flat_between_them() -> None:
    equity = 10_000.0
    for window in usual().windows:
        run, cut = window.run, window.cut
        fills = run.of(Result.FILL)
        assert len(fills) > 2
        assert fills["ts"].min() > cut.begin_ms
        assert fills["ts"].max() <= cut.end_ms
        assert window.flat
        assert run.equity_start == equity
        equity = float(run.equity[-1])
    stitched = usual().stitched
    assert float(stitched.equity[-1]) == equity
    assert len(daily_returns(stitched)) == len(usual().row.daily_micros) == 3
    bars = stitched.block[stitched.block["kind"] == Kind.BAR]
    assert len(bars) == len(np.unique(bars["ts_known"])) == 60 * 12 * 6


def one_cut(bars: int) -> Cut:
    return Cut(
        train_begin_ms=START,
        train_end_ms=START + 9 * MINUTE,
        begin_ms=START + 10 * MINUTE,
        end_ms=START + bars * MINUTE,
    )


def always_long(bars: int) -> Subject:
    prices = [100.0] * bars
    return subject(scripted([1.0] * bars, prices, prices), strategy=SCRIPT)


def test_what_was_wanted_before_the_window_is_bought_at_its_first_open() -> None:
    whole, fit = always_long(30), Row(place=0, params={}, metrics={"return": 0.0})
    done = walk_on(whole, TERMS, [one_cut(30)], [fit])
    fills = done.windows[0].run.of(Result.FILL)
    minutes = ((fills["ts"] - START) // MINUTE).tolist()
    assert minutes == [11, 30]  # stamped when their bars were known: the first, and the last
    assert fills["quantity"].tolist() == [1.0, -1.0]


def test_without_a_defined_figure_nothing_is_traded() -> None:
    rows = [Row(place=k, params={}, metrics={"return": None}) for k in range(3)]
    assert best_of(rows, "return") is None
    assert best_of([], "return") is None
    done = walk_on(always_long(30), TERMS, [one_cut(30)], [None])
    (window,) = done.windows
    assert len(window.run.of(Result.FILL)) == 0
    assert (window.figures["return"], window.plain()["params"]) == (0.0, None)


def test_equals_are_told_apart_by_their_place() -> None:
    rows = [Row(place=k, params={"k": float(k)}, metrics={"return": 1.0}) for k in (2, 0, 1)]
    best = best_of(rows, "return")
    assert best is not None
    assert best.place == 0


def test_a_walk_ends_when_its_equity_is_gone() -> None:
    prices = [1e6] * 15 + [1.0] * 25
    terms = {"leverage": 100.0, "maintenance": 0.0, "fee_rate": 0.0, "slippage_bps": 0.0}
    whole = subject(scripted([1.0] * 40, prices, prices), strategy=SCRIPT, **terms)
    first = replace(one_cut(20), end_ms=START + 25 * MINUTE)
    fit = Row(place=0, params={}, metrics={"return": 0.0})
    second = replace(one_cut(40), begin_ms=START + 25 * MINUTE)
    done = walk_on(whole, TERMS, [first, second], [fit, fit])
    assert (done.ruined, len(done.windows)) == (True, 1)
    assert not usual().ruined


def test_purge_and_embargo_end_the_training_earlier() -> None:
    whole = subject(walk(BARS))
    plain = cuts_of(whole, TERMS)
    for terms, gap in (
        ({"embargo_ms": 2 * HOUR}, 2 * HOUR),
        ({"purge_ms": HOUR}, HOUR),
        ({"purge_ms": HOUR, "embargo_ms": 2 * HOUR}, 3 * HOUR),
    ):
        for before, cut in zip(plain, cuts_of(whole, replace(TERMS, **terms)), strict=True):
            assert before.train_end_ms - cut.train_end_ms == gap
            assert before.begin_ms == cut.begin_ms
    anchored = cuts_of(whole, replace(TERMS, anchored=True))
    assert {cut.train_begin_ms for cut in anchored} == {START}
    assert [cut.begin_ms for cut in anchored] == [cut.begin_ms for cut in plain]
    with pytest.raises(ConfigError, match="no window has bars both to fit on"):
        cuts_of(whole, replace(TERMS, embargo_ms=200 * HOUR))
    with pytest.raises(ConfigError, match="shorter than the first training"):
        cuts_of(whole, replace(TERMS, train_ms=2_000 * HOUR))


def test_what_is_held_out_is_never_fitted_on_and_alone_is_traded() -> None:
    whole = subject(walk(BARS, 1), walk(BARS, 2), walk(BARS, 3))
    terms = replace(TERMS, held_out=("Y",))
    done = walked(whole, terms)
    cut = done.windows[0].cut
    assert set(fitted_on(whole, cut, terms).histories) == {"X", "Z"}
    assert {window.run.instruments for window in done.windows} == {("Y",)}
    alike = subject(walk(BARS, 1), walk(BARS, 9), walk(BARS, 3))
    fits = [window.fit for window in walked(alike, terms).windows]
    assert fits == [window.fit for window in done.windows]
    with pytest.raises(UnknownName, match="instrument to hold out"):
        cuts_of(whole, replace(TERMS, held_out=("W",)))
    with pytest.raises(ConfigError, match="leaves none to fit on"):
        cuts_of(whole, replace(TERMS, held_out=("X", "Y", "Z")))


def test_an_instrument_without_bars_in_a_stretch_is_left_out_of_it() -> None:
    young = walk(60 * 24, 2)
    late = bar_history(young.bars["open"], young.bars["close"], start=START + 3 * 24 * HOUR)
    whole = subject(walk(BARS, 1), late)
    done = walked(whole)
    assert [len(window.run.instruments) for window in done.windows] == [1, 1, 1, 1, 2, 2]
    with pytest.raises(DataError, match="no bar between"):
        within(whole, START, START + 24 * HOUR, ["Y"])


def test_the_page_shows_the_walk_and_loads_nothing(tmp_path: Path) -> None:
    from plotly.graph_objects import Figure

    path = write_walk(tmp_path / "deep" / "walk.html", usual())
    page = path.read_text("utf-8")
    for name in ("equity", "parameters-drawn"):
        assert f'data-chart="{name}"' in page
    assert page.count("fast=") == len(usual().windows)
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', page)
    for spec in (curve(usual()), parameters(usual().windows), scatter(usual())):
        Figure(spec)
    unfit = walk_on(always_long(30), TERMS, [one_cut(30)], [None])
    assert 'data-chart="parameters-drawn"' not in write_walk(path, unfit).read_text("utf-8")
