"""The tables: what happened, from the event to the fill, each row held by the key of its cause.

signals -> risk_checks -> orders -> fills is a chain of foreign keys, so a fill without an approved
order, or an order no check approved, cannot be written. Rows are only ever added; what changes with
time (an order's status, a position) is a view over them. Conventions: times are unix ms, money is
micros, quantities are signed, NaN is NULL. ``id`` is the place of an outcome among all outcomes of
its run, whatever the table. An enum is stored by its name, for a journal must be readable without
the code that wrote it; the codes stay in the raw records of ``steps``.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

REVISION = "0006"
"""The schema this code reads and writes: head of ``migrations``."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _text(name: str, *, null: bool = False, default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=null, server_default=default)


def _whole(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null, autoincrement=False)


def _real(name: str, *, null: bool = True) -> Column[float]:
    return Column(name, Double, nullable=null)


def _table(name: str, key: str, *items: SchemaItem, large: bool = False) -> Table:
    """A table of rows of a run, which SQLite keeps in the order of their key unless large."""
    return Table(
        name,
        metadata,
        _text("run_id"),
        *items,
        PrimaryKeyConstraint("run_id", key),
        sqlite_with_rowid=large,
    )


def _of(table: str, column: str, theirs: str | None = None) -> ForeignKeyConstraint:
    """This row's ``column`` names a row of ``table`` in the same run."""
    return ForeignKeyConstraint(
        ["run_id", column], [f"{table}.run_id", f"{table}.{theirs or column}"]
    )


def _outcome(name: str, *items: SchemaItem, key: str = "id") -> Table:
    """A table of one kind of outcome: every row of it came of an event."""
    return _table(
        name, key, _whole("id"), _whole("seq"), _whole("ts"), *items, _of("events", "seq")
    )


def _plain(
    name: str, type_: type[TypeEngine[Any]] | TypeEngine[Any], *, null: bool = False
) -> Column[Any]:
    return Column(name, type_, nullable=null)


runs = Table(
    "runs",
    metadata,
    _text("run_id"),
    _text("mode"),
    _text("code"),
    _text("config_hash"),
    _plain("config", JSON),
    _plain("data", JSON),
    _whole("seed", null=True),
    _plain("instruments", JSON),
    _whole("equity_start_micros"),
    _whole("started_ms"),
    _whole("finished_ms", null=True),
    _text("decisions_hash", null=True),
    _plain("result", JSON(none_as_null=True), null=True),
    _text("arrays", null=True),
    PrimaryKeyConstraint("run_id"),
    CheckConstraint("mode IN ('replay', 'paper', 'live')", name="mode"),
    sqlite_with_rowid=False,
)
"""A run and its causes. The last four are filled once, when it ends; ``arrays`` is the folder of a
replay's arrays."""

books = _table(
    "books",
    "book",
    Column("book", Integer, autoincrement=False, nullable=False),
    _text("name"),
    _text("strategy"),
    _text("instrument"),
    _plain("params", JSON),
    ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
)
"""The books of a run; ``book`` is its place in the engine."""

events = _table(
    "events",
    "seq",
    _whole("seq"),
    _whole("ts_known"),
    _whole("ts_event"),
    Column("kind", Integer, nullable=False),
    Column("instrument", Integer, nullable=False),
    _plain("payload", LargeBinary),
    ForeignKeyConstraint(["run_id"], ["runs.run_id"]),
)
"""Every event. Header and ``payload`` (the bytes that follow it) are the whole EVENT record, and
nothing is kept twice; ``instrument`` is the place in ``runs.instruments``, ``kind`` a core Kind."""

steps = _table(
    "steps",
    "seq",
    _whole("seq"),
    Column("events", Integer, nullable=False),
    Column("outcomes", Integer, nullable=False),
    _plain("records", LargeBinary),
    _of("events", "seq"),
    large=True,
)
"""One row a transaction: how many events it holds up to ``seq``, and its OUTCOME records, raw. They
are what an audit compares byte for byte with a replay of the events."""

