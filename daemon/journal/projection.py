"""From records to rows: what each table is told of a block of events and what came of it.

Everything is done column by column, because a bulk replay brings a hundred thousand rows at a time
and an object for each would cost more than the database does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Table

from core.model import (
    EVENT,
    HEADER_BYTES,
    Command,
    ExitReason,
    Kind,
    Mode,
    Records,
    Result,
    Verdict,
)
from daemon.journal import schema
from daemon.journal.said import FIELDS, CommandRow, Said
from execution.sending import Ending
from risk.gate import Rule
from strategies.regimes import Regime

Columns: TypeAlias = Mapping[str, Sequence[Any]]
Places: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
Text: TypeAlias = Callable[[int], str]

PAYLOAD = np.dtype((np.void, EVENT.itemsize - HEADER_BYTES))


class Names(dict[int, str]):
    """Texts of codes, each asked for once. A code nobody named is told by its number: a slip in a
    strategy's list of reasons must not stop the journal."""

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def __missing__(self, code: int) -> str:
        try:
            name = self._text(code)
        except (ValueError, KeyError):
            name = f"code {code}"
        self[code] = name
        return name

    def of(self, codes: Records) -> list[str]:
        """The texts of a column of codes."""
        return [self[code] for code in codes.tolist()]


RULES = Names(lambda code: Rule(code).name.lower())
EXITS = Names(lambda code: ExitReason(code).name.lower())
REGIMES = Names(lambda code: Regime(code).name.lower())
MODES = Names(lambda code: Mode(code).name.lower())
VERDICTS = Names(lambda code: Verdict(code).name.lower())
WORDS = Names(lambda code: Command(code).name.lower())


