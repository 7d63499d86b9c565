"""The page of a verdict: what was asked, what was found, and the pictures that show why.

A judge that only says no teaches nothing; beside each figure stands what it was held against.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backtest.report.figures import Spec, plot_axis, plot_layout
from backtest.report.page import chart, document, section
from backtest.report.palette import BLUE, GREY, VIOLET, faded, signed
from backtest.report.tables import table
from backtest.report.texts import DASH, escape, percent
from backtest.stress import futures, outlook
from backtest.validation.overfitting import Overfitting, overfitting
from backtest.validation.resampling import block_length
from backtest.validation.sharpe import sample_of
from backtest.validation.verdict import YEAR, Check, Evidence, Thresholds, Verdict

PATHS, DAYS_DRAWN_MAX, DOTS_MAX, BINS = 2_000, 400, 2_000, 40
HEIGHT_PX = 300
ABOUT_LOGITS = (
    "Every way to choose the best trial on half of the days: how did that trial rank on the other "
    "half? Left of zero it fell below the median. The share there is the probability of "
    "overfitting."
)
ABOUT_SCATTER = (
    "The same ways: the Sharpe ratio of the chosen on the days that chose it, and on the others."
)
ABOUT_FAN = (
    "Growth of one unit along histories drawn again from the candidate's own days (stationary "
    "bootstrap): the lines hold 5, 25, 50, 75 and 95 % of them."
)


def write_validation(path: Path, judged: Sequence[tuple[Evidence, Verdict]], *, seed: int) -> Path:
    """Write one page over these verdicts to ``path``, an HTML file; answers the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(
        _verdict(place, evidence, verdict, seed) for place, (evidence, verdict) in enumerate(judged)
    )
    names = ", ".join(verdict.candidate for _, verdict in judged)
    head = f"<header><h1>Validation</h1><p>{escape(names)}</p></header>"
    path.write_text(document(f"Validation of {names}", head + body), encoding="utf-8")
    return path


def _verdict(place: int, evidence: Evidence, verdict: Verdict, seed: int) -> str:
    failed = [check for check in verdict.judged if not check.passed]
    word = "passes" if verdict.passed else f"fails {len(failed)} of {len(verdict.judged)} checks"
    told = [check for check in verdict.checks if check.passed is None]
    about = f"{verdict.trials:,} trials, {verdict.days:,} days, Sharpe ratios times √365."
    return section(
        f"verdict-{place}",
        f"{escape(verdict.candidate)} {word}",
        table(
            ["check", "why", "figure", "asked", ""],
            map(_judged_row, verdict.judged),
            texts_first=2,
        ),
        table(["beside it", "why", "figure"], map(_told_row, told), texts_first=2),
        *_pictures(place, evidence, seed),
        about=about,
    )


def _judged_row(check: Check) -> list[str]:
    tone, word = ("gain", "pass") if check.passed else ("loss", "fail")
    asked = f"{escape(check.side)} {_figure(check.threshold)}"
    verdict = f'<span class="{tone}">{word}</span>'
    return [*_told_row(check), asked, verdict]


def _told_row(check: Check) -> list[str]:
    return [escape(check.name), escape(check.why), _figure(check.value)]


def _figure(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return DASH if value is None else "∞"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3f}"


def _pictures(place: int, evidence: Evidence, seed: int) -> list[str]:
    days, trials = evidence.returns.shape
    found: list[str] = []
    blocks = Thresholds().blocks
    if trials > 1 and days >= 2 * blocks:
        split = overfitting(evidence.returns, blocks)
        found += [
            f"<p>{ABOUT_LOGITS}</p>",
            chart(f"logits-{place}", logits(split), "Logit of the rank outside"),
            f"<p>{ABOUT_SCATTER}</p>",
            chart(f"scatter-{place}", scatter(split, seed), "Inside against outside"),
        ]
    returns = evidence.returns[:, evidence.candidate]
    if sample_of(returns) is not None:
        block = block_length(returns[:, None])
        growth = futures(returns, seed=seed, paths=range(PATHS), block=block)
        found += [
            f"<p>{ABOUT_FAN} {_outlook(growth)}</p>",
            chart(f"fan-{place}", fan(growth), "Resampled growth"),
        ]
    return found


