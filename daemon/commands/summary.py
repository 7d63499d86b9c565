"""The result of a run: as the JSON that ``replay --json`` promises, and as tables for a person."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backtest.breakdown import Breakdown, Row
from backtest.run import Run, beyond
from backtest.statistics import span, summary
from core.model import MICROS_PER_UNIT, Result, Verdict
from daemon.console import write, write_note, write_table
from forecasting.questions import Reply
from markets.history import utc

HEADLINES = (
    *("trades", "wins", "win_rate", "profit_factor", "net_pnl", "gross_pnl", "fees", "spread"),
    *("slippage", "funding", "return", "max_drawdown", "sharpe", "sortino", "calmar", "turnover"),
    *("capacity", "exposure_time"),
)
_TABLE = (
    ("net_pnl", "+,.2f", "return", "return", "+.2%"),
    ("gross_pnl", "+,.2f", "max drawdown", "max_drawdown", ".2%"),
    ("fees", ",.2f", "Sharpe", "sharpe", ".2f"),
    ("spread", ",.2f", "Sortino", "sortino", ".2f"),
    ("slippage", ",.2f", "profit factor", "profit_factor", ".2f"),
    ("funding", ",.2f", "win rate", "win_rate", ".1%"),
    ("trades", ",", "time in market", "exposure_time", ".1%"),
)
_BOOK_COLUMNS = ("book", "trades", "won", "gross", "costs", "net")


def summarise(run: Run, path: Path | None = None) -> dict[str, Any]:
    """Every figure of a run, and where it is kept.

    Where language models were asked, the headline figures are those of the bars none of them can
    have read of, None when there are none; the figures of all bars stand under ``contaminated``.
    """
    result = summary(run)
    if run.clean_from_ms is not None and run.clean_from_ms > span(run)[0]:
        clean = beyond(run, run.clean_from_ms)
        figures = dict.fromkeys(HEADLINES) if clean is None else summary(clean)
        result = {**result, **figures, "contaminated": result}
        result["caveats"] = [_contamination(run, clean), *result["caveats"]]
    return {**result, **({"path": str(path)} if path else {})}


def told_by(run: Run, replies: Sequence[Reply]) -> dict[str, Any]:
    """What models were asked and what became of it, with what it cost when it was recorded."""
    rules, counts = np.unique(run.of(Result.OPINION)["rule"], return_counts=True)
    pairs = zip(rules.tolist(), counts.tolist(), strict=True)
    return {
        "questions": len(run.of(Result.QUESTION)),
        "verdicts": {Verdict(rule).name.lower(): count for rule, count in pairs},
        "calls_made": sum(not reply.replayed for reply in replies),
        "contaminated": sum(reply.contaminated for reply in replies),
        "cost_usd": sum(reply.cost_micros for reply in replies) / MICROS_PER_UNIT,
    }


def _contamination(run: Run, clean: Run | None) -> str:
    assert run.clean_from_ms is not None
    if clean is None:
        return (
            "No bar lies beyond what the models may have read, so there are no headline figures: "
            "those of all bars are contaminated, and stand in --json under that name."
        )
    share = 1.0 - len(clean.block) / len(run.block)
    return (
        f"{share:.0%} of the events lie before {utc(run.clean_from_ms)[:10]}, where a model may "
        "have read of them: the figures leave them out."
    )


def write_summary(run: Run, result: dict[str, Any]) -> None:
    """The figures, the books, and the caveats."""
    span = result["time_span"]
    write(f"run {run.run_id}: {span['start'][:16]} to {span['end'][:16]}, {span['days']:.1f} days")
    write(
        f"{result['bars']:,} bars, {result['events']:,} events in {result['seconds']:.2f} s "
        f"({result['events_per_second'] or 0:,.0f} a second)"
    )
    write()
    write_table(("", "", " ", "  "), _figures(result), header=False)
    write()
    told = run if run.clean_from_ms is None else beyond(run, run.clean_from_ms)
    if told is not None:
        write_table(_BOOK_COLUMNS, [_book_row(row) for row in Breakdown(told).by_book])
        write()
    if advice := result.get("advice"):
        said = ", ".join(f"{count:,} {verdict}" for verdict, count in advice["verdicts"].items())
        cost = f" ({advice['cost_usd']:,.4f} USD)" if advice["cost_usd"] else ""
        write_note(f"{advice['questions']:,} questions to models{cost}: {said or 'no answer'}.")
    if control := result.get("control"):
        write_note(
            f"With ticker, dates and price level hidden the models made "
            f"{_told(control['net_pnl'], '+,.2f')} net: a gap of {_told(control['gap'], '+,.2f')}."
        )
    for caveat in result["caveats"]:
        write_note(caveat)


def _figures(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (name.replace("_", " "), _told(result[name], form), label, _told(result[figure], shape))
        for name, form, label, figure, shape in _TABLE
    ]


def _told(value: float | None, form: str) -> str:
    """A figure, or that there is none."""
    return "none" if value is None else format(value, form)


def _book_row(row: Row) -> tuple[str, ...]:
    micros = (row.gross_micros, row.costs_micros, row.net_micros)
    money = [f"{value / MICROS_PER_UNIT:,.2f}" for value in micros]
    return (row.name, f"{row.trades:,}", _told(row.win_rate, ".1%"), *money)
