"""The page of an allocation: its equity beside that of equal weights, and the weights by day."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backtest.breakdown import DAY_MS
from backtest.portfolio.books import Books
from backtest.portfolio.walk import CAVEATS, Walk, figures
from backtest.portfolio.weights import Terms
from backtest.report.figures import Spec, dated_layout, growth_line
from backtest.report.page import chart, document, section
from backtest.report.palette import GREY, SERIES, faded
from backtest.report.tables import table
from backtest.report.texts import escape, percent, ratio

Floats = NDArray[np.float64]
HEIGHT_PX = 320
ABOUT = (
    "Every weight rests on the daily returns before it. Both lines pay for what they move; equal "
    "weights move nothing."
)
ABOUT_WEIGHTS = "Shares of the account, book upon book; what is free above them is cash."


def write_portfolio(path: Path, books: Books, terms: Terms, found: Walk, even: Walk) -> Path:
    """Write the page to ``path``, an HTML file; answers the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f"Portfolio by {terms.method.value.replace('-', ' ')}"
    told = f"{len(books.names):,} books: {', '.join(books.names)}"
    body = (
        f"<header><h1>{escape(title)}</h1><p>{escape(told)}</p></header>",
        _caveats(),
        section(
            "equity",
            "Against equal weights",
            _figures_table(terms, found, even),
            chart("equity-chart", growth_lines(books, terms, found, even), "growth of one unit"),
            about=ABOUT,
        ),
        section(
            "weights",
            "Weights",
            chart("weights-chart", weight_areas(books, found), "weights by day"),
            about=ABOUT_WEIGHTS,
        ),
    )
    path.write_text(document(title, "".join(body)), encoding="utf-8")
    return path


def _caveats() -> str:
    told = "".join(f"<li>{escape(text)}</li>" for text in CAVEATS)
    heading = "<h2>Before you believe it</h2>"
    return f'<section id="caveats" class="caveats">{heading}<ul>{told}</ul></section>'


def _figures_table(terms: Terms, found: Walk, even: Walk) -> str:
    rows = [
        [
            escape(name),
            percent(each["return"], 2, plus=True),
            percent(each["volatility"], 2),
            ratio(each["sharpe"]),
            percent(each["max_drawdown"], 2),
            ratio(each["turnover"]),
            percent(each["costs"], 3),
        ]
        for name, each in ((terms.method.value, figures(found)), ("equal weight", figures(even)))
    ]
    heads = ["", "return", "volatility a year", "Sharpe", "max drawdown"]
    return table([*heads, "weight moved a year", "costs of moving it"], rows)


def growth_lines(books: Books, terms: Terms, found: Walk, even: Walk) -> Spec:
    """Growth of one unit after the lookback, by day."""
    days = [int(ts) for ts in books.ends_ms()[found.begins :]]

    def line(name: str, walk: Walk, colour: str, width: float) -> Spec:
        growth = np.cumprod(np.maximum(1.0 + walk.returns[walk.begins :], 0.0))
        return growth_line(name, days, growth, colour, width)

    return {
        "data": [
            line("equal weight", even, GREY, 1.6),
            line(terms.method.value, found, SERIES[0], 2.2),
        ],
        "layout": dated_layout(HEIGHT_PX, "growth of 1"),
    }


def weight_areas(books: Books, found: Walk) -> Spec:
    """Weights by day, stacked."""
    days = [(books.first_day + k) * DAY_MS for k in range(found.begins, len(found.weights))]
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": escape(name),
            "stackgroup": "weights",
            "x": days,
            "y": np.round(found.weights[found.begins :, b], 6).tolist(),
            "line": {"color": SERIES[b % len(SERIES)], "width": 0.8, "shape": "hv"},
            "fillcolor": faded(SERIES[b % len(SERIES)], 0.55),
            "hovertemplate": f"{escape(name)}: <b>%{{y:.3f}}</b>, %{{x|%Y-%m-%d}}<extra></extra>",
        }
        for b, name in enumerate(books.names)
    ]
    return {"data": data, "layout": dated_layout(HEIGHT_PX, "share of the account")}
