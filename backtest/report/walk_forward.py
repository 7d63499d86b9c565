"""The page of a walk forward: the curve no fit has seen, its windows, and how the choices moved.

A walk whose parameters jump from window to window, or whose figures inside say nothing of those
outside, has found noise; so both stand beside the curve.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backtest.report.figures import Spec, plot_axis, plot_layout
from backtest.report.page import chart, document, section
from backtest.report.palette import AMBER, BLUE, GREY, faded, signed
from backtest.report.series import equity_line
from backtest.report.tables import table
from backtest.report.texts import DASH, counted, escape, instant, lasted, percent, plain, ratio
from backtest.stretches import figures_of
from backtest.sweep.rows import HIGHER_IS_BETTER, Row
from backtest.walk_forward import Walk, Window, stability

CURVE_PX, PARAMETER_PX, GAP_SHARE, SCATTER_PX = 320, 130, 0.06, 320
FRACTIONS = frozenset({"return", "max_drawdown", "win_rate"})
ABOUT_CURVE = (
    "Equity out of sample: every window starts and ends flat, and with what the last one left. "
    "Tints part the windows."
)
ABOUT_PARAMETERS = (
    "What each window was traded with. A gap is a window whose fit had no defined figure: nothing "
    "was traded in it."
)
ABOUT_SCATTER = (
    "The same figure of the same parameters, on what they were chosen on and on what came next. "
    "On the dotted line it held what it promised; red dots did worse."
)


def write_walk(path: Path, walk: Walk) -> Path:
    """Write the page to ``path``, an HTML file; answers the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ", ".join(dict.fromkeys(book.strategy for book in walk.stitched.books))
    path.write_text(document(f"Walk forward of {names}", page(names, walk)), encoding="utf-8")
    return path


def page(names: str, walk: Walk) -> str:
    """The body of the page."""
    first, last = walk.windows[0].cut, walk.windows[-1].cut
    metric = escape(walk.terms.metric)
    head = (
        f"<header><h1>Walk forward of {escape(names)}</h1>"
        f"<p>{instant(first.begin_ms)} to {instant(last.end_ms)} UTC · {escape(_terms(walk))}</p>"
        "</header>"
    )
    pictures = [
        section("curve", "Out of sample", chart("equity", curve(walk), "Equity"), about=ABOUT_CURVE)
    ]
    if stability(walk.windows):
        drawn = chart("parameters-drawn", parameters(walk.windows), "Parameters by window")
        pictures.append(section("parameters", "Parameters", drawn, about=ABOUT_PARAMETERS))
    if _pairs(walk):
        drawn = chart("scatter-drawn", scatter(walk), "Inside against outside")
        heading = f"{metric} inside and outside"
        pictures.append(section("scatter", heading, drawn, about=ABOUT_SCATTER))
    return head + _verdict(walk) + "".join(pictures) + _windows(walk)


def _terms(walk: Walk) -> str:
    terms = walk.terms
    kind = "everything before" if terms.anchored else lasted(terms.train_ms)
    said = [f"fitted on {kind}", f"windows of {lasted(terms.test_ms)}", f"best {terms.metric}"]
    said += [f"purge {lasted(terms.purge_ms)}"] if terms.purge_ms else []
    said += [f"embargo {lasted(terms.embargo_ms)}"] if terms.embargo_ms else []
    said += [f"held out: {', '.join(terms.held_out)}"] if terms.held_out else []
    return ", ".join(said)


def _verdict(walk: Walk) -> str:
    whole = figures_of(walk.stitched)
    gained = sum((window.figures["return"] or 0.0) > 0 for window in walk.windows)
    tiles = (
        ("return", percent(whole["return"], 2, plus=True), "out of sample"),
        ("Sharpe", ratio(whole["sharpe"]), "daily returns, √365"),
        ("max drawdown", percent(whole["max_drawdown"], 2), "across windows"),
        ("windows gained", f"{gained} of {len(walk.windows)}", _ending(walk)),
        ("trades", f"{whole['trades']:,}", "ended in a window"),
    )
    inner = "".join(
        f'<div class="tile"><dt>{name}</dt><dd>{value}</dd><dd><small>{note}</small></dd></div>'
        for name, value, note in tiles
    )
    return f'<dl class="tiles" id="figures">{inner}</dl>'


def _ending(walk: Walk) -> str:
    if walk.ruined:
        return "then equity was gone"
    left = sum(not window.flat for window in walk.windows)
    return f"{counted(left, 'window')} ended with a position" if left else "each ended flat"


