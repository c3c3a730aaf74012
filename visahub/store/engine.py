"""The engine and its transactions, and what its errors mean to a user; used by every other module of this room."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from ..model.errors import Unavailable
from .asking import AWAY, UNSURE, current_call

# `ask` gives up after a second, and the Hub shows a start's refusal only within its first second.
BUSY_MILLISECONDS = 500
# On a server many starts of one account may wait for each other; still less than `ask` waits.
_LOCK_MILLISECONDS = 800
# Somebody who upgrades waits for whoever upgrades already.
_UPGRADE_MILLISECONDS = 30_000
# Numbers of PostgreSQL's advisory locks: no two uses may share one.
LOCK_UPGRADE, LOCK_ACCOUNTS, LOCK_EVENTS, LOCK_LEASES = 7613401, 7613402, 7613403, 7613404

MISSING = (
    "The tables of visahub's database are missing or old. Run `visahub db upgrade`, then start again; nothing is lost."
)
_FULL = "The disk of visahub's database is full. Nothing was changed; ask the operators to make room, then try again."
_READ_ONLY = "The database of visahub can only be read now. Nothing was changed; tell the operators, then try again."
_DAMAGED = "The file of visahub's database is damaged. Nothing was changed; the operators have to restore its copy."
# PostgreSQL's codes for errors that SQLAlchemy does not count as operational.
_SERVER_SENTENCES = {"42P01": MISSING, "42703": MISSING, "53100": _FULL, "25006": _READ_ONLY}
_FILE_SENTENCES = {
    "no such table": MISSING,
    "no such column": MISSING,
    "has no column": MISSING,
    "disk is full": _FULL,
    "readonly database": _READ_ONLY,
    "malformed": _DAMAGED,
    "not a database": _DAMAGED,
}


class Database:
    """One engine and its transactions. `url` is `sqlite:////absolute/file` or `postgresql+psycopg://...`."""

    def __init__(self, url: str) -> None:
        try:
            self.url = make_url(url)
        except ArgumentError:
            # The text itself stays out: it may hold a password.
            raise ValueError(_ADVICE) from None
        backend = self.url.get_backend_name()
        if backend not in {"sqlite", "postgresql"}:
            raise ValueError(_ADVICE)
        self.is_sqlite = backend == "sqlite"
        self.path = self._path() if self.is_sqlite else None
        self.engine = self._file() if self.is_sqlite else self._server()
        event.listen(self.engine, "begin", _begin)

    def _path(self) -> Path:
        name = self.url.database
        if not name or name == ":memory:" or name.startswith("file:"):
            raise ValueError(_ADVICE)
        return Path(name).absolute()

    def _file(self) -> Engine:
        engine = create_engine("sqlite://", creator=self._open, poolclass=QueuePool, pool_timeout=1)
        event.listen(engine, "connect", self._remember_file)
        event.listen(engine, "checkout", self._check_file)
        return engine

    def _open(self) -> sqlite3.Connection:
        """Opens the file, which only `make_file` makes: a lost file must not become an empty database in silence."""
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=BUSY_MILLISECONDS / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA cache_size=-16000")
        except BaseException:
            connection.close()
            raise
        return connection

    def _remember_file(self, _connection: Any, record: Any) -> None:
        record.info["file"] = _identity(self.path)

    def _check_file(self, _connection: Any, record: Any, _proxy: Any) -> None:
        """Opens anew when the file was replaced: an old connection would write where nobody reads."""
        if record.info.get("file") != _identity(self.path):
            raise DisconnectionError("the file of the database was replaced")

    def _server(self) -> Engine:
        # A statement that waits for a lock gives up before `ask` does, so that no thread is left hanging.
        options = f"-c timezone=UTC -c lock_timeout={_LOCK_MILLISECONDS} -c statement_timeout=60000"
        return create_engine(
            self.url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_timeout=1,
            connect_args={"connect_timeout": 2, "tcp_user_timeout": 5000, "options": options},
        )

    def make_file(self) -> None:
        """Makes an absent SQLite file with mode 0600, and its directory with mode 0700.

        The file belongs to whom the directory belongs to: a Hub that is root shares it with the portal's own user.
        """
        if self.path is None or self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                if os.geteuid() == 0:
                    folder = self.path.parent.stat()
                    os.fchown(file, folder.st_uid, folder.st_gid)
            finally:
                os.close(file)
        except OSError as error:
            raise Unavailable(
                f"The file of visahub's database cannot be made: {error.strerror}. Make its directory writable."
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; on SQLite all its statements see one state."""
        with _spoken(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes, from its first statement on: a WAL database refuses to upgrade a reading one.

        It is committed at the end unless whoever asked has given up meanwhile.
        """
        call = current_call()
        with _spoken() as progress, self.engine.connect() as connection:
            connection.execution_options(visahub_writes=True)
            with connection.begin() as transaction:
                yield connection
                with call.committing():
                    progress.append("commit")
                    transaction.commit()

    @contextmanager
    def upgrade(self) -> Iterator[Connection]:
        """The one transaction of all migrations: an upgrade that is killed happened whole or not at all."""
        with _spoken(), self.engine.connect() as connection:
            connection.execution_options(visahub_writes=True)
            if self.is_sqlite:
                # Not possible within a transaction: a table that is rebuilt must not take its children along.
                _pragma(connection, "foreign_keys=OFF", f"busy_timeout={_UPGRADE_MILLISECONDS}")
            try:
                with connection.begin():
                    if not self.is_sqlite:
                        connection.execute(text(f"SET LOCAL lock_timeout={_UPGRADE_MILLISECONDS}"))
                        connection.execute(text("SET LOCAL statement_timeout=0"))
                        self.lock(connection, LOCK_UPGRADE)
                    yield connection
                    if self.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                        raise RuntimeError("the migration would leave rows that point to nothing")
            finally:
                if self.is_sqlite and not connection.invalidated:
                    _pragma(connection, "foreign_keys=ON", f"busy_timeout={BUSY_MILLISECONDS}")

    def lock(self, connection: Connection, number: int) -> None:
        """Lets one transaction in at a time until its end; SQLite has one writer anyway."""
        if not self.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


_ADVICE = (
    "Visahub.database_url must be sqlite:////absolute/path/to/file or postgresql+psycopg://user@host/database. "
    "A database in memory cannot be shared by the Hub and the portal."
)


def _begin(connection: Connection) -> None:
    """Begins each transaction by hand: the driver would begin late, and SQLite then refuses to write at once."""
    if connection.dialect.name == "sqlite":
        writes = connection.get_execution_options().get("visahub_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _pragma(connection: Connection, *pragmas: str) -> None:
    driver: Any = connection.connection.driver_connection
    for pragma in pragmas:
        driver.execute(f"PRAGMA {pragma}")


def _identity(path: Path | None) -> tuple[int, int] | None:
    try:
        found = os.stat(path or "")
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _spoken() -> Iterator[list[str]]:
    """Says what an error of the database means; errors that are defects pass as they are."""
    progress: list[str] = []
    try:
        yield progress
    except PoolTimeout as error:
        raise Unavailable(AWAY) from error
    except DBAPIError as error:
        sentence = _sentence(error, is_committing=bool(progress))
        if sentence is None:
            raise
        raise Unavailable(sentence) from error


def is_trouble(error: BaseException | None) -> bool:
    """Tells whether an error of any SQLAlchemy session, the Hub's too, means "the database does not answer now"."""
    if isinstance(error, DBAPIError):
        return _sentence(error, is_committing=False) is not None
    # After a failed change the session itself refuses, until it is rolled back.
    return isinstance(error, PoolTimeout | DisconnectionError | PendingRollbackError)


def is_lost(error: BaseException | None) -> bool:
    """Tells whether a session's connection is gone, so that the same question on another one may be answered."""
    return isinstance(error, PendingRollbackError) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _sentence(error: DBAPIError, *, is_committing: bool) -> str | None:
    code = getattr(error.orig, "sqlstate", None)
    if code in _SERVER_SENTENCES:
        return _SERVER_SENTENCES[code]
    if isinstance(error.orig, sqlite3.DatabaseError):
        said = str(error.orig)
        for part, sentence in _FILE_SENTENCES.items():
            if part in said:
                return sentence
        return AWAY if isinstance(error, OperationalError) else None
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
        # The answer to a commit was lost: PostgreSQL may have kept it.
        return UNSURE if is_committing else AWAY
    return None
