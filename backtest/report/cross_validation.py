"""The page of a cross-validation: every path, how they spread, and what the choices were worth.

One curve invites belief, a bundle of them shows how much of it was the order of things.
"""

from pathlib import Path

import numpy as np

from backtest.breakdown import DAY_MS, day_of
from backtest.cross_validation import CrossValidation
from backtest.report.figures import Spec, dated_layout, growth_line, plot_axis, plot_layout
from backtest.report.page import chart, document, section
from backtest.report.palette import AMBER, BLUE, faded, signed
from backtest.report.tables import table
from backtest.report.texts import DASH, counted, escape, instant, lasted, percent
from backtest.report.walk_forward import chosen, figure, inside_outside, tints
from backtest.statistics import daily_equity

FAN_PX, HISTOGRAM_PX, BINS_MAX, DAYS_DRAWN_MAX = 340, 260, 24, 500
CAVEATS = (
    (
        "The fits of a path see what lies after a test as well as before it: no account could have "
        "traded it. It samples what this search gives where it has not looked."
    ),
    (
        "Paths share most of their days and many of their fits: how far they spread says how much "
        "hangs on what was fitted on, and less than as many independent histories would."
    ),
)
ABOUT_PATHS = (
    "Growth of one unit along every path, out of sample throughout: each group starts and ends "
    "flat, and with what the last one left. The thick line is the median of the day; tints part "
    "the groups."
)
ABOUT_HISTOGRAM = "Sharpe ratios of the paths, daily returns times √365; losing ones in red."
ABOUT_SCATTER = (
    "One dot a split: the figure over the daily returns of all it was fitted on, and over those of "
    "its test groups. On the dotted line it held what it promised; red dots did worse."
)
ABOUT_SPLITS = (
    "What each choice of test groups was traded with. Inside pools the daily returns of every "
    "piece that is left of history, each begun anew with the whole equity."
)