snapshots = _table(
    "snapshots",
    "seq",
    _whole("seq"),
    _plain("state", LargeBinary),
    _of("events", "seq"),
    large=True,
)
"""The state after an event, so that a restart need not fold the run from its beginning. A shortcut:
every row of it can be had again from the events, and old ones are dropped."""

commands = _table(
    "commands",
    "seq",
    _whole("seq"),
    _whole("ts"),
    _text("word"),
    Column("book", Integer, nullable=True),
    _text("who"),
    _text("reason"),
    _of("events", "seq"),
    _of("books", "book"),
)
"""Every operator's command: who gave it and why, which its event has no room for. ``book`` is NULL
where it was given to all."""

signals = _outcome(
    "signals",
    Column("book", Integer, nullable=False),
    _whole("decision"),
    _real("target"),
    _real("confidence"),
    Column("reason_code", Integer, nullable=False),
    _text("reason"),
    _text("regime"),
    _real("price"),
    _of("books", "book"),
    key="decision",
)
"""A decision that differs from the book's last."""

risk_checks = _outcome(
    "risk_checks",
    Column("book", Integer, nullable=False),
    _whole("decision"),
    Column("approved", Boolean, nullable=False),
    Column("rule_code", Integer, nullable=False),
    _text("rule"),
    _real("quantity"),
    _real("price"),
    _real("limit_price"),
    _real("target"),
    _real("confidence"),
    _whole("order_id", null=True),
    _of("signals", "decision"),
    UniqueConstraint("run_id", "order_id"),
    CheckConstraint("approved = (order_id IS NOT NULL)", name="order"),
    CheckConstraint("approved = (rule_code = 0)", name="rule"),
)
"""Every intent the gate saw, with the rule that refused it ('none': it was approved)."""

orders = _outcome(
    "orders",
    Column("book", Integer, nullable=False),
    _whole("decision"),
    _whole("order_id"),
    _text("side"),
    _real("quantity"),
    _real("limit_price"),
    _real("price"),
    _text("exit"),
    _of("signals", "decision"),
    _of("risk_checks", "order_id"),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    key="order_id",
)
"""Every order, as it was approved; ``price`` is the one it was decided at. View ``order_states``
tells what became of it."""

order_ends = _table(
    "order_ends",
    "order_id",
    _whole("order_id"),
    _whole("id", null=True),
    _whole("seq"),
    _whole("ts"),
    Column("code", Integer, nullable=False, server_default="0"),
    _text("reason", default="none"),
    _of("events", "seq"),
    _of("orders", "order_id"),
)
"""An order that ended with something left, and why: ``code`` is the venue's own where positive, an
Ending of ours else. Only of runs older than that is ``id`` NULL: an event told the end then, and no
outcome."""

attempts = Table(
    "attempts",
    metadata,
    _text("run_id"),
    _whole("order_id"),
    Column("attempt", Integer, autoincrement=False),
    _text("signature"),
    _plain("payload", LargeBinary),
    _whole("last_valid_height"),
    _whole("signed_ms"),
    _text("state"),
    Column("code", Integer, nullable=False),
    _whole("slot"),
    _real("quantity", null=False),
    _whole("paid_micros"),
    _whole("fee_micros"),
    _whole("settled_ms"),
    PrimaryKeyConstraint("run_id", "order_id", "attempt"),
    UniqueConstraint("signature"),
    CheckConstraint("state IN ('signed', 'landed', 'failed', 'expired')", name="state"),
    _of("orders", "order_id"),
)
"""The transactions signed for an order, ready to be sent again. All from ``state`` on is filled
once, when the chain's evidence settles one; until then it is 'signed', and its fate is unknown."""

