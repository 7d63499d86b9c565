"""The report as one HTML file: key figures and caveats first, then charts, then every table.

It is self-contained: plotly stands inside, nothing is fetched, and it works from a mail or a disk.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from backtest.breakdown import Breakdown, Row
from backtest.report import figures, tables
from backtest.report.palette import REGIMES
from backtest.report.texts import (
    DASH,
    amount,
    counted,
    escape,
    instant,
    lasted,
    percent,
    ratio,
    spaced,
)
from backtest.run import Run
from backtest.statistics import span, summary
from strategies.regimes import Regime

HERE = Path(__file__).parent
COLUMNS_MAX = 12
"""Books or instruments whose settings stand side by side; a table of hundreds helps nobody."""
NOTHING = '<p class="nothing">Nothing was traded.</p>'


def write_report(run: Run, path: Path | str) -> Path:
    """Write the report of a run to ``path``, an HTML file; answers the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(run), encoding="utf-8")
    return path


def page(run: Run) -> str:
    """The whole document."""
    parts, figures_of_run = Breakdown(run), summary(run)
    title = f"{_strategies(run)} on {_named(run.instruments)}"
    body = "".join(
        (
            _header(run, title),
            _tiles(run, figures_of_run),
            _caveats(run, figures_of_run["caveats"]),
            *_charts(parts),
            *_breakdowns(parts),
            *_settings(run),
            *_data(run),
            _provenance(run),
        )
    )
    return document(f"{title} · {run.run_id}", body)


def document(title: str, body: str) -> str:
    """A page of the report's style around ``body``, which is HTML already."""
    from plotly.offline import get_plotlyjs

    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>"
        f"<style>{(HERE / 'page.css').read_text('utf-8')}</style>"
        f"<script>{get_plotlyjs()}</script></head>"
        f"<body><main>{body}</main>"
        f"<script>{(HERE / 'page.js').read_text('utf-8')}</script></body></html>\n"
    )


def _named(names: Iterable[str], shown: int = 3) -> str:
    told = list(dict.fromkeys(names))
    more = f" and {len(told) - shown} more" if len(told) > shown else ""
    return ", ".join(told[:shown]) + more


def _strategies(run: Run) -> str:
    return _named(book.strategy for book in run.books)


def section(anchor: str, heading: str, *inner: str, about: str = "") -> str:
    """A section with its heading; ``inner`` is HTML already."""
    told = f'<p class="about">{about}</p>' if about else ""
    return f'<section id="{anchor}"><h2>{heading}</h2>{told}{"".join(inner)}</section>'


def folded(label: str, inner: str) -> str:
    """Long matter behind a click; in print it stands open."""
    return f"<details><summary>{escape(label)}</summary>{inner}</details>"


