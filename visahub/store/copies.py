"""Copies of a database, ours or the Hub's, made while it is used, and put back; called by `cli.py` and by upgrades."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import text

from ..model.errors import Unavailable
from .engine import Database

# So many pages at a time, and a pause: whoever writes meanwhile is not held up.
_PAGES, _PAUSE_SECONDS = 500, 0.005
_DUMP_SECONDS = 24 * 3600


def suffix(database: Database) -> str:
    """Gives what the name of a copy ends with."""
    return "sqlite" if database.is_sqlite else "dump"


def make(database: Database, target: Path) -> None:
    """Writes a whole copy with mode 0600 under a name that appears only when it is complete.

    Raises Unavailable when it cannot be made.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
        if database.is_sqlite:
            _copy_file(database, part)
        else:
            _run(database, "pg_dump", "--format=custom", f"--file={part}", f"--dbname={database.url.database}")
        os.replace(part, target)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(
            f"The copy {target} could not be made ({error}). Nothing was changed; make room or name another folder."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def before_upgrade(database: Database, revision: str) -> Path | None:
    """Copies a file beside itself before its tables change; a server's upgrade is whole or nothing by itself."""
    if database.path is None:
        return None
    target = database.path.with_name(f"{database.path.name}.{revision}.{_stamp()}")
    make(database, target)
    return target


def put_back(database: Database, source: Path) -> Path | None:
    """Puts a copy in the place of the database; gives where the file before it was moved to.

    Nobody may use the database meanwhile. Raises Unavailable when the copy is none, or cannot be put back.
    """
    if database.path is None:
        _check_empty(database)
        options = ["--single-transaction", "--exit-on-error", "--no-owner", f"--dbname={database.url.database}"]
        _run(database, "pg_restore", *options, str(source))
        return None
    part = database.path.with_name(f".{database.path.name}.part")
    try:
        _check_whole(source)
        shutil.copyfile(source, part)
        part.chmod(0o600)
        if os.geteuid() == 0:
            # The Hub that is root and the portal, which is not, share the file.
            owner = (database.path if database.path.exists() else database.path.parent).stat()
            os.chown(part, owner.st_uid, owner.st_gid)
        kept = _moved_aside(database.path)
        os.replace(part, database.path)
    except (OSError, sqlite3.Error) as error:
        part.unlink(missing_ok=True)
        raise Unavailable(f"{source} cannot be put back ({error}). The database is as it was.") from error
    return kept


def _check_empty(database: Database) -> None:
    """Refuses to mix a copy with what is there: nothing is deleted, so that there is a way back."""
    with database.read() as connection:
        tables = connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"))
        if tables.scalar_one():
            name = database.url.database
            raise Unavailable(
                f"The database {name} is not empty, and nothing was changed. Keep it under another name and make an "
                f'empty one: psql -c \'ALTER DATABASE "{name}" RENAME TO "{name}_before"\' postgres; createdb {name}'
            )


def _copy_file(database: Database, target: Path) -> None:
    source = f"file:{quote(str(database.path))}?mode=rw"
    with closing(sqlite3.connect(source, uri=True, timeout=30)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new, pages=_PAGES, sleep=_PAUSE_SECONDS)
        # A copy is one file: no journal belongs to it.
        new.execute("PRAGMA journal_mode=DELETE")
    _check_whole(target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _check_whole(path: Path) -> None:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as copy:
        (said,) = copy.execute("PRAGMA integrity_check").fetchone()
    if said != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {said}")


def _moved_aside(path: Path) -> Path | None:
    """Moves a file away with its journal, which must never meet another file of the same name."""
    if not path.exists():
        return None
    kept = path.with_name(f"{path.name}.before-restore.{_stamp()}")
    with closing(sqlite3.connect(path, timeout=5)) as old:
        # What is only in the journal goes into the file.
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.replace(path, kept)
    for end in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    return kept


def _run(database: Database, program: str, *arguments: str) -> None:
    """Runs a program of PostgreSQL; the password travels in the environment, which other users cannot read."""
    url = database.url
    host = url.host or str(url.query.get("host", ""))
    reach = [f"--host={host}"] if host else []
    reach += [f"--port={url.port}"] if url.port else []
    reach += [f"--username={url.username}"] if url.username else []
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    found = shutil.which(program)
    if found is None:
        raise Unavailable(f"{program} is missing, which copies a PostgreSQL database. Install postgresql-client.")
    done = subprocess.run(  # noqa: S603 - the program is PostgreSQL's, and no shell is involved
        [found, "--no-password", *reach, *arguments],
        env={**os.environ, **password},
        capture_output=True,
        text=True,
        check=False,
        timeout=_DUMP_SECONDS,
    )
    if done.returncode:
        raise Unavailable(f"{program} could not do it: {done.stderr.strip()[-500:]} Nothing was changed.")


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
