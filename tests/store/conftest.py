"""Every test of the store runs on SQLite and on PostgreSQL, each time without a row."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from tests.services.postgres import Cluster, why_not
from visahub.model.account import Account, Identity
from visahub.store.database import Store
from visahub.store.tables import metadata
from visahub.testing.clock import Clock


@dataclass
class Postgres:
    """The cluster and a migrated database."""

    cluster: Cluster
    migrated: str
    revision: str

    def clean(self) -> str:
        """Empties all tables, which is quicker than a copy of the database, and gives its address."""
        names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
        with psycopg.connect(self.cluster.address(self.migrated), autocommit=True) as connection:
            connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
            connection.execute("UPDATE alembic_version SET version_num = %s", [self.revision])
        return self.cluster.url(self.migrated)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Cluster() as cluster:
        migrated = cluster.database()
        store = Store(cluster.url(migrated))
        store.upgrade()
        with store.database.read() as connection:
            revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        store.close()
        yield Postgres(cluster, migrated, revision)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "visahub.sqlite"
    store = Store(f"sqlite:///{path}")
    store.upgrade()
    store.close()
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.sqlite'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.cluster.url(postgres.cluster.database())


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with all tables and no rows."""
    if request.param == "sqlite":
        path = tmp_path / "visahub.sqlite"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        return f"sqlite:///{path}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.clean()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    yield made
    made.close()


@pytest.fixture
def other(url: str) -> Iterator[Store]:
    """A second store on the same database, as the portal is beside the Hub."""
    made = Store(url)
    yield made
    made.close()


@pytest.fixture
def file_store(tmp_path: Path, migrated_file: Path) -> Iterator[Store]:
    """For what only SQLite does."""
    path = tmp_path / "file.sqlite"
    shutil.copy(migrated_file, path)
    made = Store(f"sqlite:///{path}")
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alice(store: Store) -> Account:
    identity = Identity(issuer="test", subject="1", username="alice", display_name="Alice", quota=2)
    return store.accounts.enter(identity, uid_min=20000)