def chart(anchor: str, spec: dict[str, Any], label: str) -> str:
    """Room for a chart and its specification, which the page's script draws."""
    # a "<" could close the script; as an escape it is the same JSON
    told = json.dumps(spec, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    height = spec["layout"]["height"]
    return (
        f'<div class="chart" id="{anchor}" role="img" aria-label="{escape(label)}" '
        f'style="min-height:{height}px"></div>'
        f'<script type="application/json" data-chart="{anchor}">{told}</script>'
    )


def _header(run: Run, title: str) -> str:
    start_ms, end_ms = span(run)
    badge = "" if run.costs_on else '<span class="badge">costs off</span>'
    return (
        f"<header><h1>{escape(title)} {badge}</h1>"
        f"<p>{instant(start_ms)} to {instant(end_ms)} UTC · run <code>{run.run_id}</code></p>"
        "</header>"
    )


def _tiles(run: Run, s: dict[str, Any]) -> str:
    costs = s["fees"] + s["spread"] + s["slippage"] + s["funding"]
    start_ms, end_ms = span(run)
    speed = s["events_per_second"]
    rate = DASH if speed is None else f"{speed:,.0f} events/s"
    ends = run.equity_start + s["net_pnl"]
    equity = f"{amount(run.equity_start)} → {amount(ends)}"
    tone = "gain" if s["net_pnl"] > 0 else "loss" if s["net_pnl"] < 0 else ""
    tiles = (
        ("return", percent(s["return"], 2, plus=True), equity, tone),
        (
            "net",
            amount(s["net_pnl"], plus=True),
            f"{amount(s['gross_pnl'], plus=True)} before costs",
            tone,
        ),
        ("max drawdown", percent(s["max_drawdown"], 2), "from the highest equity so far", ""),
        ("Sharpe", ratio(s["sharpe"]), "daily returns, √365", ""),
        ("Sortino", ratio(s["sortino"]), "daily returns, √365", ""),
        ("trades", f"{s['trades']:,}", f"{s['wins']:,} won, {percent(s['win_rate'])}", ""),
        ("profit factor", ratio(s["profit_factor"]), "won over lost", ""),
        ("costs", amount(costs), "fees, spread, slippage, funding", ""),
        ("time in market", percent(s["exposure_time"]), "a position open in any book", ""),
        ("bars", f"{s['bars']:,}", f"{lasted(end_ms - start_ms)}, {rate}", ""),
    )
    inner = "".join(
        f'<div class="tile"><dt>{name}</dt><dd class="{tone}">{value}</dd>'
        f"<dd><small>{note}</small></dd></div>"
        for name, value, note, tone in tiles
    )
    return f'<dl class="tiles" id="figures">{inner}</dl>'


def _caveats(run: Run, told: list[str]) -> str:
    grave = "" if run.costs_on else " grave"
    items = "".join(f"<li>{escape(text)}</li>" for text in told)
    return (
        f'<section id="caveats" class="caveats{grave}"><h2>Before you believe it</h2>'
        f"<ul>{items}</ul></section>"
    )


def _regime_chips(parts: Breakdown) -> str:
    counts = parts.bars_by_regime
    chips = "".join(
        f'<span class="chip"><i style="background:{REGIMES[regime]}"></i>'
        f"{spaced(regime.name.lower())} {percent(counts[regime] / counts.sum())}</span>"
        for regime in Regime
        if counts[regime]
    )
    return f'<div class="chips">{chips}</div>'


def _charts(parts: Breakdown) -> list[str]:
    count = len(parts.run.instruments)
    shown = min(count, figures.PANELS_MAX)
    which = f"The {shown} of {count} instruments traded most. " if shown < count else ""
    about = (
        f"{which}Drag over a stretch to look closer, double-click to see all. Tints are regimes."
    )
    market = chart("market", figures.market(parts), "price, trades, equity, drawdown, exposure")
    return [
        section("chart", "Prices, trades and equity", _regime_chips(parts), market, about=about),
        *_money_charts(parts),
    ]


def _money_charts(parts: Breakdown) -> list[str]:
    """Costs and net by time; where nothing moved, words instead of an empty chart."""
    if not parts.totals.turnover_micros:
        return [section("costs", "Where the money went", NOTHING), section("pnl", "Net", NOTHING)]
    costs = chart("costs-chart", figures.costs(parts), "from gross to net")
    days = chart("days-chart", figures.earned(parts.by_day, dates=True), "net by day")
    daily = section("daily", "Net by UTC day", days)
    split = f'<div class="pair even">{costs}{tables.costs(parts)}</div>'
    if len(parts.by_month) > 1:
        months = chart("months-chart", figures.earned(parts.by_month, dates=False), "net by month")
        daily = f'<div class="pair">{section("pnl", "Net by month", months)}{daily}</div>'
    return [section("costs", "Where the money went", split), daily]


def _breakdowns(parts: Breakdown) -> list[str]:
    total = parts.totals
    days = tables.breakdown("day", parts.by_day, total, change=True)
    months = tables.breakdown("month", parts.by_month, total, change=True)
    exits = "Round trips by how they ended; what is still open stands in its own row."
    regimes = "Bars by their regime; round trips by the regime they were entered in."
    by_regime = tables.breakdown("regime", _spaced(parts.by_regime), total, bars=True)
    by_exit = tables.breakdown("exit", _spaced(parts.by_exit), total) if parts.by_exit else NOTHING
    return [
        *_by_owner(parts),
        section("regimes", "By regime", by_regime, about=regimes),
        section("exits", "By exit reason", by_exit, about=exits),
        section("months", "By month", months),
        section("days", "By day", folded(counted(len(parts.by_day), "day"), days)),
    ]


def _spaced(rows: list[Row]) -> list[Row]:
    return [replace(row, name=spaced(row.name)) for row in rows]


def _by_owner(parts: Breakdown) -> list[str]:
    """By instrument, strategy and book: one table as long as all three say the same."""
    owners = {
        "instrument": parts.by_instrument,
        "strategy": parts.by_strategy,
        "book": parts.by_book,
    }
    if all(len(rows) == 1 for rows in owners.values()):
        rows = [replace(rows[0], name=f"{what} {rows[0].name}") for what, rows in owners.items()]
        only = tables.breakdown("", rows, parts.totals, summed=False)
        return [section("instruments", "By instrument, strategy and book", only)]
    return [
        section(f"{what}s", f"By {what}", tables.breakdown(what, rows, parts.totals))
        for what, rows in owners.items()
    ]


def _settings(run: Run) -> list[str]:
    books = run.setup["books"][:COLUMNS_MAX]
    instruments = run.setup["instruments"][:COLUMNS_MAX]
    sizing = tables.terms([(book["name"], book["sizing"]) for book in books])
    orders = tables.terms(
        [(b["name"], {k: b[k] for k in ("style", "offset", "ttl_bars")}) for b in books]
    )
    limits = [("account", run.setup["limits"]), *((book["name"], book["limits"]) for book in books)]
    traded = tables.terms(
        [(i["name"], {k: v for k, v in i.items() if k != "name"}) for i in instruments]
    )
    capped = _shown_of(len(run.books), "books") + _shown_of(len(run.instruments), "instruments")
    return [
        section(
            "parameters",
            "Parameters",
            tables.parameters(run.books[:COLUMNS_MAX]),
            folded("sizing", sizing),
            folded("orders", orders),
            folded("limits (0: off)", tables.terms(limits)),
            folded("terms of the instruments", traded),
            about=capped,
        )
    ]


def _shown_of(count: int, noun: str) -> str:
    return f"The first {COLUMNS_MAX} of {count:,} {noun}. " if count > COLUMNS_MAX else ""


def _data(run: Run) -> list[str]:
    none = '<p class="nothing">The gate refused nothing.</p>'
    refused = tables.refused(run) if run.refused else none
    return [
        section("refused", "Refused by the gate", refused),
        section("quality", "Data quality", tables.quality(run.quality)),
    ]


def _provenance(run: Run) -> str:
    manifest = run.manifest
    pairs = [
        ("run", run.run_id),
        ("code", manifest.code),
        ("config", manifest.config),
        ("decisions", run.decisions_hash),
        *((f"data {name}", digest[:16]) for name, digest in manifest.data.items()),
        *([("seed", str(manifest.seed))] if manifest.seed is not None else []),
    ]
    rows = [[escape(name), f"<code>{escape(value)}</code>"] for name, value in pairs]
    about = "Equal code, config and data give this run again, byte for byte."
    return section(
        "provenance",
        "Provenance",
        tables.table(["cause", "digest"], rows, texts_first=2),
        about=about,
    )
