"""What a person sees: tables that fit 80 columns, a progress bar, one line for an error.

Results go to stdout, everything about their making to stderr, so that a pipe gets results only.
"""

import json
import math
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

WIDTH = 80
COLD_STEP_SECONDS = 1.0
EVENTS_WORTH_A_BAR = 2_000_000


def write(text: str = "", *, to_error: bool = False) -> None:
    """One line of plain text."""
    print(text, file=sys.stderr if to_error else sys.stdout, flush=to_error)


def write_json(value: Any) -> None:
    """One JSON value on stdout; what is not a number becomes null."""
    write(json.dumps(_plain(value), allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        ordered = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(inner) for inner in ordered]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def write_note(text: str) -> None:
    """A remark, wrapped and set off from what is around it."""
    from rich.padding import Padding
    from rich.text import Text

    _console(sys.stdout).print(Padding(Text(f"- {text}", style="dim"), (0, 0, 0, 1)))


def write_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    wraps: Collection[str] = (),
    header: bool = True,
) -> None:
    """A table without boxes; numbers to the right. Long text in the columns ``wraps`` is folded."""
    from rich.table import Table
    from rich.text import Text

    shown = [[_cell(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[k]) for row in shown) for k in range(len(columns))]
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None)
    table.show_header = header
    for name, right in zip(columns, numeric, strict=True):
        justify: Any = "right" if right and shown else "left"
        table.add_column(name, justify=justify, no_wrap=name not in wraps, header_style="dim")
    for row in shown:
        table.add_row(*(Text(cell) for cell in row))
    _console(sys.stdout).print(table)


def write_pairs(pairs: Iterable[tuple[str, Any]], *, title: str = "") -> None:
    """Two columns: a name, and its value."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold", box=None)
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text(_cell(value)))
    _console(sys.stdout).print(table)


def _console(stream: TextIO) -> Any:
    from rich.console import Console

    # a file or a pipe has no width, and every table fits this one
    return Console(file=stream, width=None if stream.isatty() else WIDTH, highlight=False)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        money = abs(value) >= 100 and not value.is_integer()
        return f"{value:,.2f}" if money else f"{value:.4g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(cell: str) -> bool:
    return (
        not cell
        or cell in ("none", "yes", "no")
        or cell.strip("+-%").replace(",", "").replace(".", "").isdigit()
    )


@contextmanager
def making(events: int, *, quiet: bool, what: str = "events") -> Iterator[Callable[[int], None]]:
    """While a replay or a sweep runs: a notice when its step must be compiled, a bar when it is
    long.

    Yields what is called with the events (or whatever is counted) that it has folded.
    """
    cold = threading.Timer(COLD_STEP_SECONDS, _say_cold)
    cold.daemon = True
    cold.start()
    bar = (
        None
        if quiet or events < EVENTS_WORTH_A_BAR or not sys.stderr.isatty()
        else _bar(events, what)
    )
    try:
        yield lambda count: _advance(count, cold, bar)
    finally:
        cold.cancel()
        if bar is not None:
            bar.stop()


def _say_cold() -> None:
    text = "compiling the step once, which takes some ten seconds; it is kept for later runs"
    write(text, to_error=True)


def _advance(count: int, cold: threading.Timer, bar: Any) -> None:
    cold.cancel()
    if bar is not None:
        bar.update(bar.task_ids[0], advance=count)


def _bar(events: int, what: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (f"{events:,} {what}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(what, total=events)
    bar.start()
    return bar
