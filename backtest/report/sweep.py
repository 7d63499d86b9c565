"""The page of a sweep: where good scores lie, and whether being best meant anything later.

The best row of a search is shown by every tool. This one shows first how its neighbours did, and
how the rows ranked on days that did not rank them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.report.figures import Spec, plot_axis, plot_layout
from backtest.report.heatmaps import Metric, Steps, alone, heat_map, stability, steps_of
from backtest.report.page import chart, document, section
from backtest.report.palette import SERIES, faded
from backtest.report.texts import DASH, amount, escape, percent, plain, ratio, spaced
from backtest.report.validation import ABOUT_LOGITS, HEIGHT_PX, logits
from backtest.statistics import returns_of, sharpe
from backtest.sweep.rows import HIGHER_IS_BETTER, Row, rank_key
from backtest.validation.overfitting import overfitting
from backtest.validation.verdict import Thresholds
from core.model import MICROS_PER_UNIT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TRIALS_MAX = 2_000
"""Rows whose daily equity is kept for the page: more say no more, and cost memory."""
PAIRS_MAX = 6
INSIDE_SHARE = 2 / 3
"""Share of the days that come first and rank the rows; the rest judges."""
DAYS_MIN = 8
"""Days that either side of the split needs."""

FORMS = {
    "return": ".1%",
    "win_rate": ".1%",
    "max_drawdown": ".1%",
    "net_pnl": ",.0f",
}
CENTRES = {"sharpe": 0.0, "sortino": 0.0, "return": 0.0, "net_pnl": 0.0, "profit_factor": 1.0}
ABOUT_MAPS = (
    "Each cell folds every combination that falls into it: their best, and their median. An edge "
    "that is real is broad; a lone bright cell in the best and none in the median is luck."
)
ABOUT_LINES = "Along each parameter, with all others as they come."
ABOUT_SCATTER = (
    "One dot a combination: its Sharpe ratio on the first two thirds of the days, and on the last "
    "third, which nothing was chosen by; 0 where it never moved. Parameters that carry over lie "
    "along a rising line."
)


@dataclass
class Collected:
    """Rows as they come: scores of all, equity by day of at most ``TRIALS_MAX``, evenly taken."""

    metric: str
    params: list[tuple[float, ...]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    trials: dict[int, Ints] = field(default_factory=dict)
    best: Row | None = None
    _stride: int = 1

    def add(self, row: Row) -> None:
        """Take a row; one that failed counts without a score."""
        value = row.metrics.get(self.metric)
        self.params.append(tuple(float(value) for value in row.params.values()))
        self.scores.append(np.nan if value is None else float(value))
        key = rank_key(self.metric)
        if self.best is None or key(row) < key(self.best):
            self.best = row
        if row.error is None and row.place % self._stride == 0:
            self.trials[row.place] = row.daily_micros
        if len(self.trials) > TRIALS_MAX:
            self._stride *= 2
            kept = self.trials.items()
            self.trials = {place: daily for place, daily in kept if place % self._stride == 0}

    def watching(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, each taken as it passes."""
        for row in rows:
            self.add(row)
            yield row

    def returns(self, start: float) -> Floats:
        """Daily returns of the trials that were kept and never lost all, shape (days, trials)."""
        known = dict(self.trials)
        if self.best is not None and self.best.error is None:
            known.setdefault(self.best.place, self.best.daily_micros)
        each = [returns_of(known[place] / MICROS_PER_UNIT, start) for place in sorted(known)]
        sound = [returns for returns in each if np.isfinite(returns).all()]
        return np.stack(sound, axis=1) if sound else np.zeros((0, 0))


