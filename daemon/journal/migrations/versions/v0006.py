"""What a call was drawn by and what its agent did, spelt out: it imports nothing of ours, for it
may never change."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for name in ("arms", "agent"):
        op.add_column("calls", sa.Column(name, sa.JSON, nullable=True))


def downgrade() -> None:
    for name in ("agent", "arms"):
        op.drop_column("calls", name)
