"""Notices: one line each, of what is worth interrupting a person for.

They are made of outcomes that are durable already, so nobody is told of what a crash then undoes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from config.settings import Topic
from core.engine import Book
from core.model import MICROS_PER_UNIT, ExitReason, Kind, Mode, Records, Result
from daemon.control.text import shown
from risk.gate import Rule

TEXT_MAX = 300
TOLD_RULES = (Rule.DAILY_LOSS, Rule.DRAWDOWN)
"""Refusals that say something of the desk; all others are a strategy's daily bread."""

URGENT: frozenset[Topic] = frozenset(("mode", "refusal", "link", "run"))
"""What is kept when not everything can be."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One line, its topic, and the unix ms of the event it tells of."""

    topic: Topic
    text: str
    ts: int


def notices_of(outcomes: Records, books: Sequence[Book]) -> list[Notice]:
    """What is worth telling of these outcomes; most steps have nothing."""
    at = np.flatnonzero(np.isin(outcomes["kind"], tuple(_TEXTS)))
    made = (_notice(outcomes[k], books) for k in at)
    return [notice for notice in made if notice is not None]


def links_of(events: Records, instruments: Sequence[str]) -> list[Notice]:
    """The links that went down or came up among these events."""
    at = np.flatnonzero(events["kind"] == Kind.LINK)
    return [
        link(instruments[int(row["instrument"])], up=row["up"] != 0.0, ts=int(row["ts_known"]))
        for row in events[at]
    ]


def link(name: str, *, up: bool, ts: int, why: str = "") -> Notice:
    """A feed or venue came or went."""
    state = "is up again" if up else "is down: no new risk while blind"
    return Notice("link", _line(f"{name} {state}{f' ({why})' if why else ''}"), ts)


def started(run: str, *, ts: int, about: str = "") -> Notice:
    """The daemon is ready."""
    return Notice("run", _line(f"run {run} started{f': {about}' if about else ''}"), ts)


def stopped(run: str, *, ts: int, why: str) -> Notice:
    """The daemon ends."""
    return Notice("run", _line(f"run {run} stopped: {why}"), ts)


def parted(run: str, mismatches: int, first: str, *, ts: int) -> Notice:
    """An audit found that the record is not what its fold says."""
    told = f"{mismatches} outcomes of its replay are not as recorded, the first: {first}"
    return Notice("run", _line(f"run {run}: {told}"), ts)


def unaudited(run: str, why: str, *, ts: int) -> Notice:
    """An audit was due and could not be made."""
    return Notice("run", _line(f"run {run} could not be audited: {why}"), ts)


def _notice(row: Any, books: Sequence[Book]) -> Notice | None:
    kind = Result(int(row["kind"]))
    if kind is Result.REFUSED and int(row["rule"]) not in TOLD_RULES:
        return None
    topic, text = _TEXTS[kind]
    book = books[int(row["book"])] if int(row["book"]) >= 0 else None
    return Notice(topic, _line(text(row, book)), int(row["ts"]))


def _fill(row: Any, book: Book | None) -> str:
    assert book is not None
    quantity, fee = float(row["quantity"]), int(row["fee_micros"]) / MICROS_PER_UNIT
    verb = "bought" if quantity > 0.0 else "sold"
    exits = "" if row["exit"] == ExitReason.SIGNAL else f", {_name(ExitReason, row['exit'])}"
    price = f"{float(row['price']):,.10g}"
    return (
        f"{book.name}: {verb} {abs(quantity):,.10g} {book.instrument} at {price} "
        f"(fee {fee:,.2f}{exits}), now {float(row['position']):,.10g}"
    )


def _trade(row: Any, book: Book | None) -> str:
    assert book is not None
    net = int(row["amount_micros"]) / MICROS_PER_UNIT
    exits, bars = _name(ExitReason, row["exit"]), int(row["target"])
    return f"{book.name}: closed with {net:+,.2f} after costs ({exits}, {bars:,} bars)"


def _mode(row: Any, _book: Book | None) -> str:
    mode, rule = Mode(int(row["reason"])), Rule(int(row["rule"]))
    cause = "" if rule is Rule.NONE else f" by {_name(Rule, rule)}"
    equity = int(row["equity_micros"]) / MICROS_PER_UNIT
    then = {
        Mode.ACTIVE: "trading",
        Mode.REDUCING: "positions may only shrink",
        Mode.HALTED: "no new risk until an operator resumes",
    }[mode]
    return f"{mode.name}{cause}: {then}; equity {equity:,.2f}"


def _refusal(row: Any, book: Book | None) -> str:
    assert book is not None
    return f"{book.name}: order refused by {_name(Rule, row['rule'])}"


def _name(names: Any, code: Any) -> str:
    return str(names(int(code)).name).lower().replace("_", " ")


def _line(text: str) -> str:
    return shown(text, TEXT_MAX)


_TEXTS: Mapping[Result, tuple[Topic, Callable[[Any, Book | None], str]]] = MappingProxyType(
    {
        Result.FILL: ("fill", _fill),
        Result.TRADE: ("trade", _trade),
        Result.MODE: ("mode", _mode),
        Result.REFUSED: ("refusal", _refusal),
    }
)


def among(notices: Iterable[Notice], topics: Sequence[Topic]) -> list[Notice]:
    """Those of the topics an operator wants."""
    return [notice for notice in notices if notice.topic in topics]
