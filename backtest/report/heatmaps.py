"""Scores of a sweep over its parameters: by pairs as heat maps, one by one as lines.

A true edge is a plain one walks on, not a needle: the median over all other parameters stands
beside the best, which luck alone can make.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.report.figures import Spec, plot_axis, plot_layout
from backtest.report.palette import DIVERGING, SEQUENTIAL, SERIES, faded
from backtest.report.texts import escape, plain, spaced

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Fold = Callable[[Floats], float]

BINS, VALUES_MAX, ROWS_PER_VALUE = 12, 60, 20
"""A parameter with more values than ranges keeps them up to the second number, and only where each
was tried so often; else it is cut into ranges."""
CELLS_TOLD_MAX, COLUMNS_WIDE_MAX = 150, 10
ROW_PX, HEAT_PX_MIN, HEAT_PX_MAX, LINE_PX = 30, 250, 640, 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is scored: ``form`` as d3 writes it, ``centre`` where good and bad part, if anywhere."""

    name: str
    form: str
    centre: float | None
    higher_is_better: bool

    @property
    def label(self) -> str:
        """Its name as people write it."""
        told = spaced(self.name)
        return told.capitalize() if self.name in {"sharpe", "sortino"} else told

    @property
    def best(self) -> Fold:
        """The best of some scores."""
        return np.max if self.higher_is_better else np.min


@dataclass(frozen=True, eq=False)
class Steps:
    """The values one parameter took, in order, or ranges of them told by their middles.

    ``at`` is each row's place among them, shape (rows,).
    """

    name: str
    labels: tuple[str, ...]
    at: Ints
    ranges: bool = False


def steps_of(name: str, values: Floats) -> Steps:
    """A parameter's values, as they are when a map can show them, else cut into even ranges."""
    distinct, at = np.unique(values, return_inverse=True)
    dense = len(distinct) <= min(VALUES_MAX, len(values) // ROWS_PER_VALUE)
    if len(distinct) <= BINS or dense:
        return Steps(name, tuple(plain(float(value)) for value in distinct), at)
    edges = np.linspace(distinct[0], distinct[-1], BINS + 1)
    places = np.clip(np.searchsorted(edges, values, "right") - 1, 0, BINS - 1)
    middles = (edges[1:] + edges[:-1]) / 2
    labels = tuple(f"{float(f'{value:.3g}'):,g}" for value in middles)
    return Steps(name, labels, places, ranges=True)


def folded_scores(x: Steps, y: Steps, scores: Floats, fold: Fold) -> Floats:
    """One score a cell, shape (values of y, values of x), NaN where no row has any."""
    found = np.full(len(y.labels) * len(x.labels), np.nan)
    known = np.flatnonzero(np.isfinite(scores))
    cell = (y.at * len(x.labels) + x.at)[known]
    order = np.argsort(cell, kind="stable")
    places, first = np.unique(cell[order], return_index=True)
    for place, group in zip(places, np.split(scores[known][order], first[1:]), strict=False):
        found[place] = fold(group)
    return found.reshape(len(y.labels), len(x.labels))


def alone(x: Steps, y: Steps) -> bool:
    """Whether no cell holds two combinations, so that its best is its median."""
    cells = np.bincount(y.at * len(x.labels) + x.at)
    return bool(cells.max(initial=0) <= 1)


def heat_map(x: Steps, y: Steps, scores: Floats, metric: Metric, fold: Fold) -> Spec:
    """Scores over two parameters; all that the others do is folded into each cell."""
    z = folded_scores(x, y, scores, fold)
    told = z.size <= CELLS_TOLD_MAX
    height = min(max(HEAT_PX_MIN, ROW_PX * len(y.labels) + 90), HEAT_PX_MAX)
    return {
        "data": [
            {
                "type": "heatmap",
                "x": list(x.labels),
                "y": list(y.labels),
                "z": [[None if np.isnan(v) else float(f"{v:.6g}") for v in row] for row in z],
                "xgap": 1,
                "ygap": 1,
                **_colours(scores, metric),
                "colorbar": {
                    "thickness": 12,
                    "tickformat": metric.form,
                    "title": {"text": escape(metric.label), "side": "right"},
                },
                "hovertemplate": (
                    f"{escape(x.name)} %{{x}}, {escape(y.name)} %{{y}}: "
                    f"<b>%{{z:{metric.form}}}</b><extra></extra>"
                ),
                **(_told_in_cells(metric, len(x.labels)) if told else {}),
            }
        ],
        "layout": plot_layout(
            height,
            margin={"l": 62, "r": 8, "t": 10, "b": 46},
            xaxis=_named(x),
            yaxis=_named(y),
        ),
    }


def _told_in_cells(metric: Metric, columns: int) -> dict[str, Any]:
    size = 10 if columns <= COLUMNS_WIDE_MAX else 9
    return {"texttemplate": f"%{{z:{metric.form}}}", "textfont": {"size": size}}


def _named(steps: Steps) -> dict[str, Any]:
    told = spaced(steps.name) + (" (middle of each range)" if steps.ranges else "")
    title = {"text": escape(told), "standoff": 8}
    return plot_axis(type="category", fixedrange=True, showgrid=False, title=title)


def _colours(scores: Floats, metric: Metric) -> dict[str, Any]:
    """One scale for both maps of a pair: even about the centre, or the brighter the better."""
    known = scores[np.isfinite(scores)]
    if metric.centre is None:
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        turned = not metric.higher_is_better
        return {"colorscale": SEQUENTIAL, "reversescale": turned, "zmin": low, "zmax": high}
    reach = float(np.abs(known - metric.centre).max(initial=0.0)) or 1.0
    low, high = metric.centre - reach, metric.centre + reach
    return {"colorscale": DIVERGING, "zmin": low, "zmax": high}


def stability(steps: Steps, scores: Floats, metric: Metric) -> Spec:
    """Scores along one parameter: the best, the median, and between them where half of them lie."""
    known = np.isfinite(scores)
    groups = [scores[known & (steps.at == place)] for place in range(len(steps.labels))]

    def line(fold: Fold) -> list[float | None]:
        return [float(f"{fold(group):.6g}") if len(group) else None for group in groups]

    def trace(name: str, values: Sequence[float | None], colour: str, **more: Any) -> Spec:
        return {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": list(steps.labels),
            "y": list(values),
            "hovertemplate": f"{name} at %{{x}}: <b>%{{y:{metric.form}}}</b><extra></extra>",
            "line": {"color": colour, "width": 2},
            **more,
        }

    thin = {"color": faded(SERIES[0], 0.4), "width": 1}
    band = {"fill": "tonexty", "fillcolor": faded(SERIES[0], 0.15), "showlegend": True}
    low, high = line(lambda g: np.quantile(g, 0.25)), line(lambda g: np.quantile(g, 0.75))
    dots = {"mode": "lines+markers"}
    return {
        "data": [
            trace("lower quarter", low, SERIES[0], line=thin, showlegend=False),
            trace("middle half", high, SERIES[0], line=thin, **band),
            trace("median", line(np.median), SERIES[0], **dots),
            trace("best", line(metric.best), SERIES[1], **dots),
        ],
        "layout": plot_layout(
            LINE_PX,
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            margin={"l": 62, "r": 14, "t": 40, "b": 46},
            xaxis=_named(steps),
            yaxis=plot_axis(
                fixedrange=True,
                tickformat=metric.form,
                title={"text": escape(metric.label)},
                zeroline=metric.centre == 0.0,
                zerolinecolor="rgba(128,140,160,0.6)",
            ),
        ),
    }
