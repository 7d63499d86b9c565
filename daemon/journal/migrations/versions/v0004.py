"""Why an order ended short, and the transactions signed for it, spelt out: it imports nothing of
ours, for it may never change."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, autoincrement=False)


def upgrade() -> None:
    op.add_column("order_ends", sa.Column("code", sa.Integer, nullable=False, server_default="0"))
    op.add_column("order_ends", sa.Column("reason", sa.Text, nullable=False, server_default="none"))
    op.create_table(
        "attempts",
        sa.Column("run_id", sa.Text, nullable=False),
        whole("order_id"),
        sa.Column("attempt", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        whole("last_valid_height"),
        whole("signed_ms"),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Integer, nullable=False),
        whole("slot"),
        sa.Column("quantity", sa.Double, nullable=False),
        whole("paid_micros"),
        whole("fee_micros"),
        whole("settled_ms"),
        sa.PrimaryKeyConstraint("run_id", "order_id", "attempt", name="pk_attempts"),
        sa.UniqueConstraint("signature", name="uq_attempts_signature"),
        sa.CheckConstraint(
            "state IN ('signed', 'landed', 'failed', 'expired')", name=op.f("ck_attempts_state")
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "order_id"], ["orders.run_id", "orders.order_id"], "fk_attempts_orders"
        ),
    )


def downgrade() -> None:
    op.drop_table("attempts")
    for name in ("reason", "code"):
        op.drop_column("order_ends", name)
