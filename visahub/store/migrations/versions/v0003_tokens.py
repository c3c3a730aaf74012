"""The sealed tokens of running instances."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None

_WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("attempt", _WORDS, nullable=False),
        sa.Column("sealed", _WORDS, nullable=False),
        sa.PrimaryKeyConstraint("attempt", name=op.f("pk_tokens")),
    )