def write_sweep(
    path: Path, strategy: str, names: Sequence[str], rows: Collected, equity: float
) -> Path:
    """Write the page to ``path``, an HTML file. ``names`` are the parameters that were searched,
    ``equity`` is what every combination began with, in quote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metric = Metric(
        name=rows.metric,
        form=FORMS.get(rows.metric, ".2f"),
        centre=CENTRES.get(rows.metric),
        higher_is_better=HIGHER_IS_BETTER[rows.metric],
    )
    scores, params = np.array(rows.scores), np.array(rows.params).reshape(len(rows.scores), -1)
    order = list(rows.best.params) if rows.best else list(names)
    steps = [steps_of(name, params[:, order.index(name)]) for name in names]
    varied = [each for each in steps if len(each.labels) > 1]
    title = f"Sweep of {strategy}"
    told = f"{len(scores):,} combinations of {', '.join(map(spaced, names))}"
    head = f"<header><h1>{escape(title)}</h1><p>{escape(told)}</p></header>"
    body = (
        head,
        _tiles(rows, scores, metric, names),
        *_maps(varied, scores, metric),
        *_lines(varied, scores, metric),
        *_outside(rows.returns(equity), len(scores)),
    )
    path.write_text(document(title, "".join(body)), encoding="utf-8")
    return path


def _tiles(rows: Collected, scores: Floats, metric: Metric, names: Sequence[str]) -> str:
    known = scores[np.isfinite(scores)]
    name = escape(metric.label)
    best = rows.best
    set_to = ", ".join(f"{spaced(n)} {plain(best.params[n])}" for n in names) if best else ""
    shown = [
        (f"best {name}", _score(metric.best(known) if len(known) else None, metric), set_to),
        (
            f"median {name}",
            _score(float(np.median(known)) if len(known) else None, metric),
            "of all combinations that have one",
        ),
        ("combinations", f"{len(scores):,}", f"{len(scores) - len(known):,} without a score"),
    ]
    if metric.centre is not None and len(known):
        share = float((known > metric.centre).mean())
        shown.append((f"above {metric.centre:g}", percent(share), "of those with a score"))
    inner = "".join(
        f'<div class="tile"><dt>{head}</dt><dd>{value}</dd><dd><small>{escape(note)}</small></dd>'
        "</div>"
        for head, value, note in shown
    )
    caveat = (
        f"The best of {len(scores):,} is the luckiest, not the truest: every combination is a "
        "trial, and lockstep validate counts them all."
    )
    return (
        f'<dl class="tiles">{inner}</dl><section id="caveats" class="caveats">'
        f"<h2>Before you believe it</h2><ul><li>{caveat}</li></ul></section>"
    )


def _score(value: float | None, metric: Metric) -> str:
    if value is None:
        return DASH
    if "%" in metric.form:
        return percent(value, plus=metric.centre == 0.0)
    return amount(value) if metric.name == "net_pnl" else ratio(value)


def _maps(steps: Sequence[Steps], scores: Floats, metric: Metric) -> Iterator[str]:
    pairs = list(combinations(steps, 2))
    if not pairs:
        return
    shown = []
    for place, (x, y) in enumerate(pairs[:PAIRS_MAX]):
        label = f"{spaced(y.name)} over {spaced(x.name)}"
        maps = [("best", metric.best)]
        maps += [] if alone(x, y) else [("median", np.median)]
        drawn = [
            f"<div><h3>{escape(label)}{f': {word}' if len(maps) > 1 else ''}</h3>"
            + chart(f"map-{place}-{word}", heat_map(x, y, scores, metric, fold), label)
            + "</div>"
            for word, fold in maps
        ]
        shown.append(f'<div class="{"pair twin" if len(maps) > 1 else ""}">{"".join(drawn)}</div>')
    left = len(pairs) - PAIRS_MAX
    more = f" The first {PAIRS_MAX} of {len(pairs)} pairs." if left > 0 else ""
    about = ("" if all(alone(x, y) for x, y in pairs) else ABOUT_MAPS) + more
    yield section("maps", f"{_headed(metric)} over two parameters", *shown, about=about)


def _headed(metric: Metric) -> str:
    text = escape(metric.label)
    return text[:1].upper() + text[1:]


def _lines(steps: Sequence[Steps], scores: Floats, metric: Metric) -> Iterator[str]:
    if not steps:
        return
    drawn = [
        chart(f"line-{each.name}", stability(each, scores, metric), f"along {each.name}")
        for each in steps
    ]
    yield section("lines", "Stability of the parameters", *drawn, about=ABOUT_LINES)


def _outside(returns: Floats, rows: int) -> Iterator[str]:
    days, trials = returns.shape if returns.size else (0, 0)
    cut = round(days * INSIDE_SHARE)
    if trials < 2 or min(cut, days - cut) < DAYS_MIN:
        told = f"{trials:,} combinations over {days:,} days are too few to judge one by another."
        yield section("outside", "Inside and outside", f'<p class="nothing">{told}</p>')
        return
    inside, outside = (_sharpes(part) for part in (returns[:cut], returns[cut:]))
    which = f" {trials:,} of {rows:,} combinations, evenly taken." if trials < rows else ""
    told = f"<p>{_rank_told(inside, outside)}</p>"
    spec = split_scatter(inside, outside)
    drawn = chart("split-chart", spec, "inside against outside")
    yield section("outside", "Inside and outside", told, drawn, about=ABOUT_SCATTER + which)
    blocks = Thresholds().blocks
    if days >= 2 * blocks:
        found = overfitting(returns, blocks)
        told = f"<p>Probability of overfitting: <b>{percent(found.probability)}</b>.{which}</p>"
        drawn = chart("logits-chart", logits(found), "logit of the rank outside")
        yield section("pbo", "Does being best mean anything?", told, drawn, about=ABOUT_LOGITS)


def _sharpes(returns: Floats) -> Floats:
    found = (sharpe(column) for column in returns.T)
    return np.array([0.0 if value is None else value for value in found])


def _rank_told(inside: Floats, outside: Floats) -> str:
    best = int(inside.argmax())
    below = float((outside < outside[best]).mean())
    related = rank_correlation(inside, outside)
    tied = DASH if related is None else ratio(related)
    return (
        f"Rank correlation {tied}. The best inside ({ratio(float(inside[best]))}) made "
        f"{ratio(float(outside[best]))} outside, better than {percent(below, 0)} of the others; "
        f"the median outside is {ratio(float(np.median(outside)))}."
    )


def rank_correlation(x: Floats, y: Floats) -> float | None:
    """Spearman's; None where either side is all the same."""
    ranks = np.stack([_ranks(values) for values in (x, y)])
    if (ranks.std(axis=1) == 0.0).any():
        return None
    related: Any = np.corrcoef(ranks)
    return float(related[0, 1])