def write_cross_validation(path: Path, done: CrossValidation) -> Path:
    """Write the page to ``path``, an HTML file; answers the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    books = done.paths[0].whole.books
    title = f"Cross-validation of {', '.join(dict.fromkeys(book.strategy for book in books))}"
    path.write_text(document(title, page(title, done)), encoding="utf-8")
    return path


def page(title: str, done: CrossValidation) -> str:
    """The body of the page."""
    metric, groups = done.terms.metric, done.plan.groups
    head = (
        f"<header><h1>{escape(title)}</h1><p>{instant(groups[0].begin_ms)} to "
        f"{instant(groups[-1].end_ms)} UTC · {escape(_terms(done))}</p></header>"
    )
    told = "".join(f"<li>{escape(text)}</li>" for text in CAVEATS)
    heading = "<h2>Before you believe it</h2>"
    parts = [
        head,
        _tiles(done),
        f'<section id="caveats" class="caveats">{heading}<ul>{told}</ul></section>',
        section("paths", "Paths", chart("paths-drawn", fan(done), "Paths"), about=ABOUT_PATHS),
    ]
    if _sharpes(done):
        drawn = chart("sharpes-drawn", histogram(done), "Sharpe ratios of the paths")
        parts.append(section("sharpes", "How they spread", drawn, about=ABOUT_HISTOGRAM))
    if done.pairs:
        drawn = chart("scatter-drawn", scatter(done), "Inside against outside")
        heading = f"{escape(metric)} inside and outside"
        parts.append(section("scatter", heading, drawn, about=ABOUT_SCATTER))
    return "".join(parts) + _paths(done) + _splits(done)


def _terms(done: CrossValidation) -> str:
    terms = done.terms
    said = [f"{terms.groups} groups, {terms.tests} tested at a time", f"best {terms.metric}"]
    said += [f"purge {lasted(terms.purge_ms)}"] if terms.purge_ms else []
    said += [f"embargo {lasted(terms.embargo_ms)}"] if terms.embargo_ms else []
    said += [f"held out: {', '.join(terms.held_out)}"] if terms.held_out else []
    return ", ".join(said)


def _tiles(done: CrossValidation) -> str:
    lost = sum((path.figures["return"] or 0.0) < 0 for path in done.paths)
    told = [
        ("Sharpe", *_told(done, "sharpe")),
        ("return", *_told(done, "return")),
        ("max drawdown", *_told(done, "max_drawdown")),
        ("paths that lose", f"{lost} of {len(done.paths)}", _ending(done)),
        ("splits", f"{len(done.plan.cuts)}", f"of {len(done.plan.groups)} groups"),
    ]
    inner = "".join(
        f'<div class="tile"><dt>{name}</dt><dd>{value}</dd><dd><small>{note}</small></dd></div>'
        for name, value, note in told
    )
    return f'<dl class="tiles" id="figures">{inner}</dl>'


def _told(done: CrossValidation, name: str) -> tuple[str, str]:
    """The median over the paths, and its range."""
    found = done.spread(name)
    if found is None:
        return DASH, "not defined on every path"
    low, middle, high = (figure(name, value) for value in found)
    return middle, f"median; {low} to {high}"


def _ending(done: CrossValidation) -> str:
    ruined = sum(len(path.runs) < len(done.plan.groups) for path in done.paths)
    return f"{counted(ruined, 'path')} lost all" if ruined else "below their start at the end"


def fan(done: CrossValidation) -> Spec:
    """Growth of one unit by day on every path, and the median of each day."""
    each = [daily_equity(path.whole) / path.whole.equity_start for path in done.paths]
    length = max(map(len, each))
    # a path that ended early stays where it ended
    growth = np.stack([np.pad(one, (0, length - len(one)), mode="edge") for one in each])
    shown = np.unique(np.linspace(0, length - 1, min(length, DAYS_DRAWN_MAX)).astype(int))
    first = day_of(int(done.paths[0].whole.block["ts_known"][0]))
    days = ((first + 1 + shown) * DAY_MS).tolist()
    thin = faded(BLUE, 0.45)
    lines = [
        growth_line(f"path {k + 1}", days, one[shown], thin, 1.0, showlegend=False)
        for k, one in enumerate(growth)
    ]
    middle = growth_line("median", days, np.median(growth, axis=0)[shown], AMBER, 2.4)
    layout = dated_layout(FAN_PX, "growth of 1")
    layout["shapes"] = tints([(group.begin_ms, group.end_ms) for group in done.plan.groups])
    return {"data": [*lines, middle], "layout": layout}


def _sharpes(done: CrossValidation) -> list[float]:
    return [value for path in done.paths if (value := path.figures["sharpe"]) is not None]


def histogram(done: CrossValidation) -> Spec:
    """How many paths have which Sharpe ratio; no bin spans zero."""
    values = np.array(_sharpes(done))
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    step = (high - low) / min(BINS_MAX, max(6, 2 * len(values))) or 1.0
    edges = np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step
    count, _ = np.histogram(values, edges)
    middle = (edges[1:] + edges[:-1]) / 2
    return {
        "data": [
            {
                "type": "bar",
                "x": middle.tolist(),
                "y": count.tolist(),
                "width": step,
                "marker": {"color": [signed(x) for x in middle]},
                "hovertemplate": "Sharpe about %{x:.2f}: <b>%{y} paths</b><extra></extra>",
            }
        ],
        "layout": plot_layout(
            HISTOGRAM_PX,
            bargap=0.05,
            xaxis=plot_axis(fixedrange=True, title={"text": "Sharpe a year"}),
            yaxis=plot_axis(fixedrange=True, title={"text": "paths"}),
        ),
    }


def scatter(done: CrossValidation) -> Spec:
    """In sample against out of sample, a dot a split."""
    pairs = [(inside, outside, _named(done, place)) for inside, outside, place in done.pairs]
    return inside_outside(pairs, done.terms.metric)


def _named(done: CrossValidation, place: int) -> str:
    """The test groups of a split, counted from 1."""
    return "groups " + ", ".join(str(group + 1) for group in done.plan.cuts[place].tests)


def _paths(done: CrossValidation) -> str:
    names = ("return", "sharpe", "sortino", "max_drawdown")
    rows = [
        [
            f"path {k + 1}",
            *(figure(name, path.figures[name]) for name in names),
            f"{path.figures['trades']:,}",
        ]
        for k, path in enumerate(done.paths)
    ]
    heads = ["", "return", "Sharpe", "Sortino", "drawdown", "trades"]
    return section("each", "Every path", table(heads, rows))


def _splits(done: CrossValidation) -> str:
    metric = done.terms.metric
    rows = [
        [
            _named(done, place),
            chosen(fit),
            figure(metric, None if fit is None else fit.metrics.get(metric)),
            figure(metric, outside.get(metric)),
            percent(outside.get("return"), 2, plus=True),
        ]
        for place, (fit, outside) in enumerate(zip(done.fits, done.outside, strict=True))
    ]
    heads = ["tested", "parameters", f"{metric} inside", "outside", "return outside"]
    return section("splits", "Splits", table(heads, rows, texts_first=2), about=ABOUT_SPLITS)