def _outlook(growth: Any) -> str:
    seen = outlook(growth)
    low, middle, high = (percent(fall) for fall in seen.drawdown)
    return (
        f"{percent(seen.loss)} of {seen.paths:,} end below where they began; the deepest drawdown "
        f"is {middle} in the middle ({low} to {high}); {percent(seen.ruin, 2)} ± "
        f"{percent(seen.ruin_error, 2)} fall to {percent(seen.ruin_at, 0)} of the start."
    )


def logits(found: Overfitting) -> Spec:
    """Histogram of the logits, those at or below zero in red."""
    reach = float(np.abs(found.logits).max()) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    # a logit of zero is overfit, so every bin holds its upper edge: the mirror image's lower one
    share = np.histogram(-found.logits, edges)[0][::-1] / len(found.logits)
    middle = (edges[1:] + edges[:-1]) / 2
    return {
        "data": [
            {
                "type": "bar",
                "x": middle.tolist(),
                "y": share.tolist(),
                "marker": {"color": [signed(1 if x > 0 else -1) for x in middle]},
                "hovertemplate": "logit %{x:.2f}: <b>%{y:.2%}</b><extra></extra>",
            }
        ],
        "layout": plot_layout(
            HEIGHT_PX,
            bargap=0.05,
            xaxis=plot_axis(
                fixedrange=True,
                zeroline=True,
                zerolinecolor=GREY,
                title={"text": "logit of the rank outside"},
            ),
            yaxis=plot_axis(fixedrange=True, tickformat=".0%", title={"text": "share of splits"}),
        ),
    }


def scatter(found: Overfitting, seed: int) -> Spec:
    """Annual Sharpe inside against outside, a dot a split, at most ``DOTS_MAX`` of them."""
    count = len(found.logits)
    shown = np.random.default_rng(seed).permutation(count)[:DOTS_MAX]
    x, y = found.chosen[shown] * YEAR, found.outside[shown] * YEAR
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": np.round(x, 3).tolist(),
                "y": np.round(y, 3).tolist(),
                "marker": {"size": 4, "color": [signed(value) for value in y], "opacity": 0.5},
                "hovertemplate": "inside %{x:.2f}, outside <b>%{y:.2f}</b><extra></extra>",
            }
        ],
        "layout": plot_layout(
            HEIGHT_PX,
            xaxis=plot_axis(fixedrange=True, title={"text": "inside"}),
            yaxis=plot_axis(
                fixedrange=True, title={"text": "outside"}, zeroline=True, zerolinecolor=GREY
            ),
        ),
    }


def fan(growth: Any) -> Spec:
    """Quantiles of resampled growth by day."""
    days = growth.shape[1]
    shown = np.unique(np.linspace(0, days - 1, min(days, DAYS_DRAWN_MAX)).astype(int))
    bands = np.quantile(growth[:, shown], (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    names = ("5 %", "25 %", "median", "75 %", "95 %")
    data = []
    for name, band in zip(names, bands, strict=True):
        middle = name == "median"
        filled = {} if name == "5 %" else {"fill": "tonexty", "fillcolor": faded(BLUE, 0.12)}
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": shown.tolist(),
                "y": np.round(band, 5).tolist(),
                "line": {"color": BLUE if middle else VIOLET, "width": 2 if middle else 0.8},
                "hovertemplate": f"{name}: <b>%{{y:.3f}}</b> after %{{x}} days<extra></extra>",
                **filled,
            }
        )
    return {
        "data": data,
        "layout": plot_layout(
            HEIGHT_PX,
            xaxis=plot_axis(fixedrange=True, title={"text": "days"}),
            yaxis=plot_axis(fixedrange=True, title={"text": "growth of 1"}),
        ),
    }
