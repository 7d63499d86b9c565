"""Every metric there is: its name, its labels and their values, its buckets.

They stand in one place because a name is a promise: alert rules and the dashboard in ``systemd/``
are tested against this list. Label values come from the settings or from enums, never from data,
and every series exists from the start, so a first failure is an increase, not an absence.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import product
from typing import TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from core.model import ExitReason, Kind, Mode
from core.model import Verdict as OpinionVerdict
from forecasting.questions import Outcome
from risk.gate import Rule

INSTRUMENTS_LABELLED_MAX = 200
OTHER = "other"
BOOK = ("book", "strategy", "instrument")
Meter = TypeVar("Meter", bound=MetricWrapperBase)


class Stage(StrEnum):
    """Parts of a tick, in order; together they are the whole of it."""

    ADVANCE = "advance"
    JOURNAL = "journal"
    SUBMIT = "submit"


class Verdict(StrEnum):
    """What the gate said of an intent."""

    APPROVED = "approved"
    REFUSED = "refused"


class OrderFate(StrEnum):
    """What the journal tells of an order beside its fills."""

    APPROVED = "approved"
    CANCELLED = "cancelled"


class Direction(StrEnum):
    """Where a decision points, or a fill goes."""

    LONG = "long"
    SHORT = "short"
    FLAT = "flat"


class Flow(StrEnum):
    """Which way funding went."""

    PAID = "paid"
    RECEIVED = "received"


# An edge stands exactly at each threshold of systemd/prometheus/lockstep.rules.yml.
BAR_LAG_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
JOURNAL_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STAGE_S = (1e-5, 2.5e-5, 1e-4, 2.5e-4, 1e-3, 2.5e-3, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5)
CALL_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
LOOP_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


def label(code: Kind | Mode | Rule | ExitReason | OpinionVerdict) -> str:
    """An enum's member as a label value."""
    return code.name.lower()


def labels_of(names: Sequence[str]) -> list[str]:
    """The label of each instrument: its name, or ``other`` beyond the first two hundred, for the
    tickers of prediction markets are without end."""
    rest = len(names) - INSTRUMENTS_LABELLED_MAX
    return [*names[:INSTRUMENTS_LABELLED_MAX], *[OTHER] * rest]


