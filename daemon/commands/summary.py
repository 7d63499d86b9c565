"""The result of a run: as the JSON that ``replay --json`` promises, and as tables for a person."""

from pathlib import Path
from typing import Any

from backtest.breakdown import Breakdown, Row
from backtest.run import Run
from backtest.statistics import summary
from core.model import MICROS_PER_UNIT
from daemon.console import write, write_note, write_table

_BOOK_COLUMNS = ("book", "trades", "won", "gross", "costs", "net")


def summarise(run: Run, path: Path | None = None) -> dict[str, Any]:
    """Every figure of a run, and where it is kept."""
    return {**summary(run), **({"path": str(path)} if path else {})}


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
    rows = Breakdown(run).by_book
    write_table(_BOOK_COLUMNS, [_book_row(row) for row in rows])
    write()
    for caveat in result["caveats"]:
        write_note(caveat)


def _figures(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        ("net pnl", f"{result['net_pnl']:+,.2f}", "return", f"{result['return']:+.2%}"),
        (
            "gross pnl",
            f"{result['gross_pnl']:+,.2f}",
            "max drawdown",
            f"{result['max_drawdown']:.2%}",
        ),
        ("fees", f"{result['fees']:,.2f}", "Sharpe", _ratio(result["sharpe"])),
        ("spread", f"{result['spread']:,.2f}", "Sortino", _ratio(result["sortino"])),
        (
            "slippage",
            f"{result['slippage']:,.2f}",
            "profit factor",
            _ratio(result["profit_factor"]),
        ),
        ("funding", f"{result['funding']:,.2f}", "win rate", _share(result["win_rate"])),
        ("trades", f"{result['trades']:,}", "time in market", _share(result["exposure_time"])),
    ]


def _ratio(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _book_row(row: Row) -> tuple[str, ...]:
    micros = (row.gross_micros, row.costs_micros, row.net_micros)
    money = [f"{value / MICROS_PER_UNIT:,.2f}" for value in micros]
    return (row.name, f"{row.trades:,}", _share(row.win_rate), *money)
