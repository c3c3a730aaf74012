"""Which Hub works on the database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"
branch_labels = None
depends_on = None

_WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", _WORDS, nullable=False),
        sa.Column("deployment", _WORDS, nullable=False),
        sa.Column("host", _WORDS, nullable=False),
        sa.Column("machine", _WORDS, nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("born", _WORDS, nullable=False),
        sa.Column("taken", sa.DateTime(timezone=True), nullable=False),
        sa.Column("renewed", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
