"""Questions, opinions, calls of models and their cost, spelt out: it imports nothing of ours, for
it may never change."""

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
    texts = ("model", "prompt", "prompt_hash", "key", "outcome", "reason")
    sums = ("latency_ms", "tokens_in", "tokens_out", "cost_micros")
    op.create_table(
        "calls",
        sa.Column("run_id", sa.Text, nullable=False),
        *(_whole(name) for name in ("question", "ts")),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        *(sa.Column(name, sa.JSON, nullable=False) for name in ("messages", "raw", "answer")),
        *(_whole(name) for name in sums),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("contaminated", sa.Boolean, nullable=False),
        sa.Column("replayed", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "question", name="pk_calls"),
        sa.ForeignKeyConstraint(
            ["run_id", "question"],
            ["questions.run_id", "questions.question"],
            "fk_calls_questions",
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spending",
        _whole("hold"),
        sa.Column("scope", sa.Text, nullable=False),
        _whole("micros"),
        sa.PrimaryKeyConstraint("hold", "scope", name="pk_spending"),
    )
    op.create_index("ix_spending_scope", "spending", ["scope"])


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
    op.drop_table("spending")
    op.drop_table("calls")
    op.drop_table("opinions")
    op.drop_table("questions")
