"""Who gave a command and why, spelt out: it imports nothing of ours, for it may never change."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "commands",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("ts", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("word", sa.Text, nullable=False),
        sa.Column("book", sa.Integer, nullable=True),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_commands"),
        sa.ForeignKeyConstraint(
            ["run_id", "seq"], ["events.run_id", "events.seq"], "fk_commands_events"
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "book"], ["books.run_id", "books.book"], "fk_commands_books"
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("commands")
