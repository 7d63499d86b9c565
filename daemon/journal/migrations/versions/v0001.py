"""The first schema, spelt out: it imports nothing of ours, for it may never change."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

VIEWS = {
    # A fill that leaves its book flat is an order's last, even where the order asked for more: a
    # closing order is trimmed to what is left to close, and no other order ends flat.
    "order_states": """
        SELECT o.run_id, o.order_id, o.decision, o.book, o.ts AS born_ts, o.side, o.quantity,
            coalesce(f.quantity, 0.0) AS filled_quantity,
            f.paid / f.quantity AS average_price,
            coalesce(f.fee_micros, 0) AS fee_micros,
            CASE
                WHEN abs(f.quantity - o.quantity) <= 1e-9 * abs(o.quantity) THEN 'filled'
                WHEN f.position = 0.0 THEN 'filled'
                WHEN e.order_id IS NULL THEN 'working'
                WHEN f.order_id IS NULL THEN 'cancelled'
                ELSE 'partly'
            END AS status
        FROM orders AS o
        LEFT JOIN (
            SELECT run_id, order_id, sum(quantity) AS quantity, sum(quantity * price) AS paid,
                CAST(sum(fee_micros) AS BIGINT) AS fee_micros, min(abs(position)) AS position
            FROM fills WHERE order_id IS NOT NULL GROUP BY run_id, order_id
        ) AS f ON f.run_id = o.run_id AND f.order_id = o.order_id
        LEFT JOIN order_ends AS e ON e.run_id = o.run_id AND e.order_id = o.order_id
    """,
    "positions": """
        SELECT b.run_id, b.book, b.name, b.strategy, b.instrument,
            coalesce((
                SELECT position FROM fills
                WHERE run_id = b.run_id AND book = b.book ORDER BY id DESC LIMIT 1
            ), 0.0) AS quantity,
            coalesce(f.fills, 0) AS fills,
            coalesce(f.realised_micros, 0) AS realised_micros,
            coalesce(f.fees_micros, 0) AS fees_micros,
            coalesce(p.funding_micros, 0) AS funding_micros,
            coalesce(f.realised_micros, 0) - coalesce(f.fees_micros, 0)
                - coalesce(p.funding_micros, 0) AS net_micros
        FROM books AS b
        LEFT JOIN (
            SELECT run_id, book, count(*) AS fills,
                CAST(sum(realised_micros) AS BIGINT) AS realised_micros,
                CAST(sum(fee_micros) AS BIGINT) AS fees_micros
            FROM fills GROUP BY run_id, book
        ) AS f ON f.run_id = b.run_id AND f.book = b.book
        LEFT JOIN (
            SELECT run_id, book, CAST(sum(paid_micros) AS BIGINT) AS funding_micros
            FROM funding GROUP BY run_id, book
        ) AS p ON p.run_id = b.run_id AND p.book = b.book
    """,
}


def texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def wholes(*names: str, null: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=null, autoincrement=False) for name in names]


def codes(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer, nullable=False, autoincrement=False) for name in names]


def reals(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double, nullable=True) for name in names]


def bytes_of(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def json(name: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.JSON, nullable=null)


def key(table: str, *names: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint("run_id", *names, name=f"pk_{table}")


def refers(table: str, to: str, *names: str) -> sa.ForeignKeyConstraint:
    names = ("run_id", *names)
    return sa.ForeignKeyConstraint(names, [f"{to}.{name}" for name in names], f"fk_{table}_{to}")


def check(table: str, name: str, text: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(text, name=op.f(f"ck_{table}_{name}"))


def create_runs() -> None:
    op.create_table(
        "runs",
        *texts("run_id", "mode", "code", "config_hash"),
        json("config"),
        json("data"),
        *wholes("seed", null=True),
        json("instruments"),
        *wholes("equity_start_micros", "started_ms"),
        *wholes("finished_ms", null=True),
        sa.Column("decisions_hash", sa.Text),
        json("result", null=True),
        sa.Column("arrays", sa.Text),
        key("runs"),
        check("runs", "mode", "mode IN ('replay', 'paper', 'live')"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "books",
        *texts("run_id"),
        *codes("book"),
        *texts("name", "strategy", "instrument"),
        json("params"),
        key("books", "book"),
        refers("books", "runs"),
        sqlite_with_rowid=False,
    )


def create_events() -> None:
    op.create_table(
        "events",
        *texts("run_id"),
        *wholes("seq", "ts_known", "ts_event"),
        *codes("kind", "instrument"),
        bytes_of("payload"),
        key("events", "seq"),
        refers("events", "runs"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "steps",
        *texts("run_id"),
        *wholes("seq"),
        *codes("events", "outcomes"),
        bytes_of("records"),
        key("steps", "seq"),
        refers("steps", "events", "seq"),
    )
    op.create_table(
        "equity",
        *texts("run_id"),
        *wholes("seq", "ts", "equity_micros", "notional_micros"),
        key("equity", "seq"),
        refers("equity", "events", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "modes",
        *texts("run_id"),
        *wholes("id", "seq", "ts"),
        *texts("mode"),
        *codes("rule_code"),
        *texts("rule"),
        key("modes", "id"),
        refers("modes", "events", "seq"),
        sqlite_with_rowid=False,
    )


def create_signals() -> None:
    op.create_table(
        "signals",
        *texts("run_id"),
        *wholes("id", "seq", "ts"),
        *codes("book"),
        *wholes("decision"),
        *reals("target", "confidence"),
        *codes("reason_code"),
        *texts("reason", "regime"),
        *reals("price"),
        key("signals", "decision"),
        refers("signals", "events", "seq"),
        refers("signals", "books", "book"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "risk_checks",
        *texts("run_id"),
        *wholes("id", "seq", "ts"),
        *codes("book"),
        *wholes("decision"),
        sa.Column("approved", sa.Boolean, nullable=False),
        *codes("rule_code"),
        *texts("rule"),
        *reals("quantity", "price", "limit_price", "target", "confidence"),
        *wholes("order_id", null=True),
        key("risk_checks", "id"),
        sa.UniqueConstraint("run_id", "order_id", name="uq_risk_checks_run_id_order_id"),
        refers("risk_checks", "events", "seq"),
        refers("risk_checks", "signals", "decision"),
        check("risk_checks", "order", "approved = (order_id IS NOT NULL)"),
        check("risk_checks", "rule", "approved = (rule_code = 0)"),
        sqlite_with_rowid=False,
    )


def create_orders() -> None:
    op.create_table(
        "orders",
        *texts("run_id"),
        *wholes("id", "seq", "ts"),
        *codes("book"),
        *wholes("decision", "order_id"),
        *texts("side"),
        *reals("quantity", "limit_price", "price"),
        *texts("exit"),
        key("orders", "order_id"),
        refers("orders", "events", "seq"),
        refers("orders", "signals", "decision"),
        refers("orders", "risk_checks", "order_id"),
        check("orders", "side", "side IN ('buy', 'sell')"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "order_ends",
        *texts("run_id"),
        *wholes("order_id"),
        *wholes("id", null=True),
        *wholes("seq", "ts"),
        key("order_ends", "order_id"),
        refers("order_ends", "events", "seq"),
        refers("order_ends", "orders", "order_id"),
        sqlite_with_rowid=False,
    )


def create_fills() -> None:
    op.create_table(
        "fills",
        *texts("run_id"),
        *wholes("id", "seq", "ts"),
        *codes("book"),
        *wholes("decision"),
        *wholes("order_id", null=True),
        *reals("quantity", "price", "entry", "position"),
        *texts("exit"),
        *wholes("fee_micros", "spread_micros", "slippage_micros", "realised_micros"),
        key("fills", "id"),
        refers("fills", "events", "seq"),
        refers("fills", "signals", "decision"),
        refers("fills", "orders", "order_id"),
        check("fills", "order", "order_id IS NOT NULL OR exit <> 'signal'"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "funding",
        *texts("run_id"),
        *wholes("id", "seq", "ts"),
        *codes("book"),
        *wholes("decision"),
        *reals("quantity", "price"),
        *wholes("paid_micros"),
        key("funding", "id"),
        refers("funding", "events", "seq"),
        refers("funding", "signals", "decision"),
        sqlite_with_rowid=False,
    )


def create_trades() -> None:
    op.create_table(
        "trades",
        *texts("run_id"),
        *wholes("id", "seq", "ts"),
        *codes("book"),
        *wholes("decision", "opened_ts"),
        *reals("quantity", "entry", "price", "bars_held"),
        *texts("exit", "regime"),
        *wholes("net_micros", "fee_micros"),
        key("trades", "id"),
        refers("trades", "events", "seq"),
        refers("trades", "signals", "decision"),
        sqlite_with_rowid=False,
    )


def upgrade() -> None:
    create_runs()
    create_events()
    create_signals()
    create_orders()
    create_fills()
    create_trades()
    for name, select in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {select}")


def downgrade() -> None:
    for name in VIEWS:
        op.execute(f"DROP VIEW {name}")
    for name in ("trades", "funding", "fills", "order_ends", "orders", "risk_checks", "signals"):
        op.drop_table(name)
    for name in ("modes", "equity", "steps", "events", "books", "runs"):
        op.drop_table(name)