def curve(walk: Walk) -> Spec:
    """The stitched equity, every other window tinted."""
    line = equity_line(walk.stitched)
    tinted = tints([(window.cut.begin_ms, window.cut.end_ms) for window in walk.windows])
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": line.ts.tolist(),
                "y": [round(float(value), 4) for value in line.values],
                "line": {"color": BLUE, "width": 1.6},
                "hovertemplate": "%{x|%Y-%m-%d %H:%M}: <b>%{y:,.2f}</b><extra></extra>",
            }
        ],
        "layout": plot_layout(
            CURVE_PX, shapes=tinted, xaxis=plot_axis(type="date"), yaxis=plot_axis(fixedrange=True)
        ),
    }


def tints(spans: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Every other of these spans of time, unix ms, as a band behind the lines."""
    return [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": begin,
            "x1": end,
            "y0": 0,
            "y1": 1,
            "line": {"width": 0},
            "layer": "below",
            "fillcolor": faded(GREY, 0.12),
        }
        for begin, end in spans[::2]
    ]


def parameters(windows: Sequence[Window]) -> Spec:
    """One panel a parameter, a step a window."""
    values = stability(windows)
    begins = [window.cut.begin_ms for window in windows]
    height = (1 - GAP_SHARE * (len(values) - 1)) / len(values)
    layout = plot_layout(PARAMETER_PX * len(values) + 40, xaxis=plot_axis(type="date"))
    data = []
    for k, (name, chosen) in enumerate(values.items()):
        top = 1 - k * (height + GAP_SHARE)
        layout[f"yaxis{k + 1 if k else ''}"] = plot_axis(
            fixedrange=True, title={"text": escape(name)}, domain=[max(top - height, 0), top]
        )
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": begins,
                "y": chosen,
                "yaxis": f"y{k + 1 if k else ''}",
                "line": {"color": AMBER, "width": 1.4, "shape": "hv"},
                "hovertemplate": f"{escape(name)} <b>%{{y:.6g}}</b><extra>%{{x|%Y-%m-%d}}</extra>",
            }
        )
    layout["xaxis"]["anchor"] = f"y{len(values) if len(values) > 1 else ''}"
    return {"data": data, "layout": layout}


def _pairs(walk: Walk) -> list[tuple[float, float, str]]:
    """The figure inside and outside, and when the window began, where both are defined."""
    metric, found = walk.terms.metric, []
    for window in walk.windows:
        inside = None if window.fit is None else window.fit.metrics.get(metric)
        outside = window.figures.get(metric)
        if inside is not None and outside is not None:
            found.append((inside, outside, instant(window.cut.begin_ms)))
    return found


def scatter(walk: Walk) -> Spec:
    """In sample against out of sample, a dot a window."""
    return inside_outside(_pairs(walk), walk.terms.metric)


def inside_outside(pairs: Sequence[tuple[float, float, str]], metric: str) -> Spec:
    """A figure inside against outside, a dot each with its name, and where both would be equal."""
    x, y = [inside for inside, _, _ in pairs], [outside for _, outside, _ in pairs]
    ends = [min(x), max(x)]
    axis = {"fixedrange": True, "zeroline": True, "zerolinecolor": GREY}
    good = 1 if HIGHER_IS_BETTER[metric] else -1
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": ends,
                "y": ends,
                "line": {"color": GREY, "width": 1, "dash": "dot"},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": x,
                "y": y,
                "text": [escape(name) for _, _, name in pairs],
                "marker": {
                    "size": 8,
                    "color": [signed(good * (b - a)) for a, b, _ in pairs],
                },
                "hovertemplate": "%{text}: inside %{x:.3g}, outside <b>%{y:.3g}</b><extra></extra>",
            },
        ],
        "layout": plot_layout(
            SCATTER_PX,
            xaxis=plot_axis(**axis, title={"text": "inside"}),
            yaxis=plot_axis(**axis, title={"text": "outside"}),
        ),
    }


def _windows(walk: Walk) -> str:
    metric = walk.terms.metric
    heads = ["from", "parameters", f"{metric} inside", "outside", "return", "drawdown", "trades"]
    rows = table(heads, [_row(window, metric) for window in walk.windows], texts_first=2)
    return section("windows", "Windows", rows)


def _row(window: Window, metric: str) -> list[str]:
    fit, outside = window.fit, window.figures
    return [
        instant(window.cut.begin_ms),
        chosen(fit),
        figure(metric, None if fit is None else fit.metrics.get(metric)),
        figure(metric, outside.get(metric)),
        percent(outside["return"], 2, plus=True),
        percent(outside["max_drawdown"], 2),
        f"{outside['trades']:,}",
    ]


def chosen(fit: Row | None) -> str:
    """The parameters of a fit, as HTML."""
    if fit is None:
        return DASH
    return escape(" ".join(f"{name}={plain(value)}" for name, value in fit.params.items()))


def figure(metric: str, value: float | None) -> str:
    """A figure as people read it."""
    return percent(value, 2) if metric in FRACTIONS else ratio(value)
