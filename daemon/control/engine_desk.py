"""The desk of a running engine: its arrays read in place, codes by name and money in quote.

Reading copies nothing but what is answered and changes nothing. It must happen in the loop's own
thread, where the step never runs at the same time. Decisions and trades leave no trace in the
engine, so the loop tells them, and the last of each are kept here.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from core.engine import Engine
from core.model import (
    MICROS_PER_UNIT,
    ExitReason,
    InstrumentKind,
    Mode,
    OrderStatus,
    OrderStyle,
    Records,
    Result,
)
from daemon.control.desk import Order, Row
from daemon.journal import CommandRow
from risk.gate import Rule
from strategies.regimes import Regime

KEPT = 1_000
HALTS = ("halt", "flatten")
DECISIONS = (Result.DECISION, Result.APPROVED, Result.REFUSED)


class EngineDesk:
    """A ``Desk`` over an engine. ``command`` hands an order to the loop; ``commands`` are the last
    the journal has, the oldest first; ``about`` adds to the status what the engine does not know
    (run id, mode of the run, links)."""

    def __init__(
        self,
        engine: Engine,
        *,
        command: Callable[[Order], Awaitable[int]],
        commands: Callable[[], Sequence[CommandRow]],
        ready: Callable[[], bool],
        healthy: Callable[[], bool],
        metrics_text: Callable[[], bytes],
        about: Callable[[], Row] = dict,
        kept: int = KEPT,
    ) -> None:
        self._engine = engine
        self._command, self._commands = command, commands
        self._about = about
        self.ready, self.healthy, self.metrics_text = ready, healthy, metrics_text
        self._decisions: deque[Any] = deque(maxlen=kept)
        self._trades: deque[Any] = deque(maxlen=kept)

    def observe(self, _events: Records, outcomes: Records, _track: Records) -> None:
        """Keep what is worth showing of outcomes that are durable now. An observer of the journal;
        after a restart it is shown the last outcomes of the record first."""
        if len(outcomes):
            _keep(self._decisions, outcomes, DECISIONS)
            _keep(self._trades, outcomes, (Result.TRADE,))

    async def command(self, order: Order) -> int:
        """Number of the event at which the order took effect."""
        return await self._command(order)

    def status(self) -> Row:
        """The account, the halt latch, and every instrument."""
        account = self._engine.arrays["account"][0]
        return {
            **self._about(),
            "ready": self.ready(),
            "healthy": self.healthy(),
            "mode": _name(Mode, account["mode"]),
            "mode_rule": _name(Rule, account["mode_rule"]),
            "ts": _stamp(account["now"]),
            "seq": int(account["seq"]),
            **_money(account),
            "decisions": int(account["decisions"]),
            "orders": int(account["orders"]),
            "orders_working": int(account["working"]),
            "books": len(self._engine.books),
            "last_command": next(iter(self.commands(1)), None),
            "instruments": list(self._instruments()),
        }

    def positions(self) -> list[Row]:
        """Every book, flat or not."""
        return [self._position(b) for b in range(len(self._engine.books))]

    def orders(self) -> list[Row]:
        """Every order that is working or with a venue."""
        rows = self._engine.arrays["orders"]
        return [self._order(rows[k]) for k in np.flatnonzero(rows["status"] != OrderStatus.FREE)]

    def decisions(self, limit: int) -> list[Row]:
        """The last decisions told, with what the gate said of them; the newest first."""
        return [self._decision(row) for row in _last(self._decisions, limit)]

    def trades(self, limit: int) -> list[Row]:
        """The last round trips, the newest first."""
        return [self._trade(row) for row in _last(self._trades, limit)]

    def commands(self, limit: int) -> list[Row]:
        """The last commands, with who gave them and why; the newest first."""
        rows = self._commands()
        return [self._said(row) for row in reversed(rows[-limit:])]

    def _said(self, row: CommandRow) -> Row:
        book = None if row.book is None else self._engine.books[row.book].name
        return {**asdict(row), "book": book}

    def _instruments(self) -> Iterator[Row]:
        rows = self._engine.arrays["instruments"]
        for i, instrument in enumerate(self._engine.instruments):
            row = rows[i]
            yield {
                "instrument": instrument.name,
                "kind": _name(InstrumentKind, row["kind"]),
                "open": bool(row["open"]),
                "linked": bool(row["linked"]),
                "price": _number(row["price"]),
                "regime": _name(Regime, row["regime"]),
                "bar_ts": _stamp(row["bar_ts"]),
                "quote_ts": _stamp(row["quote_ts"]),
            }

    def _position(self, b: int) -> Row:
        book, row = self._engine.books[b], self._engine.arrays["positions"][b]
        place = int(self._engine.arrays["books"][b]["instrument"])
        held = bool(row["quantity"] != 0.0)
        return {
            "book": book.name,
            "strategy": book.strategy.name,
            "instrument": book.instrument,
            "quantity": _number(row["quantity"]),
            "entry": _number(row["entry"]) if held else None,
            "price": _number(self._engine.arrays["instruments"][place]["price"]),
            "target": _number(row["target"]),
            "wanted": _number(row["wanted"]),
            "pending": _number(row["pending"]),
            "orders_working": int(row["working"]),
            "opened_ts": _stamp(row["opened_ts"]) if held else None,
            "bars_held": int(row["bars_held"]),
            **{name: _quote(row[f"{name}_micros"]) for name in _BOOK_MONEY},
            "trades": int(row["trades"]),
        }

    def _order(self, row: Any) -> Row:
        book = self._engine.books[int(row["book"])]
        return {
            "order": int(row["id"]),
            "book": book.name,
            "instrument": book.instrument,
            "status": _name(OrderStatus, row["status"]),
            "side": "buy" if row["quantity"] > 0.0 else "sell",
            "quantity": _number(row["quantity"]),
            "limit": _number(row["limit"]),
            "reference": _number(row["reference"]),
            "style": _name(OrderStyle, row["style"]),
            "reduce_only": bool(row["reduce_only"]),
            "exit": _name(ExitReason, row["exit"]),
            "born_ts": _stamp(row["born_ts"]),
            "bars_left": int(row["bars_left"]),
            "decision": int(row["decision"]),
        }

    def _decision(self, row: Any) -> Row:
        book = self._engine.books[int(row["book"])]
        decided = row["kind"] == Result.DECISION
        return {
            "seq": int(row["seq"]),
            "ts": _stamp(row["ts"]),
            "book": book.name,
            "instrument": book.instrument,
            "kind": _name(Result, row["kind"]),
            "decision": int(row["decision"]),
            "target": _number(row["target"]),
            "confidence": _number(row["confidence"]),
            "reason": _explained(book.strategy.explain, int(row["reason"])) if decided else None,
            "rule": None if decided else _name(Rule, row["rule"]),
            "quantity": None if decided else _number(row["quantity"]),
            "price": _number(row["price"]),
            "regime": _name(Regime, row["regime"]),
        }

    def _trade(self, row: Any) -> Row:
        book = self._engine.books[int(row["book"])]
        return {
            "seq": int(row["seq"]),
            "ts": _stamp(row["ts"]),
            "opened_ts": _stamp(row["opened_ts"]),
            "book": book.name,
            "instrument": book.instrument,
            "quantity": _number(row["quantity"]),
            "entry": _number(row["entry"]),
            "price": _number(row["price"]),
            "exit": _name(ExitReason, row["exit"]),
            "command": self._closing(row),
            "net": _quote(row["amount_micros"]),
            "fees": _quote(row["fee_micros"]),
            "bars_held": int(row["target"]),
            "regime": _name(Regime, row["regime"]),
        }

    def _closing(self, row: Any) -> Row | None:
        """The command that closed a trade, None where none did or it is long ago."""
        said = [c for c in reversed(self._commands()) if c.seq < row["seq"]]
        if row["exit"] == ExitReason.COMMAND:
            found = next((c for c in said if c.book == row["book"]), None)
        elif row["exit"] == ExitReason.HALT:
            # the last word that moved the latch; where that was no halt, the drawdown halted
            found = next((c for c in said if c.book is None), None)
            found = found if found and found.word in HALTS else None
        else:
            return None
        return None if found is None else self._said(found)


_BOOK_MONEY = ("notional", "unrealised", "realised", "fees", "funding")


def _money(account: Any) -> Row:
    """The account in quote; a day's return is against the equity the day began with."""
    start, fees, funding, realised, unrealised = (
        int(account[f"{name}_micros"])
        for name in ("start", "fees", "funding", "realised", "unrealised")
    )
    equity = start + realised + unrealised - fees - funding
    return {
        "equity": _quote(equity),
        "equity_start": _quote(start),
        "realised": _quote(realised),
        "unrealised": _quote(unrealised),
        "fees": _quote(fees),
        "funding": _quote(funding),
        "exposure": _quote(account["notional_micros"]),
        "day_return": _change(equity, int(account["day_start_micros"])),
        "drawdown": -_change(equity, max(int(account["peak_micros"]), equity)),
    }