def _ranks(values: Floats) -> Floats:
    """Ranks; those that tie share their mean."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared = np.cumsum(counts) - (counts - 1) / 2
    ranks: Floats = shared[at]
    return ranks


def split_scatter(inside: Floats, outside: Floats) -> Spec:
    """Annual Sharpe on the days that came first against the rest, a dot a combination."""
    best = int(inside.argmax())
    dots = {"size": 5, "color": faded(SERIES[0], 0.45)}
    star = {"size": 13, "symbol": "star", "color": SERIES[4]}
    hover = "inside %{x:.2f}, outside <b>%{y:.2f}</b><extra></extra>"

    def marks(name: str, x: Floats, y: Floats, marker: dict[str, object]) -> Spec:
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": np.round(x, 3).tolist(),
            "y": np.round(y, 3).tolist(),
            "marker": marker,
            "hovertemplate": hover,
        }

    at = slice(best, best + 1)
    return {
        "data": [
            marks("combinations", inside, outside, dots),
            marks("best inside", inside[at], outside[at], star),
        ],
        "layout": plot_layout(
            HEIGHT_PX + 60,
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            margin={"l": 62, "r": 14, "t": 40, "b": 46},
            xaxis=_sharpe_axis("Sharpe inside: first two thirds of the days"),
            yaxis=_sharpe_axis("Sharpe outside: last third"),
        ),
    }


def _sharpe_axis(title: str) -> Spec:
    zero = {"zeroline": True, "zerolinecolor": "rgba(128,140,160,0.6)"}
    return plot_axis(fixedrange=True, title={"text": title}, **zero)
