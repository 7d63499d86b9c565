"""The report as one PNG of 1200 by 800, for chats and for terminals that show pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from backtest.breakdown import Breakdown
from backtest.report.palette import AMBER, BLUE, GREY, LOSS, band
from backtest.report.series import (
    Line,
    bars_of,
    busiest,
    equity_line,
    exposure_line,
    price_line,
    regime_spans,
    thinned,
)
from backtest.report.texts import amount, instant, percent, plain, ratio
from backtest.run import Run
from backtest.statistics import drawdowns, span, summary
from strategies.regimes import Regime

WIDTH_PX, HEIGHT_PX, DPI = 1200, 800, 100
TITLE_LENGTH_MAX = 70


def write_png(run: Run, path: Path | str) -> Path:
    """Write equity, drawdown, price and exposure to ``path``, a PNG; answers the path."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # names from data are not mathematics: a "$" is a dollar
    with rc_context({"text.parse_math": False, "font.size": 10}):
        figure = _figure(run)
        FigureCanvasAgg(figure)
        figure.savefig(path, format="png")
    return path


def _figure(run: Run) -> Any:
    from matplotlib.figure import Figure

    parts = Breakdown(run)
    figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, facecolor="white")
    grid = {"height_ratios": [3, 1.1, 2, 0.9]}
    equity, fall, price, exposure = figure.subplots(4, 1, sharex=True, gridspec_kw=grid)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.845, bottom=0.06, hspace=0.2)
    _title(figure, run)
    _step(equity, equity_line(run), "equity", BLUE)
    equity.axhline(run.equity_start, color=GREY, linewidth=0.8, linestyle=":")
    lost = thinned(run.block["ts_known"], -drawdowns(run))
    _step(fall, lost, "drawdown", LOSS, fill=True)
    _price(price, parts)
    _step(exposure, exposure_line(run), "exposure", AMBER, fill=True)
    for axes in (fall, exposure):
        axes.yaxis.set_major_formatter(lambda y, _: f"{plain(round(y * 100, 6))}%")
    equity.yaxis.set_major_formatter(lambda y, _: amount(y).removesuffix(".00"))
    _time_axis(exposure, run)
    return figure


def _title(figure: Any, run: Run) -> None:
    s, (start_ms, end_ms) = summary(run), span(run)
    names = ", ".join(dict.fromkeys(book.strategy for book in run.books))
    title = f"{names} on {', '.join(run.instruments)}"
    if len(title) > TITLE_LENGTH_MAX:
        title = title[: TITLE_LENGTH_MAX - 1] + "…"
    figures = (
        f"return {percent(s['return'], 2, plus=True)}   "
        f"max drawdown {percent(s['max_drawdown'], 2)}   Sharpe {ratio(s['sharpe'])}   "
        f"trades {s['trades']:,}   won {percent(s['win_rate'])}   "
        f"profit factor {ratio(s['profit_factor'])}"
    )
    period = f"{instant(start_ms)} to {instant(end_ms)} UTC   run {run.run_id}"
    figure.text(0.015, 0.962, title, fontsize=17, fontweight="bold", va="center")
    figure.text(0.015, 0.922, figures, fontsize=12, va="center")
    figure.text(0.015, 0.890, period, fontsize=10, color="#5d6878", va="center")
    if not run.costs_on:
        figure.text(
            0.985, 0.962, "COSTS OFF", fontsize=13, fontweight="bold", color="white", ha="right",
            va="center", bbox={"facecolor": LOSS, "edgecolor": "none", "boxstyle": "round,pad=0.4"},
        )  # fmt: skip


def _dress(axes: Any, label: str) -> None:
    axes.grid(color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c4cad4")
    axes.tick_params(colors="#5d6878", labelsize=9)
    axes.set_title(label, loc="left", fontsize=10, color="#1b2330", pad=3)
    axes.margins(x=0)


def _times(ts: Any) -> Any:
    return np.asarray(ts).astype("datetime64[ms]")


def _step(axes: Any, line: Line, label: str, colour: str, *, fill: bool = False) -> None:
    _dress(axes, label)
    times = _times(line.ts)
    marker = "o" if len(line.ts) and line.ts[0] == line.ts[-1] else None
    axes.step(times, line.values, where="post", color=colour, linewidth=1.3, marker=marker)
    if fill:
        axes.fill_between(times, line.values, 0, step="post", color=colour, alpha=0.18, linewidth=0)
    axes.locator_params(axis="y", nbins=6 if not fill else 3)


def _price(axes: Any, parts: Breakdown) -> None:
    """The instrument traded most, over the regimes it was in."""
    instrument = busiest(parts, 1)[0]
    bars = bars_of(parts, instrument)
    count = len(parts.run.instruments)
    named = parts.run.instruments[instrument]
    _dress(axes, named if count == 1 else f"{named}, the busiest of {count} instruments")
    edges, codes = regime_spans(bars)
    tints = {regime: _tint(regime) for regime in Regime}
    for start, end, code in zip(_times(edges[:-1]), _times(edges[1:]), codes.tolist(), strict=True):
        colour, alpha = tints[Regime(code)]
        axes.axvspan(start, end, facecolor=colour, alpha=alpha, linewidth=0)
    line = price_line(bars)
    marker = "o" if len(line.ts) and line.ts[0] == line.ts[-1] else None
    axes.yaxis.set_major_formatter(lambda y, _: plain(y))
    axes.plot(_times(line.ts), line.values, color="#39424f", linewidth=0.9, marker=marker)
    axes.locator_params(axis="y", nbins=5)


def _tint(regime: Regime) -> tuple[str, float]:
    red, green, blue, alpha = band(regime)[5:-1].split(",")
    return f"#{int(red):02x}{int(green):02x}{int(blue):02x}", float(alpha)


def _time_axis(axes: Any, run: Run) -> None:
    from matplotlib import dates

    start_ms, end_ms = span(run)
    if end_ms <= start_ms:
        return
    # matplotlib's dates are untyped
    locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
    formatter: Any = dates.ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlim(*_times([start_ms, end_ms]))