def _change(equity: int, since: int) -> float:
    return equity / since - 1.0 if since else 0.0


def _keep(kept: deque[Any], outcomes: Records, kinds: tuple[Result, ...]) -> None:
    """Copy the rows of these kinds: outcomes are a view that the next step overwrites."""
    at = np.flatnonzero(np.isin(outcomes["kind"], kinds))
    if len(at):
        kept.extend(outcomes[at[-(kept.maxlen or 0) :]])


def _last(kept: deque[Any], limit: int) -> list[Any]:
    return [kept[-1 - k] for k in range(min(limit, len(kept)))]


def _quote(micros: Any) -> float:
    return int(micros) / MICROS_PER_UNIT


def _number(value: Any) -> float | None:
    """A number JSON can hold."""
    return float(value) if math.isfinite(value) else None


def _stamp(ts: Any) -> int | None:
    """Unix ms; what never happened has none."""
    return int(ts) or None


def _name(names: Any, code: Any) -> str | None:
    """A code's name in lower case; a code nobody named is told by its number."""
    if not math.isfinite(code):
        return None
    try:
        return str(names(int(code)).name).lower()
    except ValueError:
        return f"code {int(code)}"


def _explained(explain: Callable[[int], str], code: int) -> str:
    """A slip in a strategy's list of reasons must not stop the API."""
    try:
        return explain(code)
    except (ValueError, KeyError):
        return f"code {code}"
