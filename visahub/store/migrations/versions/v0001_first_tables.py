"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0001"
down_revision = None
branch_labels = None
depends_on = None

# Ordered by code point on both databases.
_WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("username", _WORDS, nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("gid", sa.Integer(), nullable=False),
        sa.Column("display_name", _WORDS, nullable=False),
        sa.Column("email", _WORDS, nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("instruments", sa.JSON(), nullable=False),
        sa.Column("quota", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("uid", name=op.f("uq_accounts_uid")),
        sa.UniqueConstraint("username", name=op.f("uq_accounts_username")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "instruments",
        sa.Column("name", _WORDS, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_instruments")),
    )
    op.create_table(
        "experiments",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("source", _WORDS, nullable=False),
        sa.Column("proposal", _WORDS, nullable=False),
        sa.Column("title", _WORDS, nullable=False),
        sa.Column("instrument", _WORDS, nullable=False),
        sa.Column("start", sa.Date(), nullable=True),
        sa.Column("end", sa.Date(), nullable=True),
        sa.Column("public_at", sa.Date(), nullable=True),
        sa.Column("path", _WORDS, nullable=False),
        sa.Column("doi", _WORDS, nullable=False),
        sa.Column("url", _WORDS, nullable=False),
        sa.Column("licence", _WORDS, nullable=False),
        sa.Column("technique", _WORDS, nullable=False),
        sa.Column("is_sample", sa.Boolean(), nullable=False),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mark", _WORDS, nullable=False),
        sa.Column("words", _WORDS, nullable=False),
        sa.Column("summary", _WORDS, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
    )
    op.create_index(
        "ix_experiments_by_instrument",
        "experiments",
        ["instrument", "start", "id", "public_at", "withdrawn"],
        unique=False,
        sqlite_where=sa.text("withdrawn = 0"),
        postgresql_where=sa.text("NOT withdrawn"),
    )
    op.create_index(
        "ix_experiments_by_proposal",
        "experiments",
        ["proposal", "id", "public_at", "instrument", "withdrawn"],
        unique=False,
        sqlite_where=sa.text("withdrawn = 0"),
        postgresql_where=sa.text("NOT withdrawn"),
    )
    op.create_index(
        "ix_experiments_by_start",
        "experiments",
        ["start", "id", "public_at", "instrument", "withdrawn"],
        unique=False,
        sqlite_where=sa.text("withdrawn = 0"),
        postgresql_where=sa.text("NOT withdrawn"),
    )
    op.create_index(op.f("ix_experiments_doi"), "experiments", ["doi"], unique=False)
    op.create_index(op.f("ix_experiments_proposal"), "experiments", ["proposal"], unique=False)
    op.create_index(op.f("ix_experiments_source"), "experiments", ["source"], unique=False)
    op.create_table(
        "offers",
        sa.Column("hardware_id", _WORDS, nullable=False),
        sa.Column("backend", _WORDS, nullable=False),
        sa.Column("is_free", sa.Boolean(), nullable=True),
        sa.Column("sentence", _WORDS, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hardware_id", name=op.f("pk_offers")),
    )
    op.create_index(op.f("ix_offers_backend"), "offers", ["backend"], unique=False)
    op.create_table(
        "identities",
        sa.Column("issuer", _WORDS, nullable=False),
        sa.Column("subject", _WORDS, nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_identities_account_id_accounts")),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_identities")),
    )
    op.create_index(op.f("ix_identities_account_id"), "identities", ["account_id"], unique=False)
    op.create_table(
        "instances",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("server_name", _WORDS, nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("want", _WORDS, nullable=False),
        sa.Column("phase", _WORDS, nullable=False),
        sa.Column("attempt", _WORDS, nullable=False),
        sa.Column("backend", _WORDS, nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("address", _WORDS, nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sentence", _WORDS, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ready", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stopped", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_activity", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_input", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["accounts.id"], name=op.f("fk_instances_owner_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("attempt", name=op.f("uq_instances_attempt")),
    )
    op.create_index(
        "ix_instances_living",
        "instances",
        ["created"],
        unique=False,
        sqlite_where=sa.text("phase != 'gone'"),
        postgresql_where=sa.text("phase != 'gone'"),
    )
    op.create_index(op.f("ix_instances_owner_id"), "instances", ["owner_id"], unique=False)
    op.create_index(
        "uq_instances_owner_id_server_name",
        "instances",
        ["owner_id", "server_name"],
        unique=True,
        sqlite_where=sa.text("phase != 'gone'"),
        postgresql_where=sa.text("phase != 'gone'"),
    )
    op.create_table(
        "members",
        sa.Column("experiment_id", _WORDS, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("username", _WORDS, nullable=False),
        sa.Column("name", _WORDS, nullable=False),
        sa.Column("role", _WORDS, nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_members_experiment_id_experiments"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("experiment_id", "position", name=op.f("pk_members")),
    )
    op.create_index("ix_members_by_username", "members", ["username", "experiment_id"], unique=False)
    op.create_table(
        "preferences",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_preferences_account_id_accounts")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_preferences")),
    )
    op.create_table(
        "instance_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_id", _WORDS, nullable=False),
        sa.Column("attempt", _WORDS, nullable=False),
        sa.Column("backend", _WORDS, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", _WORDS, nullable=False),
        sa.Column("key", _WORDS, nullable=False),
        sa.Column("text", _WORDS, nullable=False),
        sa.Column("percent", sa.Integer(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_instance_events_instance_id_instances")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_instance_events_attempt"), "instance_events", ["attempt"], unique=False)
    op.create_index("ix_instance_events_of_instance", "instance_events", ["instance_id", "id"], unique=False)
    op.create_index("ix_instance_events_of_kind", "instance_events", ["backend", "kind", "id"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("restore the copy from before the upgrade")