class Meters:
    """The metrics on a registry of their own, with all their series."""

    def __init__(self, instruments: Iterable[str], books: Iterable[tuple[str, str, str]]) -> None:
        # a second series for each counter that says when it was made: nobody asks for it
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        instruments, books = list(dict.fromkeys(instruments)), list(dict.fromkeys(books))
        self._add_process()
        self._add_market(instruments)
        self._add_books(books)
        self._add_account()
        self._add_journal()

    def _add_process(self) -> None:
        self.build = Info("lockstep_build", "What is running.", registry=self.registry)
        self.started = self._gauge("start_timestamp_seconds", "When this process began.")
        self.ticks = self._counter("ticks_total", "Blocks of events the loop has completed.")
        self.last_tick = self._gauge(
            "last_tick_timestamp_seconds", "When the loop last completed a block of events."
        )
        self.stages = self._histogram(
            "tick_duration_seconds", "Time a tick took, by stage.", STAGE_S, stage=Stage
        )
        self.loop_lag = self._histogram(
            "event_loop_lag_seconds", "How late a timer of the event loop fired.", LOOP_LAG_S
        )

    def _add_market(self, instruments: Sequence[str]) -> None:
        self.unlabelled = self._gauge(
            "instruments_unlabelled", "Instruments that share the label 'other'."
        )
        self.events = self._counter(
            "events_total", "Events folded.", kind=[label(kind) for kind in Kind]
        )
        self.bars = self._counter(
            "bars_processed_total", "Closed bars folded.", instrument=instruments
        )
        self.last_bar = self._gauge(
            "last_bar_timestamp_seconds",
            "Close of the last bar folded, or the start of the process before any.",
            instrument=instruments,
        )
        self.interval = self._gauge(
            "bar_interval_seconds", "Length of a bar.", instrument=instruments
        )
        self.bar_lag = self._histogram(
            "bar_lag_seconds", "From the close of a bar to its outcomes being durable.", BAR_LAG_S
        )
        self.open = self._gauge(
            "instrument_open", "1 until an event contract resolves.", instrument=instruments
        )
        self.link_up = self._gauge(
            "link_up", "1 while the feed of an instrument is up, as the gate sees it.",
            instrument=instruments,
        )  # fmt: skip

    def _add_books(self, books: Sequence[tuple[str, str, str]]) -> None:
        strategies = list(dict.fromkeys(strategy for _, strategy, _ in books))
        exits = [label(code) for code in ExitReason]
        self.decisions = self._of_books(
            "decisions_total", "Decisions told: those that differ from the one before.",
            books, direction=Direction,
        )  # fmt: skip
        self.intents = Counter(
            "lockstep_intents_total",
            "Intents by the gate's verdict and rule; a refusal that repeats is told once.",
            ["strategy", "verdict", "rule"],
            registry=self.registry,
        )
        for strategy, rule in product(strategies, Rule):
            self.intents.labels(strategy, verdict_on(rule), label(rule))
        self.questions = self._counter(
            "questions_total", "Questions to an advisor.", strategy=strategies
        )
        self.opinions = self._counter(
            "opinions_total", "Questions by what became of them; only agreed lets an entry pass.",
            strategy=strategies, verdict=[label(verdict) for verdict in OpinionVerdict],
        )  # fmt: skip
        self.calls = self._counter(
            "model_calls_total", "Calls of language models by how they ended.", outcome=Outcome
        )
        self.call_latency = self._histogram(
            "model_call_duration_seconds",
            "From a question to its answer, retries included.",
            CALL_S,
        )
        self.call_cost = self._counter("model_cost_usd_total", "Money that models cost.")
        self.orders = self._of_books(
            "orders_total", "Orders by what became of them.", books, status=OrderFate
        )
        self.fills = self._of_books("fills_total", "Fills.", books, direction=Direction)
        self.trades = self._counter(
            "trades_total", "Finished round trips.", strategy=strategies, exit=exits
        )
        self.fees = self._of_books("fees_quote_total", "Fees paid.", books)
        self.funding = self._of_books("funding_quote_total", "Funding.", books, flow=Flow)
        self.realised = Gauge(
            "lockstep_realised_pnl_quote",
            "Profit of closed positions before fees and funding, since the run began.",
            BOOK,
            registry=self.registry,
        )
        for names in books:
            self.realised.labels(*names)

    def _add_account(self) -> None:
        self.unrealised = self._gauge("unrealised_pnl_quote", "Profit of open positions.")
        self.equity = self._gauge("equity_quote", "Start + realised + unrealised - fees - funding.")
        self.exposure = self._gauge("exposure_ratio", "Gross notional over equity.")
        modes = [label(mode) for mode in Mode]
        self.gate = self._gauge("gate_state", "1 for the state of the halt latch.", mode=modes)
        self.gate_moves = self._counter(
            "gate_changes_total", "Moves of the halt latch.", mode=modes
        )

    def _add_journal(self) -> None:
        self.fsync = self._histogram(
            "journal_fsync_seconds", "Until a step was durable in the journal.", JOURNAL_S
        )
        self.snapshot = self._gauge(
            "snapshot_timestamp_seconds", "When the state was last snapshot; 0 for never."
        )
        self.audits = self._counter("parity_checks_total", "Replays compared with the journal.")
        self.mismatches = self._counter(
            "parity_mismatches_total", "Outcomes of a replay that were not the recorded ones."
        )
        self.last_audit = self._gauge(
            "last_parity_check_timestamp_seconds", "When a replay was last compared; 0 for never."
        )
        self.reconcile = self._gauge(
            "reconcile_mismatches", "Positions or orders that differ from the venue's, now."
        )
        self.last_reconcile = self._gauge(
            "last_reconcile_timestamp_seconds", "When they were last compared; 0 for never."
        )
        self.funding_apart = self._gauge(
            "funding_apart_quote",
            "Funding the books received beyond the venue's account, since this start.",
        )
        self.funding_apart.set(math.nan)
        self.last_funding_check = self._gauge(
            "last_funding_check_timestamp_seconds", "When it was last compared; 0 for never."
        )

    def _gauge(self, name: str, about: str, **values: Iterable[str]) -> Gauge:
        made = Gauge(f"lockstep_{name}", about, list(values), registry=self.registry)
        return _created(made, values)

    def _counter(self, name: str, about: str, **values: Iterable[str]) -> Counter:
        made = Counter(f"lockstep_{name}", about, list(values), registry=self.registry)
        return _created(made, values)

    def _histogram(
        self, name: str, about: str, buckets: Sequence[float], **values: Iterable[str]
    ) -> Histogram:
        made = Histogram(
            f"lockstep_{name}", about, list(values), buckets=buckets, registry=self.registry
        )
        return _created(made, values)

    def _of_books(
        self,
        name: str,
        about: str,
        books: Sequence[tuple[str, str, str]],
        **values: Iterable[str],
    ) -> Counter:
        """A counter of every book, told apart by further labels."""
        made = Counter(f"lockstep_{name}", about, [*BOOK, *values], registry=self.registry)
        for names, rest in product(books, product(*values.values())):
            made.labels(*names, *rest)
        return made


def _created(made: Meter, values: Mapping[str, Iterable[str]]) -> Meter:
    if values:
        for names in product(*values.values()):
            made.labels(*names)
    return made


def verdict_on(rule: Rule) -> Verdict:
    """NONE is an approval."""
    return Verdict.REFUSED if rule else Verdict.APPROVED