fills = _outcome(
    "fills",
    Column("book", Integer, nullable=False),
    _whole("decision"),
    _whole("order_id", null=True),
    _real("quantity"),
    _real("price"),
    _real("entry"),
    _real("position"),
    _text("exit"),
    _whole("fee_micros"),
    _whole("spread_micros"),
    _whole("slippage_micros"),
    _whole("realised_micros"),
    _of("signals", "decision"),
    _of("orders", "order_id"),
    CheckConstraint("order_id IS NOT NULL OR exit <> 'signal'", name="order"),
)
"""Every fill, with the ``position`` after it. Only a venue's own doing (a stop, a target, a
liquidation, a settlement) has no order; its decision is the one that held the position."""

funding = _outcome(
    "funding",
    Column("book", Integer, nullable=False),
    _whole("decision"),
    _real("quantity"),
    _real("price"),
    _whole("paid_micros"),
    _of("signals", "decision"),
)
"""Funding paid (negative: received)."""

trades = _outcome(
    "trades",
    Column("book", Integer, nullable=False),
    _whole("decision"),
    _whole("opened_ts"),
    _real("quantity"),
    _real("entry"),
    _real("price"),
    _real("bars_held"),
    _text("exit"),
    _text("regime"),
    _whole("net_micros"),
    _whole("fee_micros"),
    _of("signals", "decision"),
)
"""Round trips: ``ts`` is the exit, ``regime`` that of the entry, ``net_micros`` after fees and
funding."""

modes = _outcome(
    "modes", _text("mode"), Column("rule_code", Integer, nullable=False), _text("rule")
)
"""Moves of the halt latch, and the rule that moved it ('none': an operator, or a new day)."""

questions = _outcome(
    "questions",
    Column("book", Integer, nullable=False),
    _whole("decision"),
    _whole("question"),
    _real("target"),
    _real("confidence"),
    _real("price"),
    _of("books", "book"),
    key="question",
)
"""What was asked of an advisor. ``decision`` is the signal it is about, or (a question of the
schedule) the book's last, 0 before the first."""

opinions = _outcome(
    "opinions",
    Column("book", Integer, nullable=False),
    _whole("decision"),
    _whole("question"),
    Column("verdict_code", Integer, nullable=False),
    _text("verdict"),
    _real("side"),
    _real("confidence"),
    _of("questions", "question"),
    key="question",
)
"""What became of a question: only 'agreed' lets an entry pass."""

calls = _table(
    "calls",
    "question",
    _whole("question"),
    _whole("ts"),
    *(_text(name) for name in ("model", "prompt", "prompt_hash", "key", "outcome", "reason")),
    *(_plain(name, JSON) for name in ("messages", "raw", "answer")),
    *(_whole(name) for name in ("latency_ms", "tokens_in", "tokens_out", "cost_micros")),
    Column("attempts", Integer, nullable=False),
    Column("contaminated", Boolean, nullable=False),
    Column("replayed", Boolean, nullable=False),
    *(_plain(name, JSON, null=True) for name in ("arms", "agent")),
    _of("questions", "question"),
)
"""The call of a model behind an answer, failures included. ``key`` is its place in the cassette;
``arms`` are the weights its prompt's version was drawn by, if it was; ``raw`` is JSON because a
reply may hold what PostgreSQL takes in no text. ``agent``, where a program was to decide: the keys
of its ``steps``, how its runs ended, the hash of the code that decided, and whether the answer is a
``fallback``. ``contaminated``: the model may have read of what came after. ``replayed``: the
cassette answered."""

spending = Table(
    "spending",
    metadata,
    Column("hold", BigInteger, autoincrement=False, nullable=False),
    _text("scope"),
    _whole("micros"),
    PrimaryKeyConstraint("hold", "scope"),
    Index("ix_spending_scope", "scope"),
)
"""Money for models and sandboxes, by run, day and model: what each open call may cost, and as hold
0 what all the settled ones did cost. Of no run, because a limit of a day spans them."""

equity = _table(
    "equity",
    "seq",
    _whole("seq"),
    _whole("ts"),
    _whole("equity_micros"),
    _whole("notional_micros"),
    _of("events", "seq"),
)
"""Equity and gross exposure after an event that changed them: the last row at or before an event
holds. A flat account adds no rows."""
