"""A readable view of the JSON log: a line an entry, chosen by what it is of.

What a log holds came from outside in part, so nothing of it reaches the terminal as a control
character. A line that is no JSON is shown as it stands: it may be the one that matters.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from core.errors import DataError
from daemon.control.text import shown

LEVELS = ("debug", "info", "warning", "error", "critical")
TIMES = ("timestamp", "time", "ts")
HEAD = (*TIMES, "level", "event", "exception", "stack")
POLL_SECONDS = 0.25
LINE_CHARACTERS_MAX = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are wanted; an empty choice wants all."""

    level: str = "debug"
    instruments: tuple[str, ...] = ()
    books: tuple[str, ...] = ()

    def wants(self, entry: dict[str, Any]) -> bool:
        """Whether an entry passes; a level nobody knows counts as the highest."""
        level = str(entry.get("level", "info")).lower()
        rank = LEVELS.index(level) if level in LEVELS else len(LEVELS)
        return (
            rank >= LEVELS.index(self.level)
            and _among(entry, "instrument", self.instruments)
            and _among(entry, "book", self.books)
        )

    @property
    def chooses(self) -> bool:
        """Whether anything is left out."""
        return self != Filter()


def _among(entry: dict[str, Any], key: str, wanted: tuple[str, ...]) -> bool:
    return not wanted or any(name in wanted for name in _named(entry, key))


def _named(entry: dict[str, Any], key: str) -> Iterator[Any]:
    """What an entry names under a key: by itself, in the plural, or in the rows of its lists, for
    one line of a tick tells of many books."""
    yield entry.get(key)
    for name, value in entry.items():
        for row in value if isinstance(value, list) else ():
            if name == f"{key}s":
                yield row
            elif isinstance(row, dict):
                yield row.get(key)


def views(lines: Iterable[str], chosen: Filter, *, raw: bool) -> Iterator[str]:
    """The wanted lines: as a person reads them, or raw as the JSON they were."""
    for line in lines:
        entry = parsed(line)
        if entry is None:
            if not raw and not chosen.chooses and line.strip():
                yield shown(line.rstrip("\n"))
        elif chosen.wants(entry):
            yield json.dumps(entry) if raw else view(entry)


def parsed(line: str) -> dict[str, Any] | None:
    """The entry of a line, None when it holds none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def view(entry: dict[str, Any]) -> str:
    """One entry as one line: time, level, event, and the rest by name."""
    when = next((entry[name] for name in TIMES if name in entry), "")
    level = str(entry.get("level", "info")).lower()
    rest = [f"{shown(name, 40)}={_value(entry[name])}" for name in entry if name not in HEAD]
    head = f"{_clock(when)} {shown(level, 8):<8} {shown(entry.get('event', ''), 200)}"
    trace = str(entry.get("exception") or entry.get("stack") or "")
    lines = [" ".join([head, *rest]), *(f"    {shown(part)}" for part in trace.splitlines())]
    return "\n".join(lines)


def _clock(when: Any) -> str:
    """The time of day of an ISO stamp or unix ms; anything else as it stands."""
    if isinstance(when, int | float) and not isinstance(when, bool) and abs(when) < 1e14:
        seconds = int(when) // 1000 % 86_400
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    text = shown(when, 32)
    return text[11:19] if len(text) >= 19 and text[10] in "T " else text


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value)
    cut = shown(text, 200)
    return json.dumps(cut, ensure_ascii=False) if " " in cut or not cut else cut


def lines_of(
    path: Path, *, last: int, follow: bool, sleep: Callable[[float], None]
) -> Iterator[str]:
    """The last lines of a file, then, when following, each line as it is written.

    A file that is moved away and made anew, or cut, is read on from its start.
    """
    file = _opened(path)
    try:
        yield from deque(file, maxlen=last)
        part = ""
        while follow:
            text = file.readline(LINE_CHARACTERS_MAX)
            part += text
            if part.endswith("\n") or len(part) >= LINE_CHARACTERS_MAX:
                yield part
                part = ""
            elif not text:
                if _is_another(path, file):
                    file.close()
                    file = _opened(path)
                sleep(POLL_SECONDS)
    finally:
        file.close()


def _opened(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _is_another(path: Path, file: TextIO) -> bool:
    """Whether the path names another file by now, or the same one cut short."""
    ours = os.fstat(file.fileno())
    try:
        theirs = path.stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) or (
        theirs.st_size < file.buffer.tell()
    )