def endings(venue: Mapping[int, str]) -> Names:
    """The texts of why orders ended short: the venue's for its own codes, ours for the rest."""
    return Names(lambda code: venue[code] if code > 0 else Ending(code).name.lower())


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a run is recorded: its last event, outcomes so far, and the last row of equity."""

    seq: int = 0
    outcomes: int = 0
    equity: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """What one transaction adds to a run recorded up to ``mark``. ``said`` is of its commands, in
    their order; nobody may have said anything."""

    run_id: str
    mark: Mark
    events: Records
    outcomes: Records
    track: Records
    reasons: Sequence[Names]
    codes: Names
    said: Sequence[Said] = ()

    @property
    def after(self) -> Mark:
        """The mark once this block is recorded."""
        seq, outcomes = self.mark.seq + len(self.events), self.mark.outcomes + len(self.outcomes)
        last = self.track[-1]
        return Mark(seq, outcomes, (int(last["equity_micros"]), int(last["notional_micros"])))

    @property
    def seqs(self) -> Places:
        """The numbers of its events."""
        return np.arange(self.mark.seq + 1, self.mark.seq + 1 + len(self.events))

    @property
    def commands(self) -> list[CommandRow]:
        """Its commands, each with who gave it and why."""
        at = np.flatnonzero(self.events["kind"] == Kind.COMMAND)
        said = [*self.said, *_same(Said(), at[len(self.said) :])]
        return [
            _command(self.events[k], int(self.seqs[k]), told)
            for k, told in zip(at, said, strict=True)
        ]


def _command(event: Any, seq: int, said: Said) -> CommandRow:
    word = int(event["command"])
    return CommandRow(
        seq=seq,
        ts=int(event["ts_known"]),
        word=WORDS[word],
        book=int(event["book"]) if word == Command.CLOSE else None,
        who=said.who,
        reason=said.reason,
    )


def tables(block: Block) -> Iterator[tuple[Table, Columns]]:
    """Every table with its new columns, a cause before what it caused."""
    yield schema.events, _events(block)
    yield schema.steps, _step(block)
    yield schema.equity, _equity(block)
    if commands := block.commands:
        told = {name: [getattr(row, name) for row in commands] for name in FIELDS}
        yield schema.commands, {"run_id": _same(block.run_id, commands), **told}
    kinds = block.outcomes["kind"]
    for table, kinds_told, columns in OUTCOMES:
        at = np.flatnonzero(np.isin(kinds, kinds_told))
        if len(at):
            yield table, columns(block, block.outcomes[at], at + block.mark.outcomes)


def _same(value: object, rows: Sequence[Any] | Records) -> list[Any]:
    return [value] * len(rows)


def _but(column: Records, missing: Flags) -> list[Any]:
    """A column with None where it is missing."""
    values: list[Any] = column.tolist()
    for k in np.flatnonzero(missing).tolist():
        values[k] = None
    return values


def _floats(column: Records) -> list[float | None]:
    return _but(column, np.isnan(column))


def _events(block: Block) -> Columns:
    events = np.ascontiguousarray(block.events)
    payload = events.view("u1").reshape(-1, EVENT.itemsize)[:, HEADER_BYTES:]
    header = ("ts_known", "ts_event", "kind", "instrument")
    return {
        "run_id": _same(block.run_id, events),
        "seq": block.seqs.tolist(),
        **{name: events[name].tolist() for name in header},
        "payload": np.ascontiguousarray(payload).view(PAYLOAD)[:, 0].tolist(),
    }


def _step(block: Block) -> Columns:
    return {
        "run_id": [block.run_id],
        "seq": [block.after.seq],
        "events": [len(block.events)],
        "outcomes": [len(block.outcomes)],
        "records": [block.outcomes.tobytes()],
    }


def _equity(block: Block) -> Columns:
    track = np.stack([block.track["equity_micros"], block.track["notional_micros"]], axis=1)
    before = block.mark.equity
    changed = np.ones(len(track), bool)
    changed[1:] = (track[1:] != track[:-1]).any(axis=1)
    changed[0] = before is None or tuple(track[0].tolist()) != before
    return {
        "run_id": _same(block.run_id, track[changed]),
        "seq": block.seqs[changed].tolist(),
        "ts": block.events["ts_known"][changed].tolist(),
        "equity_micros": track[changed, 0].tolist(),
        "notional_micros": track[changed, 1].tolist(),
    }


def _when(block: Block, rows: Records, ids: Places) -> dict[str, list[Any]]:
    """What every outcome has."""
    run = _same(block.run_id, rows)
    return {
        "run_id": run,
        "id": ids.tolist(),
        "seq": rows["seq"].tolist(),
        "ts": rows["ts"].tolist(),
    }


def _whose(block: Block, rows: Records, ids: Places) -> dict[str, list[Any]]:
    """What every outcome of a book has: its time, the book, and the decision it came of."""
    owner = {name: rows[name].tolist() for name in ("book", "decision")}
    return {**_when(block, rows, ids), **owner}


def _signals(block: Block, rows: Records, ids: Places) -> Columns:
    books, codes = rows["book"].tolist(), rows["reason"].tolist()
    return {
        **_whose(block, rows, ids),
        "target": _floats(rows["target"]),
        "confidence": _floats(rows["confidence"]),
        "reason_code": codes,
        "reason": [block.reasons[b][code] for b, code in zip(books, codes, strict=True)],
        "regime": REGIMES.of(rows["regime"]),
        "price": _floats(rows["price"]),
    }


def _checks(block: Block, rows: Records, ids: Places) -> Columns:
    approved = rows["kind"] == Result.APPROVED
    return {
        **_whose(block, rows, ids),
        "approved": approved.tolist(),
        "rule_code": rows["rule"].tolist(),
        "rule": RULES.of(rows["rule"]),
        "quantity": _floats(rows["quantity"]),
        "price": _floats(rows["price"]),
        "limit_price": _floats(rows["limit"]),
        "target": _floats(rows["target"]),
        "confidence": _floats(rows["confidence"]),
        "order_id": _but(rows["order"], ~approved),
    }


def _orders(block: Block, rows: Records, ids: Places) -> Columns:
    return {
        **_whose(block, rows, ids),
        "order_id": rows["order"].tolist(),
        "side": np.where(rows["quantity"] > 0.0, "buy", "sell").tolist(),
        "quantity": _floats(rows["quantity"]),
        "limit_price": _floats(rows["limit"]),
        "price": _floats(rows["price"]),
        "exit": EXITS.of(rows["exit"]),
    }


def _ends(block: Block, rows: Records, ids: Places) -> Columns:
    return {
        **_when(block, rows, ids),
        "order_id": rows["order"].tolist(),
        "code": rows["reason"].tolist(),
        "reason": block.codes.of(rows["reason"]),
    }


def _fills(block: Block, rows: Records, ids: Places) -> Columns:
    micros = ("fee_micros", "spread_micros", "slippage_micros")
    return {
        **_whose(block, rows, ids),
        "order_id": _but(rows["order"], rows["order"] == 0),
        **{name: _floats(rows[name]) for name in ("quantity", "price", "entry", "position")},
        "exit": EXITS.of(rows["exit"]),
        **{name: rows[name].tolist() for name in micros},
        "realised_micros": rows["amount_micros"].tolist(),
    }


def _funding(block: Block, rows: Records, ids: Places) -> Columns:
    return {
        **_whose(block, rows, ids),
        "quantity": _floats(rows["quantity"]),
        "price": _floats(rows["price"]),
        "paid_micros": rows["amount_micros"].tolist(),
    }


def _trades(block: Block, rows: Records, ids: Places) -> Columns:
    return {
        **_whose(block, rows, ids),
        "opened_ts": rows["opened_ts"].tolist(),
        **{name: _floats(rows[name]) for name in ("quantity", "entry", "price")},
        "bars_held": _floats(rows["target"]),
        "exit": EXITS.of(rows["exit"]),
        "regime": REGIMES.of(rows["regime"]),
        "net_micros": rows["amount_micros"].tolist(),
        "fee_micros": rows["fee_micros"].tolist(),
    }


def _modes(block: Block, rows: Records, ids: Places) -> Columns:
    return {
        **_when(block, rows, ids),
        "mode": MODES.of(rows["reason"]),
        "rule_code": rows["rule"].tolist(),
        "rule": RULES.of(rows["rule"]),
    }


def _questions(block: Block, rows: Records, ids: Places) -> Columns:
    return {
        **_whose(block, rows, ids),
        "question": rows["order"].tolist(),
        **{name: _floats(rows[name]) for name in ("target", "confidence", "price")},
    }


def _opinions(block: Block, rows: Records, ids: Places) -> Columns:
    return {
        **_whose(block, rows, ids),
        "question": rows["order"].tolist(),
        "verdict_code": rows["rule"].tolist(),
        "verdict": VERDICTS.of(rows["rule"]),
        "side": _floats(rows["target"]),
        "confidence": _floats(rows["confidence"]),
    }


OUTCOMES = (
    (schema.signals, (Result.DECISION,), _signals),
    (schema.risk_checks, (Result.APPROVED, Result.REFUSED), _checks),
    (schema.orders, (Result.APPROVED,), _orders),
    (schema.order_ends, (Result.CANCELLED,), _ends),
    (schema.fills, (Result.FILL,), _fills),
    (schema.funding, (Result.FUNDING,), _funding),
    (schema.trades, (Result.TRADE,), _trades),
    (schema.modes, (Result.MODE,), _modes),
    (schema.questions, (Result.QUESTION,), _questions),
    (schema.opinions, (Result.OPINION,), _opinions),
)
"""The table of each kind of outcome, in the order of their foreign keys."""

assert {kind for _, kinds, _ in OUTCOMES for kind in kinds} == set(Result), "a kind has no table"
