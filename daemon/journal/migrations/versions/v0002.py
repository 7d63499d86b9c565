"""Snapshots of the state, spelt out: it imports nothing of ours, for it may never change."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "snapshots",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_snapshots"),
        sa.ForeignKeyConstraint(
            ["run_id", "seq"], ["events.run_id", "events.seq"], "fk_snapshots_events"
        ),
    )


def downgrade() -> None:
    op.drop_table("snapshots")
