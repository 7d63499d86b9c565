"""Charts of a run as plain plotly specifications: data and layout, nothing drawn yet.

They are plain dictionaries because building plotly's own objects costs a second of imports and
checks at every report; a test builds them once to prove that each is valid.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest.breakdown import Breakdown, Row
from backtest.report.palette import AMBER, BLUE, GREY, GRID, LOSS, VIOLET, band, faded, signed
from backtest.report.series import (
    CANDLES_MAX,
    Bars,
    Line,
    Trade,
    bars_of,
    busiest,
    equity_line,
    exposure_line,
    price_line,
    regime_spans,
    thinned,
    trades_of,
)
from backtest.report.texts import amount, escape, instant, lasted, money, plain
from backtest.statistics import drawdowns, span
from core.model import MICROS_PER_UNIT, InstrumentKind
from strategies.regimes import Regime

Spec = dict[str, Any]

PANELS_MAX = 6
"""Price charts on one page: the instruments traded most."""

PRICE_PX, EQUITY_PX, SMALL_PX = 330, 190, 110
GAP_PX, TOP_PX, BOTTOM_PX = 40, 44, 70
LEGEND = {
    "orientation": "h",
    "x": 0,
    "yref": "container",
    "y": 0,
    "yanchor": "bottom",
    "itemsizing": "constant",
}
"""Below everything: above, it would meet the first title on a narrow screen."""
DAYS_MAX = 4_000
EDGE_SHARE = 100
"""One part in so many of the time axis stays free at its end, where the last trade stands."""

TICKS = ",.10~g"
"""Grouped, as many digits as it takes, and no exponent."""


def plot_axis(**more: Any) -> Spec:
    """An axis in the report's style, with these terms of plotly."""
    plain_axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True}
    return {**plain_axis, "tickfont": {"size": 11}, **more}


def plot_layout(height: int, **more: Any) -> Spec:
    """A layout in the report's style, ``height`` in pixels, with these terms of plotly."""
    return {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": GREY},
        "hoverlabel": {
            "bgcolor": "#1d2430",
            "bordercolor": "#1d2430",
            "font": {"color": "#f4f6fa", "size": 12},
            "align": "left",
        },
        "margin": {"l": 62, "r": 14, "t": 16, "b": 34},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        "showlegend": False,
        **more,
    }


def legend_layout(height: int, **more: Any) -> Spec:
    """A layout with its legend above, in one row."""
    above = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    margin = {"l": 62, "r": 14, "t": 40, "b": 34}
    return plot_layout(height, showlegend=True, legend=above, margin=margin, **more)


def dated_layout(height: int, title: str) -> Spec:
    """The same for lines over days; ``title`` names the other axis."""
    return legend_layout(
        height,
        xaxis=plot_axis(fixedrange=True, type="date"),
        yaxis=plot_axis(fixedrange=True, title={"text": title}),
    )


