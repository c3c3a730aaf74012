"""The database is away, locked, full, old or new: each time a sentence, nothing changed, and it heals by itself."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Text, text
from sqlalchemy.types import TypeEngine

from visahub.model.account import Account, Identity
from visahub.model.errors import Unavailable
from visahub.store import database as database_module
from visahub.store.database import Store
from visahub.store.tables import Words, metadata

from .conftest import Postgres

BOB = Identity(issuer="test", subject="2", username="bob")

# Dies as by kill -9 after so many statements of the upgrade.
KILLED = """
import os, signal, sys
from sqlalchemy import event
from visahub.store.database import Store
store, left = Store(sys.argv[1]), int(sys.argv[2])
def count(*_):
    global left
    left -= 1
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(store.database.engine, "after_cursor_execute", count)
store.upgrade()
"""


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "secret@@", "", "sqlite:///file:x"])
def test_a_wrong_address_is_told_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"Visahub\.database_url must be") as error:
        Store(url)
    assert "secret" not in str(error.value)


def test_postgres_gets_the_driver_that_is_installed(postgres: Postgres) -> None:
    url = postgres.cluster.url(postgres.migrated).replace("postgresql+psycopg://", "postgresql://")
    store = Store(url)
    store.check()
    store.close()


def test_an_empty_database_names_the_remedy(empty_url: str) -> None:
    store = Store(empty_url)
    for question in (store.check, store.instances.live, lambda: store.accounts.enter(BOB, uid_min=1)):
        with pytest.raises(Unavailable):
            question()
    with pytest.raises(Unavailable, match="visahub db upgrade"):
        store.check()
    store.upgrade()
    store.check()
    store.upgrade()
    assert store.accounts.enter(BOB, uid_min=20000).uid == 20000
    store.close()


def test_migrations_make_what_the_tables_say(store: Store) -> None:
    with store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": _differs})
        assert compare_metadata(context, metadata) == []


def _differs(
    _context: MigrationContext, _old: object, _new: object, found: TypeEngine[Any], wanted: TypeEngine[Any]
) -> bool | None:
    """Compares what is kept as text here: alembic does not see the order that `Words` asks for."""
    if not isinstance(wanted, Words):
        return None
    return not isinstance(found, Text) or (_context.dialect.name == "postgresql" and found.collation != "C")


def test_two_upgrades_at_once_are_one(empty_url: str) -> None:
    stores = [Store(empty_url) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for upgrade in [pool.submit(store.upgrade) for store in stores]:
            upgrade.result()
    stores[0].check()
    for store in stores:
        store.close()


@pytest.mark.parametrize("statements", [4, 12, 25])
def test_a_killed_upgrade_happened_whole_or_not_at_all(empty_url: str, statements: int) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, empty_url, str(statements)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    store = Store(empty_url)
    with pytest.raises(Unavailable, match="visahub db upgrade"):
        store.check()
    store.upgrade()
    store.check()
    assert store.experiments.count() == 0
    store.close()


def test_a_newer_database_is_left_alone(store: Store) -> None:
    with store.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9999'"))
    for action in (store.check, store.upgrade):
        with pytest.raises(Unavailable, match="newer visahub"):
            action()


def test_a_failed_transaction_leaves_nothing(store: Store, alice: Account) -> None:
    with pytest.raises(ZeroDivisionError), store.database.write() as connection:
        connection.execute(text("UPDATE accounts SET display_name = 'Changed'"))
        raise ZeroDivisionError
    assert store.accounts.get(alice.id) == alice


def test_a_transaction_that_reads_first_may_write(store: Store, other: Store, alice: Account) -> None:
    """In WAL mode this fails at once when the transaction did not begin as a writing one."""
    with ThreadPoolExecutor(1) as pool:
        with store.database.write() as connection:
            connection.execute(text("SELECT * FROM accounts")).all()
            waiting = pool.submit(other.preferences.put, alice.id, {"a": 1})
            time.sleep(0.1)
            connection.execute(text("UPDATE accounts SET display_name = 'First'"))
        waiting.result()
    changed = store.accounts.get(alice.id)
    assert changed is not None and changed.display_name == "First"
    assert store.preferences.get(alice.id) == {"a": 1}


def test_a_locked_file_is_told_within_a_second_and_heals(file_store: Store) -> None:
    holder = sqlite3.connect(str(file_store.database.path), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="does not answer"):
        file_store.accounts.enter(BOB, uid_min=20000)
    assert file_store.accounts.all() == []
    holder.execute("COMMIT")
    holder.close()
    assert file_store.accounts.enter(BOB, uid_min=20000).uid == 20000


def test_a_file_that_is_away_is_not_made_anew(file_store: Store, tmp_path: Path) -> None:
    bob = file_store.accounts.enter(BOB, uid_min=20000)
    path = file_store.database.path
    assert path is not None
    file_store.close()
    path.rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        file_store.accounts.all()
    with pytest.raises(Unavailable):
        file_store.check()
    assert not path.exists()
    (tmp_path / "away").rename(path)
    assert file_store.accounts.all() == [bob]


def test_a_restored_file_is_seen_by_open_connections(file_store: Store, migrated_file: Path, tmp_path: Path) -> None:
    file_store.accounts.enter(BOB, uid_min=20000)
    path = file_store.database.path
    assert path is not None
    copy = tmp_path / "copy"
    shutil.copy(migrated_file, copy)
    for leftover in path.parent.glob(f"{path.name}-*"):
        leftover.unlink()
    os.replace(copy, path)
    assert file_store.accounts.all() == []


def test_the_file_is_private_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new folder %20" / "deep" / "visa?hub#.sqlite"
    store = Store(f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}")
    path = store.database.path or path
    store.upgrade()
    store.accounts.enter(BOB, uid_min=20000)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for leftover in path.parent.glob(f"{path.name}-*"):
        assert stat.S_IMODE(leftover.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_a_full_disk_is_told_and_heals(file_store: Store) -> None:
    bob = file_store.accounts.enter(BOB, uid_min=20000)
    with file_store.database.read() as connection:
        # The pool has this one connection, which keeps the limit.
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(Unavailable, match="full"):
        file_store.preferences.put(bob.id, {"a": "x" * 60_000})
    assert file_store.preferences.get(bob.id) == {}
    with file_store.database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    file_store.preferences.put(bob.id, {"a": "x" * 60_000})


def test_a_disk_without_room_is_told_before_it_hurts(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    file_store.check()
    monkeypatch.setattr(database_module, "_ROOM_BYTES", 2**62)
    with pytest.raises(Unavailable, match="nearly full"):
        file_store.check()


def test_a_damaged_file_is_told(file_store: Store) -> None:
    path = file_store.database.path
    assert path is not None
    path.write_bytes(b"no database at all, but long enough for a header" * 100)
    with pytest.raises(Unavailable, match="damaged"):
        file_store.accounts.all()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_was_away_is_used_again(postgres: Postgres, how: signal.Signals) -> None:
    store = Store(postgres.clean())
    bob = store.accounts.enter(BOB, uid_min=20000)
    postgres.cluster.stop(how)
    try:
        for question in (store.check, store.accounts.all, lambda: store.preferences.put(bob.id, {"a": 1})):
            with pytest.raises(Unavailable):
                question()
    finally:
        postgres.cluster.start()
    assert store.accounts.all() == [bob] and store.preferences.get(bob.id) == {}
    store.check()
    store.close()


def test_a_server_that_was_restarted_is_not_noticed(postgres: Postgres) -> None:
    store = Store(postgres.clean())
    bob = store.accounts.enter(BOB, uid_min=20000)
    postgres.cluster.stop()
    postgres.cluster.start()
    assert store.accounts.all() == [bob]
    store.close()


def test_a_connection_that_breaks_within_a_change_leaves_nothing(postgres: Postgres) -> None:
    store = Store(postgres.clean())
    bob = store.accounts.enter(BOB, uid_min=20000)
    with pytest.raises(Unavailable), store.database.write() as connection:
        connection.execute(text("UPDATE accounts SET display_name = 'Changed'"))
        _break(store, connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        connection.execute(text("UPDATE accounts SET display_name = 'Changed again'"))
    assert store.accounts.all() == [bob]
    store.close()


def test_a_lost_answer_to_a_commit_is_not_called_unchanged(postgres: Postgres) -> None:
    store = Store(postgres.clean())
    store.accounts.enter(BOB, uid_min=20000)
    with pytest.raises(Unavailable, match="Reload the page"), store.database.write() as connection:
        connection.execute(text("UPDATE accounts SET display_name = 'Changed'"))
        _break(store, connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    store.close()


def _break(store: Store, process: int) -> None:
    with store.database.read() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
