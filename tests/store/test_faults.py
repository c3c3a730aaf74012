"""Killed in the middle of a change, of a migration or of a copy, on both databases: whole or as before."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import event, text

from visahub.model.account import Account, Identity
from visahub.model.errors import Unavailable
from visahub.model.instance import Phase
from visahub.model.request import StartRequest
from visahub.store import copies
from visahub.store import database as database_module
from visahub.store.database import Store

from .conftest import Postgres

BOB = Identity(issuer="test", subject="2", username="bob", quota=2)
NOW = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)

# Ends as by kill -9 after so many statements of what it is told to do.
KILLED = """
import os, signal, sys
from sqlalchemy import event
from visahub.store.database import Store
from tests.store import test_faults
store, left = Store(sys.argv[1]), int(sys.argv[3])
def count(*_):
    global left
    left -= 1
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
for name in ("after_cursor_execute", "commit"):
    event.listen(store.database.engine, name, count)
getattr(test_faults, sys.argv[2])(store)
print("whole")
"""


def upgrade(store: Store) -> None:
    store.upgrade()


def admit(store: Store) -> None:
    bob = store.accounts.named("bob")
    assert bob is not None
    request = StartRequest(environment="e", hardware="h")
    deadline = NOW + timedelta(minutes=10)
    store.instances.admit(account=bob, server_name="ione", request=request, backend="fake", now=NOW, deadline=deadline)


def killed(url: str, what: str, statements: int) -> bool:
    """Runs something and kills it; tells whether it was finished before."""
    code = [sys.executable, "-c", KILLED, url, what, str(statements)]
    done = subprocess.run(code, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode == 0


@pytest.fixture
def old(empty_url: str) -> Iterator[Store]:
    """A database of the first version, with an account."""
    store = Store(empty_url)
    store.database.make_file()
    with store.database.upgrade() as connection:
        config = database_module._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "v0001")
    store.accounts.enter(BOB, uid_min=20000)
    yield store
    store.close()


def copies_of(store: Store) -> list[Path]:
    path = store.database.path
    return sorted(path.parent.glob(f"{path.name}.v*")) if path else []


@pytest.mark.parametrize("statements", [2, 5, 8, 11])
def test_f24_migration_killed(old: Store, empty_url: str, statements: int) -> None:
    if killed(empty_url, "upgrade", statements):
        pytest.fail("it was over before it could be killed: the test needs a smaller number")
    # Whole, or as it was: never something between.
    with pytest.raises(Unavailable, match="visahub db upgrade"):
        old.check()
    bob = old.accounts.named("bob")
    assert bob is not None and bob.uid == 20000
    old.upgrade()
    old.check()
    assert old.accounts.named("bob") == bob
    assert old.leases.held() is None


def test_f24_copy_from_before_the_migration_leads_back(old: Store) -> None:
    bob = old.accounts.named("bob")
    path = old.database.path
    copy = old.upgrade()
    if path is None:
        # A server changes tables in a transaction, and its copies are made with pg_dump.
        assert copy is None
        return
    assert copy is not None and copies_of(old) == [copy]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as kept:
        assert kept.execute("SELECT version_num FROM alembic_version").fetchall() == [("v0001",)]
    old.preferences.put(1, {"made": "after"})
    old.close()
    aside = copies.put_back(old.database, copy)
    assert aside is not None and aside.exists()
    with pytest.raises(Unavailable, match="visahub db upgrade"):
        old.check()
    assert old.accounts.named("bob") == bob
    assert old.preferences.get(1) == {}
    # Nothing is copied when nothing changes.
    old.upgrade()
    before = copies_of(old)
    assert old.upgrade() is None
    assert copies_of(old) == before


def test_f24_no_room_for_the_copy(old: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if old.database.path is None:
        return

    def no_room(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copies, "_copy_file", no_room)
    with pytest.raises(Unavailable, match="No space left"):
        old.upgrade()
    assert copies_of(old) == []
    with pytest.raises(Unavailable, match="visahub db upgrade"):
        old.check()


# The kill matrix's row of the database.


@pytest.mark.parametrize("statements", [1, 2, 4, 6, 8])
def test_f1_killed_between_two_steps_of_an_admission(url: str, statements: int) -> None:
    """Row or nothing: never a row without its event, an event without its row, or a quota used up by nothing."""
    store = Store(url)
    bob = store.accounts.enter(BOB, uid_min=20000)
    was_whole = killed(url, "admit", statements)
    rows = store.instances.of_owner(bob.id)
    assert len(rows) == (1 if was_whole else 0)
    with store.database.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM instance_events")) == len(rows)
    for row in rows:
        assert [one.kind for one in store.instances.events(row.id)] == ["starting"]
        assert row.attempt
    if not rows:
        admit(store)
        assert len(store.instances.of_owner(bob.id)) == 1
    store.close()


@pytest.mark.parametrize("statement", [1, 3, 5])
def test_f6_server_crashed_within_an_admission(postgres: Postgres, statement: int) -> None:
    store = Store(postgres.clean())
    bob = store.accounts.enter(BOB, uid_min=20000)
    left = statement

    def crash(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            postgres.cluster.stop(signal.SIGQUIT)

    event.listen(store.database.engine, "before_cursor_execute", crash)
    try:
        with pytest.raises(Unavailable):
            admit(store)
    finally:
        event.remove(store.database.engine, "before_cursor_execute", crash)
        if postgres.cluster._server is None:
            postgres.cluster.start()
    assert left == 0
    assert store.instances.of_owner(bob.id) == []
    with store.database.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM instance_events")) == 0
    admit(store)
    assert len(store.instances.of_owner(bob.id)) == 1
    store.close()


def test_f16_deadlines_move_with_the_clock(store: Store, alice: Account) -> None:
    def row(name: str) -> Any:
        found = store.instances.named(alice.id, name)
        assert found is not None
        return found

    for name in ("ione", "itwo"):
        request = StartRequest(environment="e", hardware="h")
        deadline = NOW + timedelta(minutes=10)
        store.instances.admit(
            account=alice, server_name=name, request=request, backend="fake", now=NOW, deadline=deadline
        )
    store.instances.move(row("itwo").id, Phase.READY, NOW)
    ready = row("itwo")
    assert store.instances.shift(timedelta(days=-2)) == 1
    assert row("ione").deadline == NOW - timedelta(days=2) + timedelta(minutes=10)
    assert row("ione").started == NOW - timedelta(days=2)
    assert row("ione").changed == NOW
    assert row("itwo") == ready


# Copies.


def test_copy_while_it_is_written(store: Store, alice: Account, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A copy of a database in use is whole and holds what was committed before it began."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.preferences.put(alice.id, {"number": number, "text": "x" * 1000})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        time.sleep(0.1)
        before = store.preferences.get(alice.id).get("number", 0)
        target = tmp_path / "copy"
        copies.make(store.database, target)
    finally:
        stop.set()
        writer.join()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.glob(".*.part")) == []
    store.preferences.put(alice.id, {"number": -1})
    if store.database.path is None:
        with pytest.raises(Unavailable, match="is not empty"):
            copies.put_back(store.database, target)
        postgres: Postgres = request.getfixturevalue("postgres")
        store = Store(postgres.cluster.url(postgres.cluster.database()))
    copies.put_back(store.database, target)
    assert store.preferences.get(alice.id)["number"] >= before
    store.check()
    store.close()


def test_no_copy_where_none_can_be_made(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        copies.make(store.database, tmp_path / "absent" / "copy")
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a copy at all" * 100)
    with pytest.raises(Unavailable):
        copies.put_back(store.database, broken)
    store.check()


def test_password_is_not_among_the_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def run(arguments: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        seen.extend([arguments, how["env"]])
        return subprocess.CompletedProcess(arguments, 1, "", "no such server")

    monkeypatch.setattr(copies.subprocess, "run", run)
    store = Store("postgresql+psycopg://visahub:sesame@db.example:5433/visahub")
    with pytest.raises(Unavailable, match="no such server"):
        copies.make(store.database, tmp_path / "copy")
    arguments, environ = seen
    assert not any("sesame" in argument for argument in arguments)
    assert environ["PGPASSWORD"] == "sesame"
    assert {"--host=db.example", "--port=5433", "--username=visahub", "--dbname=visahub"} <= set(arguments)