def growth_line(
    name: str, days: Sequence[int], growth: Any, colour: str, width: float, **more: Any
) -> Spec:
    """Growth of one unit by day; ``days`` in unix ms, ``name`` as it may stand in HTML."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(days),
        "y": np.round(growth, 6).tolist(),
        "line": {"color": colour, "width": width},
        "hovertemplate": f"{name}: <b>%{{y:.4f}}</b>, %{{x|%Y-%m-%d}}<extra></extra>",
        **more,
    }


def _rounded(values: Any, digits: int = 7) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values.tolist()]


class Panels:
    """Stacks panels over one time axis, top to bottom; heights are pixels."""

    def __init__(self, heights: Sequence[int]) -> None:
        self._total = sum(heights) + GAP_PX * (len(heights) - 1)
        self._left = float(self._total)
        self._axes = 0
        self.data: list[Spec] = []
        self.layout = plot_layout(
            self._total + TOP_PX + BOTTOM_PX,
            hovermode="closest",
            dragmode="zoom",
            annotations=[],
            legend=LEGEND,
            margin={"l": 62, "r": 14, "t": TOP_PX, "b": BOTTOM_PX},
            showlegend=True,
        )

    def domain(self, height: int, title: str) -> list[float]:
        """Take the next panel from the top and title it; answers its share of the height."""
        top, bottom = self._left, self._left - height
        self._left = bottom - GAP_PX
        share = [max(bottom / self._total, 0.0), top / self._total]
        self.layout["annotations"].append(
            {
                "text": f"<b>{title}</b>",
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": share[1],
                "xanchor": "left",
                "yanchor": "bottom",
                "yshift": 4,
                "showarrow": False,
                "font": {"size": 13},
            }
        )
        return share

    def axis(self, domain: list[float], **terms: Any) -> str:
        """Add a value axis; answers its name as traces use it."""
        self._axes += 1
        number = "" if self._axes == 1 else str(self._axes)
        axis = plot_axis(domain=domain, fixedrange=True, **terms)
        self.layout[f"yaxis{number}"] = axis
        return f"y{number}"

    def add(self, axis: str, **trace: Any) -> None:
        """Add a trace on a value axis."""
        self.data.append({"xaxis": "x", "yaxis": axis, "showlegend": False, **trace})

    def finish(self, start_ms: int, end_ms: int) -> Spec:
        """The figure, over this span of time."""
        self.layout["xaxis"] = plot_axis(
            type="date",
            range=[start_ms, end_ms + (end_ms - start_ms) // EDGE_SHARE],
            rangeslider={"visible": False},
            anchor="free",
            position=0,
            showspikes=True,
            spikemode="across",
            spikesnap="cursor",
            spikethickness=1,
            spikedash="dot",
            spikecolor=GREY,
        )
        return {"data": self.data, "layout": self.layout}


def market(parts: Breakdown) -> Spec:
    """Price with regimes and trades for the busiest instruments; equity, drawdown, exposure."""
    shown = busiest(parts, PANELS_MAX)
    price_px = PRICE_PX if len(shown) < 3 else PRICE_PX * 2 // 3
    panels = Panels([price_px] * len(shown) + [EQUITY_PX, SMALL_PX, SMALL_PX])
    for place, instrument in enumerate(shown):
        _add_price(panels, parts, instrument, price_px, legend=place == 0)
    run = parts.run
    _add_line(panels, equity_line(run), "Equity", EQUITY_PX, BLUE, "%{y:,.2f}", tickformat=TICKS)
    fall = thinned(run.block["ts_known"], -drawdowns(run))
    _add_line(panels, fall, "Drawdown", SMALL_PX, LOSS, "%{y:.2%}", fill=True, tickformat=".2~%")
    share = exposure_line(run)
    _add_line(
        panels, share, "Exposure, gross notional over equity", SMALL_PX, AMBER, "%{y:.1%}",
        fill=True, tickformat=".2~%", rangemode="tozero",
    )  # fmt: skip
    return panels.finish(*span(run))


def _add_line(
    panels: Panels,
    line: Line,
    title: str,
    height: int,
    colour: str,
    hover: str,
    *,
    fill: bool = False,
    **axis: Any,
) -> None:
    """A panel with one line that steps from event to event."""
    name = panels.axis(panels.domain(height, title), nticks=5, **axis)
    panels.add(
        name,
        type="scatter",
        mode=_mode(line),
        x=line.ts.tolist(),
        y=_rounded(line.values, 9),
        name=title,
        line={"color": colour, "width": 1.4, "shape": "hv"},
        hovertemplate=f"%{{x|%Y-%m-%d %H:%M}} UTC<br><b>{hover}</b><extra></extra>",
        **({"fill": "tozeroy", "fillcolor": faded(colour, 0.18)} if fill else {}),
    )


def _mode(line: Line) -> str:
    """A line; of a single moment, which has none, a dot."""
    return "lines" if len(line.ts) > 1 and line.ts[0] < line.ts[-1] else "markers"


def _add_price(
    panels: Panels, parts: Breakdown, instrument: int, height: int, *, legend: bool
) -> None:
    """A panel with regime bands behind the price, and the trades over it."""
    bars = bars_of(parts, instrument)
    trades, count = trades_of(parts, instrument)
    title = escape(parts.run.instruments[instrument])
    if count > len(trades):
        title += f" <i>({len(trades):,} of {count:,} trades, those that moved most)</i>"
    domain = panels.domain(height, title)
    bands = panels.axis(domain, range=[0, 1], visible=False)
    binary = parts.run.setup["instruments"][instrument]["kind"] == InstrumentKind.BINARY
    # without tickmode an overlaying axis takes its ticks from the one below
    price = panels.axis(
        domain,
        overlaying=bands,
        side="left",
        tickmode="auto",
        tickformat=TICKS,
        **({"range": [-0.04, 1.04]} if binary else {}),
    )
    _add_bands(panels, bands, bars)
    _add_bars(panels, price, bars)
    _add_links(panels, price, trades)
    _add_entries(panels, price, trades, legend=legend)
    _add_exits(panels, price, trades, legend=legend)


def _add_bands(panels: Panels, axis: str, bars: Bars) -> None:
    edges, codes = regime_spans(bars)
    if len(codes) == 0:
        return
    last = len(Regime) - 1
    scale = [
        [bound, band(regime)]
        for regime in Regime
        for bound in (regime / (last + 1), (regime + 1) / (last + 1))
    ]
    panels.add(
        axis,
        type="heatmap",
        x=edges.tolist(),
        y=[0, 1],
        z=[codes.tolist()],
        zmin=-0.5,
        zmax=last + 0.5,
        colorscale=scale,
        showscale=False,
        hoverinfo="skip",
    )


def _add_bars(panels: Panels, axis: str, bars: Bars) -> None:
    if 1 < len(bars.ts) <= CANDLES_MAX:
        panels.add(
            axis,
            type="candlestick",
            x=bars.ts.tolist(),
            **{name: _rounded(getattr(bars, name)) for name in ("open", "high", "low", "close")},
            name="price",
            increasing={"line": {"color": GREY, "width": 1}, "fillcolor": "rgba(0,0,0,0)"},
            decreasing={"line": {"color": GREY, "width": 1}, "fillcolor": GREY},
        )
        return
    line = price_line(bars)
    panels.add(
        axis,
        type="scatter",
        mode=_mode(line),
        x=line.ts.tolist(),
        y=_rounded(line.values),
        name="price",
        line={"color": GREY, "width": 1.1},
        hovertemplate="%{x|%Y-%m-%d %H:%M} UTC<br><b>%{y:,.6~g}</b><extra></extra>",
    )


def _add_links(panels: Panels, axis: str, trades: list[Trade]) -> None:
    """A thin line from entry to exit, one trace for gains and one for losses."""
    for colour in (signed(1), signed(-1)):
        mine = [t for t in trades if t.closed_ts and signed(t.net) == colour]
        panels.add(
            axis,
            type="scatter",
            mode="lines",
            x=[x for t in mine for x in (t.opened_ts, t.closed_ts, None)],
            y=[y for t in mine for y in (t.entry, t.price, None)],
            line={"color": colour, "width": 1},
            opacity=0.7,
            hoverinfo="skip",
        )


def _marker(count: int, **terms: Any) -> Spec:
    """A marker that leaves the price visible however many there are; zooming in grows it."""
    return {"size": 10 if count < 150 else 7 if count < 500 else 4, **terms}


def _add_entries(panels: Panels, axis: str, trades: list[Trade], *, legend: bool) -> None:
    for name, symbol, colour, side in (
        ("long entry", "triangle-up", BLUE, 1),
        ("short entry", "triangle-down", VIOLET, -1),
    ):
        mine = [trade for trade in trades if trade.quantity * side > 0]
        panels.add(
            axis,
            type="scatter",
            mode="markers",
            name=name,
            legendgroup=name,
            showlegend=legend and bool(mine),
            x=[trade.opened_ts for trade in mine],
            y=[trade.entry for trade in mine],
            text=[entry_text(trade) for trade in mine],
            hovertemplate="%{text}<extra></extra>",
            marker=_marker(len(trades), symbol=symbol, color=colour),
        )


def _add_exits(panels: Panels, axis: str, trades: list[Trade], *, legend: bool) -> None:
    opened = {(trade.book, trade.opened_ts): trade for trade in trades}
    for name, colour in (("exit with gain", signed(1)), ("exit with loss", signed(-1))):
        mine = [t for t in trades if t.closed_ts and signed(t.net) == colour]
        panels.add(
            axis,
            type="scatter",
            mode="markers",
            name=name,
            legendgroup=name,
            showlegend=legend and bool(mine),
            x=[trade.closed_ts for trade in mine],
            y=[trade.price for trade in mine],
            text=[exit_text(trade, opened.get((trade.book, trade.closed_ts))) for trade in mine],
            hovertemplate="%{text}<extra></extra>",
            marker=_marker(len(trades), symbol="x-thin-open", color=colour, line={"width": 2}),
        )


def _side(trade: Trade) -> str:
    return f"{'long' if trade.quantity > 0 else 'short'} {plain(abs(trade.quantity))}"


def entry_text(trade: Trade) -> str:
    """What hovering over an entry tells."""
    why = f"<br>why: {escape(trade.why_in)}" if trade.why_in else ""
    ended = (
        f"{amount(trade.net, plus=True)} at the end, still open"
        if not trade.closed_ts
        else f"{amount(trade.net, plus=True)} by {escape(trade.exit)}"
    )
    return (
        f"<b>{_side(trade)} at {plain(trade.entry)}</b><br>{instant(trade.opened_ts)} UTC, "
        f"{escape(trade.book)}{why}<br>regime: {trade.regime}<br>became {ended}"
    )


def exit_text(trade: Trade, following: Trade | None = None) -> str:
    """What hovering over an exit tells; a flip tells of the entry it covers too."""
    flipped = f"<br>then {_side(following)} at {plain(following.entry)}" if following else ""
    why = f", {escape(trade.why_out)}" if trade.why_out else ""
    return (
        f"<b>{amount(trade.net, plus=True)}</b> from {_side(trade)}<br>"
        f"{plain(trade.entry)} → {plain(trade.price)}<br>"
        f"{instant(trade.closed_ts)} UTC, held {lasted(trade.closed_ts - trade.opened_ts)}<br>"
        f"exit: {escape(trade.exit)}{why}{flipped}<br>{escape(trade.book)}"
    )


def costs(parts: Breakdown) -> Spec:
    """From gross to net, cost by cost."""
    total = parts.totals
    steps = [(cost.name, -cost.paid_micros) for cost in parts.costs]
    values = [total.gross_micros, *(paid for _, paid in steps), total.net_micros]
    return {
        "data": [
            {
                "type": "waterfall",
                "x": ["before costs", *(name for name, _ in steps), "net"],
                "y": [value / MICROS_PER_UNIT for value in values],
                "measure": ["absolute", *("relative" for _ in steps), "total"],
                "text": [money(value, plus=True) for value in values],
                "textposition": "outside",
                "cliponaxis": False,
                "hovertemplate": "%{x}: <b>%{text}</b><extra></extra>",
                "connector": {"line": {"color": GREY, "width": 1, "dash": "dot"}},
                "increasing": {"marker": {"color": signed(1)}},
                "decreasing": {"marker": {"color": signed(-1)}},
                "totals": {"marker": {"color": BLUE}},
            }
        ],
        "layout": plot_layout(
            280,
            xaxis=plot_axis(fixedrange=True),
            yaxis=plot_axis(fixedrange=True, zeroline=True, zerolinecolor=GREY, tickformat=TICKS),
        ),
    }


def earned(rows: Sequence[Row], *, dates: bool) -> Spec:
    """Net by day or by month, as bars."""
    shown = rows[-DAYS_MAX:]
    return {
        "data": [
            {
                "type": "bar",
                "x": [row.name for row in shown],
                "y": [row.net_micros / MICROS_PER_UNIT for row in shown],
                "marker": {"color": [signed(row.net_micros) for row in shown]},
                "text": [
                    f"{money(row.net_micros, plus=True)}, {row.trades} trades" for row in shown
                ],
                "textposition": "none",
                "hovertemplate": "%{x}: <b>%{text}</b><extra></extra>",
            }
        ],
        "layout": plot_layout(
            260,
            bargap=0.25 if len(shown) < 100 else 0,
            xaxis=plot_axis(type="date" if dates else "category", fixedrange=True),
            yaxis=plot_axis(fixedrange=True, zeroline=True, zerolinecolor=GREY, tickformat=TICKS),
        ),
    }
