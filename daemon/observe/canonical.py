"""The canonical line: one a tick, with all that an operator asks of it, built from its records."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from core.engine import Engine
from core.model import MICROS_PER_UNIT, ExitReason, Kind, Mode, Records, Result, Verdict
from daemon.journal.projection import Names
from daemon.observe.logs import spoken
from daemon.observe.meters import Stage, label
from daemon.observe.stopwatch import Tick
from risk.gate import Rule

ROWS_MAX = 20
"""Rows of a kind that a line tells one by one; the counts are always whole."""


class Canonical:
    """Builds the lines of one run, in the names of its instruments, books and reasons."""

    def __init__(self, engine: Engine) -> None:
        self._instruments = [instrument.name for instrument in engine.instruments]
        self._books = [book.name for book in engine.books]
        self._reasons = [Names(book.strategy.explain) for book in engine.books]

    def line(self, tick: Tick) -> dict[str, Any] | None:
        """The fields of a tick's line; None where no bar came and nothing followed."""
        bars = tick.events[tick.events["kind"] == Kind.BAR]
        if not len(bars) and not len(tick.outcomes):
            return None
        last = tick.track[-1]
        return {
            "events": len(tick.events),
            **self._bars(bars),
            **self._outcomes(tick.outcomes),
            "equity": _quote(last["equity_micros"]),
            "exposure": _quote(last["notional_micros"]),
            **_milliseconds(tick.seconds),
        }

    def _bars(self, bars: Records) -> dict[str, Any]:
        if not len(bars):
            return {}
        names = list(dict.fromkeys(self._instruments[i] for i in bars["instrument"].tolist()))
        closed = {"bars": len(bars), "bar_ts": spoken(int(bars["ts_known"].max()))}
        if len(names) == 1:
            return {"instrument": names[0], **closed}
        return {"instruments": names[:ROWS_MAX], **closed}

    def _outcomes(self, outcomes: Records) -> dict[str, Any]:
        of = {kind: outcomes[outcomes["kind"] == kind] for kind in Result}
        told: dict[str, Any] = {
            "decisions": self._decisions(of[Result.DECISION]),
            "approved": self._rows(of[Result.APPROVED], ("order", "quantity", "limit")),
            "refused": _counted(of[Result.REFUSED], Rule),
            "questions": self._rows(of[Result.QUESTION], ("order", "target")),
            "opinions": _counted(of[Result.OPINION], Verdict),
            "cancelled": len(of[Result.CANCELLED]),
            "fills": self._fills(of[Result.FILL]),
            "trades": self._trades(of[Result.TRADE]),
            "funding_paid": _quote(of[Result.FUNDING]["amount_micros"].sum()),
            "mode": [label(Mode(mode)) for mode in of[Result.MODE]["reason"].tolist()],
            "counts": {kind.name.lower(): len(of[kind]) for kind in of if len(of[kind]) > ROWS_MAX},
        }
        return {name: value for name, value in told.items() if value}

    def _rows(self, rows: Records, fields: Iterable[str]) -> list[dict[str, Any]]:
        return [
            {"book": self._books[int(row["book"])], **{name: row[name].item() for name in fields}}
            for row in rows[:ROWS_MAX]
        ]

    def _decisions(self, rows: Records) -> list[dict[str, Any]]:
        told = self._rows(rows, ("decision", "target", "confidence"))
        for row, decision in zip(rows, told, strict=False):
            code, book = int(row["reason"]), int(row["book"])
            decision["reason"] = self._reasons[book][code]
        return told

    def _fills(self, rows: Records) -> list[dict[str, Any]]:
        told = self._rows(rows, ("order", "quantity", "price", "position"))
        for row, fill in zip(rows, told, strict=False):
            fill["fee"] = _quote(row["fee_micros"])
        return told

    def _trades(self, rows: Records) -> list[dict[str, Any]]:
        told = self._rows(rows, ("quantity", "entry", "price"))
        for row, trade in zip(rows, told, strict=False):
            trade["net"] = _quote(row["amount_micros"])
            trade["exit"] = label(ExitReason(int(row["exit"])))
        return told


def _counted(rows: Records, rules: type[Rule] | type[Verdict]) -> dict[str, int]:
    return dict(Counter(label(rules(rule)) for rule in rows["rule"].tolist()))


def _quote(micros: Any) -> float:
    return int(micros) / MICROS_PER_UNIT


def _milliseconds(seconds: Mapping[Stage, float]) -> dict[str, float]:
    return {f"{stage}_ms": round(taken_s * 1000, 3) for stage, taken_s in seconds.items()}
