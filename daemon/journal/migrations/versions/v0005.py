"""Questions and opinions, spelt out: it imports nothing of ours, for it may never change."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    _table(
        "questions",
        *(_real(name) for name in ("target", "confidence", "price")),
        sa.ForeignKeyConstraint(
            ["run_id", "book"], ["books.run_id", "books.book"], "fk_questions_books"
        ),
    )
    _table(
        "opinions",
        sa.Column("verdict_code", sa.Integer, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        *(_real(name) for name in ("side", "confidence")),
        sa.ForeignKeyConstraint(
            ["run_id", "question"],
            ["questions.run_id", "questions.question"],
            "fk_opinions_questions",
        ),
    )


def _table(name: str, *items: sa.schema.SchemaItem) -> None:
    op.create_table(
        name,
        sa.Column("run_id", sa.Text, nullable=False),
        *(_whole(column) for column in ("id", "seq", "ts")),
        sa.ForeignKeyConstraint(
            ["run_id", "seq"], ["events.run_id", "events.seq"], f"fk_{name}_events"
        ),
        sa.Column("book", sa.Integer, nullable=False),
        *(_whole(column) for column in ("decision", "question")),
        *items,
        sa.PrimaryKeyConstraint("run_id", "question", name=f"pk_{name}"),
        sqlite_with_rowid=False,
    )


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, autoincrement=False)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=True)


def downgrade() -> None:
    op.drop_table("opinions")
    op.drop_table("questions")
