"""The page of a stressed run: the same strategy in harder worlds, and its luck drawn again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.breakdown import DAY_MS
from backtest.report.figures import Spec, dated_layout, growth_line, legend_layout, plot_axis
from backtest.report.page import chart, document, section
from backtest.report.palette import LOSS, SERIES, faded
from backtest.report.tables import table
from backtest.report.texts import DASH, escape, instant, percent, ratio
from backtest.report.validation import HEIGHT_PX, fan
from backtest.run import Run
from backtest.statistics import max_drawdown
from backtest.stress import Luck, Outlook, World

Floats = NDArray[np.float64]
BINS = 48

ABOUT_WORLDS = (
    "Real replays of the run's own events: dearer costs change what the gate approves, so nothing "
    "here is the old result with a number taken off."
)
ABOUT_FAN = (
    "Growth of one unit along histories drawn again from the run's own days (stationary bootstrap, "
    "which keeps what follows what): the lines hold 5, 25, 50, 75 and 95 % of them."
)
ABOUT_FALLS = (
    "The deepest drawdown of each. Another order of the same trades ends where the run ended: it "
    "moves the drawdown and nothing else, and does not see what happened while a trade was open."
)


def write_stress(path: Path, run: Run, worlds: Mapping[str, World], luck: Luck) -> Path:
    """Write the page to ``path``, an HTML file; ``worlds`` are by name, the first as it was.

    Answers the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    strategies = ", ".join(dict.fromkeys(book.strategy for book in run.books))
    title = f"Stress of {strategies}"
    head = f"<header><h1>{escape(title)}</h1><p>run <code>{run.run_id}</code></p></header>"
    falls = drawdown_histogram(luck, max_drawdown(run))
    body = (
        head,
        section(
            "worlds",
            "In harder worlds",
            _worlds_table(worlds),
            chart("worlds-chart", growth_lines(worlds), "growth in each world"),
            about=ABOUT_WORLDS,
        ),
        section(
            "fan",
            "Other luck",
            f"<p>{_told(luck.outlook, luck.block)}</p>",
            chart("fan-chart", fan(luck.growth), "resampled growth"),
            about=ABOUT_FAN,
        ),
        section(
            "falls",
            "How deep it may fall",
            chart("falls-chart", falls, "distribution of the deepest drawdown"),
            about=ABOUT_FALLS,
        ),
    )
    path.write_text(document(f"{title} · {run.run_id}", "".join(body)), encoding="utf-8")
    return path


def _worlds_table(worlds: Mapping[str, World]) -> str:
    rows = [
        [
            escape(name),
            f"{world.trades:,}",
            percent(world.gained, 2, plus=True),
            ratio(world.sharpe),
            percent(world.max_drawdown, 2),
            DASH if world.halted_ms is None else f"{instant(world.halted_ms)} UTC",
        ]
        for name, world in worlds.items()
    ]
    return table(["world", "trades", "return", "Sharpe", "max drawdown", "halted"], rows)


def _told(seen: Outlook, block: float) -> str:
    low, middle, high = (percent(share - 1.0, plus=True) for share in seen.growth)
    fallen = [percent(fall) for fall in seen.drawdown]
    # of none in n the upper bound is three in n, with 95 % confidence
    ruin = f"{percent(seen.ruin, 2)} ± {percent(seen.ruin_error, 2)}"
    ruined = ruin if seen.ruin > 0 else f"none (below {percent(3 / seen.paths, 2)})"
    return (
        f"{seen.paths:,} histories of blocks of {block:.1f} days on average. Return {middle} in "
        f"the middle ({low} to {high}); deepest drawdown {fallen[1]} ({fallen[0]} to {fallen[2]}); "
        f"{percent(seen.loss)} end below where they began; {ruined} fall to "
        f"{percent(seen.ruin_at, 0)} of the start."
    )


def growth_lines(worlds: Mapping[str, World]) -> Spec:
    """Growth of one unit by day in each world; the run as it was stands out."""
    data = []
    for place, (name, world) in enumerate(worlds.items()):
        days = [(world.first_day + 1 + k) * DAY_MS for k in range(len(world.growth))]
        colour, width = SERIES[place % len(SERIES)], 2.4 if place == 0 else 1.4
        data.append(growth_line(escape(name), days, world.growth, colour, width))
    return {"data": data, "layout": dated_layout(HEIGHT_PX, "growth of 1")}


def drawdown_histogram(luck: Luck, happened: float) -> Spec:
    """Share of paths by deepest drawdown, drawn again and in another order; what happened as a
    line."""
    fallen = luck.falls
    drawn = [("days drawn again", fallen, SERIES[0])]
    if luck.reordered is not None:
        drawn.append(("trades in another order", luck.reordered, SERIES[1]))
    top = max([happened, *(float(values.max()) for _, values, _ in drawn)]) or 1.0
    edges = np.linspace(0.0, top * 1.02, BINS + 1)
    return {
        "data": [_steps(name, values, edges, colour) for name, values, colour in drawn],
        "layout": legend_layout(
            HEIGHT_PX,
            bargap=0,
            barmode="overlay",
            xaxis=plot_axis(fixedrange=True, tickformat=".0%", title={"text": "deepest drawdown"}),
            yaxis=plot_axis(fixedrange=True, tickformat=".0%", title={"text": "share of paths"}),
            shapes=[_upright(happened)],
            annotations=[_beside(happened, f"it was {percent(happened)}")],
        ),
    }


def _steps(name: str, values: Floats, edges: Floats, colour: str) -> Spec:
    share = np.histogram(values, edges)[0] / len(values)
    middle = (edges[1:] + edges[:-1]) / 2
    return {
        "type": "bar",
        "name": name,
        "x": middle.tolist(),
        "y": share.tolist(),
        "width": float(edges[1] - edges[0]),
        "marker": {"color": faded(colour, 0.55), "line": {"color": colour, "width": 1}},
        "hovertemplate": f"{name}<br>%{{x:.1%}}: <b>%{{y:.2%}}</b><extra></extra>",
    }


def _upright(x: float) -> dict[str, Any]:
    line = {"color": LOSS, "width": 2, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _beside(x: float, text: str) -> dict[str, Any]:
    at: Sequence[tuple[str, Any]] = (
        ("x", x), ("y", 1), ("yref", "paper"), ("xanchor", "left"), ("yanchor", "top"),
        ("xshift", 5), ("showarrow", False), ("text", text),
    )  # fmt: skip
    return dict(at)
