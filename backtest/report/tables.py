"""The tables of the page: rows to HTML, every text escaped, every column with its sum below."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from backtest.breakdown import Breakdown, Row
from backtest.report import texts
from backtest.report.texts import DASH, escape, instant, money, percent, plain, ratio, spaced
from backtest.run import BookInfo, Run
from core.model import FeeModel, InstrumentKind, Result
from markets.history import Quality
from risk.gate import Rule
from risk.limits import SizingRule

Cells = Sequence[str]

CODES: Mapping[str, type[IntEnum]] = {
    "kind": InstrumentKind,
    "fee_model": FeeModel,
    "rule": SizingRule,
}
"""Settings that are codes."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a breakdown: its head, what it shows, and what the head means."""

    head: str
    show: Callable[[Row], str]
    about: str = ""


COLUMNS = (
    Column("trades", lambda row: f"{row.trades:,}", "finished round trips"),
    Column("won", lambda row: percent(row.win_rate), "share of trades with a gain after costs"),
    Column("profit factor", lambda row: ratio(row.profit_factor), "won over lost; – if none lost"),
    Column("before costs", lambda row: toned(row.gross_micros), "net plus all costs"),
    Column("fees", lambda row: money(row.fees_micros)),
    Column("spread", lambda row: money(row.spread_micros), "paid inside the fill prices"),
    Column("slippage", lambda row: money(row.slippage_micros), "paid inside the fill prices"),
    Column("funding", lambda row: money(row.funding_micros), "positive: paid"),
    Column("open", lambda row: toned(row.unrealised_micros), "unrealised at the end"),
    Column("net", lambda row: toned(row.net_micros), "what equity gained"),
)


def toned(micros: int) -> str:
    """Money with its sign, coloured by it."""
    tone = "gain" if micros > 0 else "loss" if micros < 0 else ""
    return f'<span class="{tone}">{money(micros, plus=True)}</span>'


def table(heads: Cells, rows: Iterable[Cells], foot: Cells = (), *, texts_first: int = 1) -> str:
    """A table of cells that are HTML already; the first ``texts_first`` columns hold text."""

    def line(cells: Cells, tag: str) -> str:
        kinds = ["text" if k < texts_first else "number" for k in range(len(cells))]
        inner = "".join(
            f'<{tag} class="{kind}">{cell}</{tag}>' for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "".join(line(cells, "td") for cells in rows)
    below = f"<tfoot>{line(foot, 'td')}</tfoot>" if foot else ""
    head = f"<thead>{line(heads, 'th')}</thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody>{below}</table></div>'


def breakdown(
    what: str,
    rows: Sequence[Row],
    total: Row,
    *,
    bars: bool = False,
    change: bool = False,
    summed: bool = True,
) -> str:
    """A breakdown with its sum below; ``bars`` adds their share.

    ``change``: unrealised is its change over a stretch of time.
    """
    heads = [escape(what), *(["bars", "share"] if bars else [])]
    for column in COLUMNS:
        about = "change of unrealised" if change and column.head == "open" else column.about
        heads.append(
            f'<span title="{escape(about)}">{column.head}</span>' if about else column.head
        )
    all_bars = sum(row.bars for row in rows)

    def cells(row: Row) -> list[str]:
        share = percent(row.bars / all_bars if all_bars else None)
        counted = [f"{row.bars:,}", share] if bars else []
        return [escape(row.name), *counted, *(column.show(row) for column in COLUMNS)]

    below = cells(total) if summed and len(rows) > 1 else ()
    return table(heads, map(cells, rows), below)


def costs(parts: Breakdown) -> str:
    """Each kind of cost, in quote and in basis points of what was traded."""

    def bps(value: float | None) -> str:
        return DASH if value is None else texts.signed(f"{value:.2f}")

    rows = [[escape(c.name), money(c.paid_micros), bps(c.turnover_bps)] for c in parts.costs]
    told = [cost.turnover_bps for cost in parts.costs if cost.turnover_bps is not None]
    foot = ["total", money(parts.totals.costs_micros), bps(sum(told) if told else None)]
    return table(["cost", "paid", "bps of turnover"], rows, foot)


def refused(run: Run) -> str:
    """Refused intents by rule, the most frequent first."""
    rows = run.of(Result.REFUSED)
    cells = []
    for code in np.unique(rows["rule"]).tolist():
        name, stamps = Rule(code).name.lower(), rows["ts"][rows["rule"] == code]
        first, last = instant(int(stamps[0])), instant(int(stamps[-1]))
        meaning = escape(texts.rule_text(name))
        cells.append(
            (len(stamps), [escape(spaced(name)), meaning, f"{len(stamps):,}", first, last])
        )
    cells.sort(key=lambda entry: -entry[0])
    heads = ["rule", "why", "refused", "first (UTC)", "last (UTC)"]
    return table(heads, [row for _, row in cells], texts_first=2)


def quality(qualities: Mapping[str, Quality]) -> str:
    """What reading each file met."""
    heads = ["instrument", "rows read", "used", "duplicates", "unsorted", "gaps", "bars missing"]
    heads += ["largest gap", "remarks"]
    return table(heads, [_quality_cells(name, each) for name, each in qualities.items()])


def _quality_cells(name: str, each: Quality) -> list[str]:
    counts = [each.rows_read, each.rows_used, each.duplicates, each.unsorted, each.gaps]
    counts += [each.bars_missing, each.gap_largest]
    remarks = [f"{count:,} rows skipped: {why}" for why, count in each.skipped.items()]
    remarks += [f"{count:,} cells blanked: {why}" for why, count in each.blanked.items()]
    told = "<br>".join(escape(remark) for remark in (*remarks, *each.notes))
    return [escape(name), *(f"{count:,}" for count in counts), told or DASH]


def parameters(books: Sequence[BookInfo]) -> str:
    """The books' parameters, a column each."""
    heads = ["parameter", *(escape(book.name) for book in books)]
    names = dict.fromkeys(name for book in books for name in book.params)
    rows = [
        ["strategy", *(escape(book.strategy) for book in books)],
        ["instrument", *(escape(book.instrument) for book in books)],
    ]
    for name in names:
        shown = [plain(book.params.get(name)) for book in books]
        rows.append([escape(spaced(name)), *map(escape, shown)])
    return table(heads, rows)


def _setting(name: str, value: Any) -> str:
    """A setting as people write it; a code, which a saved run keeps as a number, by its name."""
    if name in CODES and value is not None:
        return spaced(CODES[name](value).name.lower())
    return plain(value)


def terms(entries: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Settings side by side: a row a setting, a column an entry, nested ones left out."""
    names = dict.fromkeys(name for _, entry in entries for name in entry)
    rows = [
        [escape(spaced(name)), *(escape(_setting(name, entry.get(name))) for _, entry in entries)]
        for name in names
        if not any(isinstance(entry.get(name), dict) for _, entry in entries)
    ]
    return table(["setting", *(escape(name) for name, _ in entries)], rows)
