"""The tables, as SQLAlchemy Core; used by the other modules of this room and compared with the migrations by a test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.types import TypeEngine


class Moment(TypeDecorator[datetime]):
    """A UTC time: aware in Python, without a zone in SQLite, which has none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Words(TypeDecorator[str]):
    """Text of any length, ordered by code point on both databases.

    What a database cannot keep (NUL on PostgreSQL, unpaired surrogates on both) becomes U+FFFD, in questions too, so
    that a strange id in an address is simply not found.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text(collation="C") if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


def storable(value: str) -> str:
    """Gives the text as both databases can keep it."""
    if "\x00" in value:
        value = value.replace("\x00", "\ufffd")
    try:
        value.encode()
    except UnicodeEncodeError:
        value = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in value)
    return value


# Whole numbers of an address may be larger than any database can compare.
LARGEST = 2**31 - 1

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", Words, nullable=False, unique=True),
    Column("uid", Integer, nullable=False, unique=True),
    Column("gid", Integer, nullable=False),
    Column("display_name", Words, nullable=False),
    Column("email", Words, nullable=False),
    Column("roles", JSON, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("instruments", JSON, nullable=False),
    Column("quota", Integer, nullable=False),
    Column("created", Moment, nullable=False),
    Column("seen", Moment, nullable=False),
    # A number is never given twice, not even after a row was removed by hand.
    sqlite_autoincrement=True,
)

identities = Table(
    "identities",
    metadata,
    Column("issuer", Words, primary_key=True),
    Column("subject", Words, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("created", Moment, nullable=False),
)

preferences = Table(
    "preferences",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("values", JSON, nullable=False),
)


def _partial(name: str, *columns: str) -> Index:
    """Indexes what is not withdrawn, and nothing by `withdrawn`: SQLite expects few rows behind each of its values."""
    return Index(name, *columns, sqlite_where=text("withdrawn = 0"), postgresql_where=text("NOT withdrawn"))


# Every name that an experiment has or once had.
instruments = Table("instruments", metadata, Column("name", Words, primary_key=True))

experiments = Table(
    "experiments",
    metadata,
    Column("id", Words, primary_key=True),
    Column("source", Words, nullable=False, index=True),
    Column("proposal", Words, nullable=False, index=True),
    Column("title", Words, nullable=False),
    Column("instrument", Words, nullable=False),
    Column("start", Date),
    Column("end", Date),
    Column("public_at", Date),
    Column("path", Words, nullable=False),
    Column("doi", Words, nullable=False, index=True),
    Column("url", Words, nullable=False),
    Column("licence", Words, nullable=False),
    Column("technique", Words, nullable=False),
    Column("is_sample", Boolean, nullable=False),
    Column("withdrawn", Boolean, nullable=False),
    Column("changed", Moment, nullable=False),
    # A short mark of all that the source said: a mirror compares it instead of everything.
    Column("mark", Words, nullable=False),
    # What a search reads: small letters without accents (`search.plain`).
    Column("words", Words, nullable=False),
    Column("summary", Words, nullable=False),
    # Each order of a search has an index with all that decides who may read: counting and paging then read no rows.
    _partial("ix_experiments_by_start", "start", "id", "public_at", "instrument", "withdrawn"),
    _partial("ix_experiments_by_instrument", "instrument", "start", "id", "public_at", "withdrawn"),
    _partial("ix_experiments_by_proposal", "proposal", "id", "public_at", "instrument", "withdrawn"),
)

members = Table(
    "members",
    metadata,
    Column("experiment_id", ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("username", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("role", Words, nullable=False),
    Index("ix_members_by_username", "username", "experiment_id"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Words, primary_key=True),
    Column("owner_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("server_name", Words, nullable=False),
    Column("request", JSON, nullable=False),
    Column("want", Words, nullable=False),
    Column("phase", Words, nullable=False),
    Column("attempt", Words, nullable=False, unique=True),
    Column("backend", Words, nullable=False),
    Column("state", JSON, nullable=False),
    Column("address", Words, nullable=False),
    Column("deadline", Moment),
    Column("sentence", Words, nullable=False),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("started", Moment),
    Column("ready", Moment),
    Column("stopped", Moment),
    Column("last_activity", Moment),
    Column("last_input", Moment),
    # One name for one living instance of an owner; a deleted one gives its name free.
    Index(
        "uq_instances_owner_id_server_name",
        "owner_id",
        "server_name",
        unique=True,
        sqlite_where=text("phase != 'gone'"),
        postgresql_where=text("phase != 'gone'"),
    ),
    # What lives is little beside what is gone after years.
    Index(
        "ix_instances_living",
        "created",
        sqlite_where=text("phase != 'gone'"),
        postgresql_where=text("phase != 'gone'"),
    ),
)

events = Table(
    "instance_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("instance_id", ForeignKey("instances.id"), nullable=False),
    Column("attempt", Words, nullable=False, index=True),
    # Where this attempt ran; a later one may run elsewhere.
    Column("backend", Words, nullable=False),
    Column("at", Moment, nullable=False),
    Column("kind", Words, nullable=False),
    Column("key", Words, nullable=False),
    Column("text", Words, nullable=False),
    Column("percent", Integer),
    Column("seconds", Float),
    Index("ix_instance_events_of_instance", "instance_id", "id"),
    Index("ix_instance_events_of_kind", "backend", "kind", "id"),
    sqlite_autoincrement=True,
)

offers = Table(
    "offers",
    metadata,
    Column("hardware_id", Words, primary_key=True),
    Column("backend", Words, nullable=False, index=True),
    Column("is_free", Boolean),
    Column("sentence", Words, nullable=False),
    Column("at", Moment, nullable=False),
)

# Which Hub works on this database: one row at most.
leases = Table(
    "leases",
    metadata,
    Column("name", Words, primary_key=True),
    Column("deployment", Words, nullable=False),
    Column("host", Words, nullable=False),
    Column("machine", Words, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("born", Words, nullable=False),
    Column("taken", Moment, nullable=False),
    Column("renewed", Moment, nullable=False),
)

# The token of each instance that runs, sealed with a key that only the Hub has.
tokens = Table(
    "tokens",
    metadata,
    Column("attempt", Words, primary_key=True),
    Column("sealed", Words, nullable=False),
)
