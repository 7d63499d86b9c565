"""Small candle files and histories for the tests of markets."""

from pathlib import Path

import numpy as np

from core.events import make_events
from core.model import Kind
from markets.history import History, Quality, assemble, make_bars

START = 1_704_067_200_000
MINUTE = 60_000
HEADER = "ts,open,high,low,close,volume"


def row(minute: int, cells: str = "10,12,9,11,5") -> str:
    """A csv line for a minute after START."""
    return f"{START + minute * MINUTE},{cells}"


def write_lines(folder: Path, *lines: str, header: str = HEADER, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def bars_at(minutes: list[int], interval_ms: int = MINUTE) -> History:
    """Bars whose close is 100 plus their place, and a mark quote at each close."""
    opens = START + MINUTE * np.array(minutes, np.int64)
    close = 100.0 + np.arange(len(minutes))
    bars = make_bars(
        opens, interval_ms, open=close, high=close + 1, low=close - 1, close=close, volume=close
    )
    quotes = make_events(Kind.QUOTE, opens + interval_ms, mark=close)
    return assemble([bars, quotes], interval_ms, Quality().spanning(opens, interval_ms))
