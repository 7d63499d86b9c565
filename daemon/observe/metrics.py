"""Metrics as a projection of the journal: folded from what a step left, so the core calls nobody.

Counters count from the start of the process, as Prometheus expects. Gauges of money and mode go on
where the run stood, for ``resume`` reads them from the recovered state.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from core.engine import Engine
from core.model import MICROS_PER_UNIT, ExitReason, Kind, Mode, Records, Result
from core.model import Verdict as OpinionVerdict
from daemon.clock import now_ms
from daemon.observe.lines import Line, Lines
from daemon.observe.meters import (
    OTHER,
    Direction,
    Flow,
    Meters,
    OrderFate,
    Stage,
    label,
    labels_of,
    verdict_on,
)
from forecasting.questions import Reply
from risk.gate import Rule

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_EVENT = ("kind", "instrument", "ts_event", "up")


class _Told(NamedTuple):
    """The fields of an outcome that are counted."""

    kind: int
    book: int
    reason: int
    rule: int
    exit: int
    quantity: float
    target: float
    amount_micros: int
    fee_micros: int


class Metrics:
    """Counts one run. ``observe`` fits where the loop's journal is observed; the other methods take
    what is not an outcome.

    ``interval_ms`` has the bar length of every instrument, ``feeds`` the names of all feeds, and
    ``build`` what identifies this process (version, code, run_id, mode).
    """

    def __init__(
        self,
        engine: Engine,
        interval_ms: Mapping[str, int],
        *,
        feeds: Iterable[str] = (),
        build: Mapping[str, str] | None = None,
    ) -> None:
        names = [instrument.name for instrument in engine.instruments]
        self._instruments = labels_of(names)
        self._interval_ms = [interval_ms[name] for name in names]
        shown = dict(zip(names, self._instruments, strict=True))
        self._books = [
            (
                book.name if shown[book.instrument] != OTHER else OTHER,
                book.strategy.name,
                shown[book.instrument],
            )
            for book in engine.books
        ]
        self._meters = Meters(self._instruments, self._books)
        self.registry = self._meters.registry
        self.lines = Lines(feeds)
        self.registry.register(self.lines)
        self._meters.build.info(dict(build or {}))
        self._meters.unlabelled.set(self._instruments.count(OTHER))
        self._started_s = now_ms() / 1000
        self._meters.started.set(self._started_s)
        for name, milliseconds in zip(self._instruments, self._interval_ms, strict=True):
            self._meters.interval.labels(name).set(milliseconds / 1000)
        self._tell = {
            Result.DECISION: self._decision,
            Result.APPROVED: self._approved,
            Result.REFUSED: self._refused,
            Result.FILL: self._fill,
            Result.FUNDING: self._funding,
            Result.TRADE: self._trade,
            Result.CANCELLED: self._cancelled,
            Result.MODE: self._mode,
            Result.QUESTION: self._question,
            Result.OPINION: self._opinion,
        }
        self.resume(engine)

    def resume(self, engine: Engine) -> None:
        """Take money, mode, links and last bars from the state; call it again after a recovery."""
        account = engine.arrays["account"][0]
        self._realised: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        for names, position in zip(self._books, engine.arrays["positions"], strict=False):
            self._realised[names] += int(position["realised_micros"])
        for names, micros in self._realised.items():
            self._meters.realised.labels(*names).set(micros / MICROS_PER_UNIT)
        self._open_micros = int(account["unrealised_micros"])
        self._settled_micros = engine_equity(account) - self._open_micros
        self._account(engine_equity(account), int(account["notional_micros"]))
        self._latch(Mode(account["mode"]))
        for name, row in zip(self._instruments, engine.arrays["instruments"], strict=False):
            close_ms = int(row["bar_ts"])
            self._meters.last_bar.labels(name).set(close_ms / 1000 or self._started_s)
            self._meters.link_up.labels(name).set(float(row["linked"]))
            self._meters.open.labels(name).set(float(row["open"] or name == OTHER))

    async def append(self, events: Records, outcomes: Records, track: Records) -> None:
        """As ``observe``, where a ``core.ports.Journal`` is wanted."""
        self.observe(events, outcomes, track)

    def observe(self, events: Records, outcomes: Records, track: Records) -> None:
        """Count what a step did."""
        if not len(events):
            return
        for kind, instrument, opened_ms, up in _rows(events, _EVENT):
            self._meters.events.labels(label(Kind(kind))).inc()
            if kind == Kind.BAR:
                self._bar(instrument, opened_ms)
            elif kind == Kind.LINK:
                self._meters.link_up.labels(self._instruments[instrument]).set(up)
            elif kind == Kind.RESOLUTION and self._instruments[instrument] != OTHER:
                self._meters.open.labels(self._instruments[instrument]).set(0.0)
        for told in map(_Told._make, _rows(outcomes, _Told._fields)):
            self._tell[Result(told.kind)](told)
        self._account(int(track[-1]["equity_micros"]), int(track[-1]["notional_micros"]))

    def _bar(self, instrument: int, opened_ms: int) -> None:
        name, close_ms = self._instruments[instrument], opened_ms + self._interval_ms[instrument]
        self._meters.bars.labels(name).inc()
        self._meters.last_bar.labels(name).set(close_ms / 1000)
        self._meters.bar_lag.observe(max(now_ms() - close_ms, 0) / 1000)

    def _decision(self, told: _Told) -> None:
        self._meters.decisions.labels(*self._books[told.book], _direction(told.target)).inc()

    def _intent(self, told: _Told) -> None:
        rule = Rule(told.rule)
        strategy = self._books[told.book][1]
        self._meters.intents.labels(strategy, verdict_on(rule), label(rule)).inc()

    def _approved(self, told: _Told) -> None:
        self._intent(told)
        self._meters.orders.labels(*self._books[told.book], OrderFate.APPROVED).inc()

    def _refused(self, told: _Told) -> None:
        self._intent(told)

    def _cancelled(self, told: _Told) -> None:
        self._meters.orders.labels(*self._books[told.book], OrderFate.CANCELLED).inc()

    def _fill(self, told: _Told) -> None:
        names = self._books[told.book]
        self._meters.fills.labels(*names, _direction(told.quantity)).inc()
        # a maker's rebate would lower a counter
        self._meters.fees.labels(*names).inc(max(told.fee_micros, 0) / MICROS_PER_UNIT)
        self._realised[names] += told.amount_micros
        self._meters.realised.labels(*names).set(self._realised[names] / MICROS_PER_UNIT)
        self._settled_micros += told.amount_micros - told.fee_micros

    def _funding(self, told: _Told) -> None:
        flow = Flow.PAID if told.amount_micros > 0 else Flow.RECEIVED
        paid = self._meters.funding.labels(*self._books[told.book], flow)
        paid.inc(abs(told.amount_micros) / MICROS_PER_UNIT)
        self._settled_micros -= told.amount_micros

    def _trade(self, told: _Told) -> None:
        ended = label(ExitReason(told.exit))
        self._meters.trades.labels(self._books[told.book][1], ended).inc()

    def _mode(self, told: _Told) -> None:
        mode = Mode(told.reason)
        self._meters.gate_moves.labels(label(mode)).inc()
        self._latch(mode)

    def _question(self, told: _Told) -> None:
        self._meters.questions.labels(self._books[told.book][1]).inc()

    def _opinion(self, told: _Told) -> None:
        verdict = label(OpinionVerdict(told.rule))
        self._meters.opinions.labels(self._books[told.book][1], verdict).inc()

    def answered(self, reply: Reply) -> None:
        """A model's call ended."""
        self._meters.calls.labels(reply.outcome.value).inc()
        self._meters.call_latency.observe(reply.latency_ms / 1000)
        self._meters.call_cost.inc(reply.cost_micros / MICROS_PER_UNIT)

    def _latch(self, mode: Mode) -> None:
        for each in Mode:
            self._meters.gate.labels(label(each)).set(float(each == mode))

    def _account(self, equity_micros: int, notional_micros: int) -> None:
        """Equity is what is settled plus what is open, to the micro."""
        self._open_micros = equity_micros - self._settled_micros
        self._meters.unrealised.set(self._open_micros / MICROS_PER_UNIT)
        self._meters.equity.set(equity_micros / MICROS_PER_UNIT)
        ruined = equity_micros <= 0
        self._meters.exposure.set(float("inf") if ruined else notional_micros / equity_micros)

    def tick(self, seconds: Mapping[Stage, float]) -> None:
        """The loop completed a tick, which took so long in each stage."""
        self._meters.ticks.inc()
        self._meters.last_tick.set(now_ms() / 1000)
        for stage, taken_s in seconds.items():
            self._meters.stages.labels(stage).observe(taken_s)
        if Stage.JOURNAL in seconds:
            self._meters.fsync.observe(seconds[Stage.JOURNAL])

    def follow(self, feed: str, line: Line, troubles: Iterable[str] = ()) -> None:
        """Read a feed's own state at every scrape; see ``Lines.follow``."""
        self.lines.follow(feed, line, troubles)

    def loop_lag(self, seconds: float) -> None:
        """A timer of the event loop fired so late."""
        self._meters.loop_lag.observe(seconds)

    def snapshot_kept(self) -> None:
        """A snapshot of the state is on disk."""
        self._meters.snapshot.set(now_ms() / 1000)

    def audited(self, mismatches: int) -> None:
        """A replay was compared with the journal."""
        self._meters.audits.inc()
        self._meters.mismatches.inc(mismatches)
        self._meters.last_audit.set(now_ms() / 1000)

    def reconciled(self, mismatches: int) -> None:
        """Books were compared with the venue's; so many differ."""
        self._meters.reconcile.set(mismatches)
        self._meters.last_reconcile.set(now_ms() / 1000)

    def funding_reconciled(self, apart_micros: int) -> None:
        """Funding of the books was compared with the venue's: so much more did they receive."""
        self._meters.funding_apart.set(apart_micros / MICROS_PER_UNIT)
        self._meters.last_funding_check.set(now_ms() / 1000)

    def exposition(self) -> bytes:
        """All of it in Prometheus's text format; its type is ``CONTENT_TYPE``.

        It may be asked for in any thread: every series is there from the start, and each value is
        read under its lock. With 200 instruments it takes 0.1 s, too long for the loop's own.
        """
        return generate_latest(self.registry)


def engine_equity(account: Any) -> int:
    """start + realised + unrealised - fees - funding, in micros."""
    gained = int(account["start_micros"]) + int(account["realised_micros"])
    spent = int(account["fees_micros"]) + int(account["funding_micros"])
    return gained + int(account["unrealised_micros"]) - spent


def _rows(records: Records, names: Iterable[str]) -> Any:
    """Some fields of every record as plain numbers."""
    return zip(*(records[name].tolist() for name in names), strict=True)


def _direction(quantity: float) -> Direction:
    if quantity == 0.0:
        return Direction.FLAT
    return Direction.LONG if quantity > 0.0 else Direction.SHORT
