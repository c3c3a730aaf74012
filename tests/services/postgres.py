"""A private PostgreSQL for tests: a cluster in a temporary folder, reached by a Unix socket, gone afterwards."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql

# Where Debian keeps the programs; the newest version first.
_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: -int(place.parent.name))
_USER = "visahub"
_SECONDS = 60


def why_not() -> str:
    """Says why no cluster can be made here, '' when it can."""
    if not any((place / "initdb").exists() for place in _PLACES):
        return "PostgreSQL is not installed: apt-get install postgresql-15"
    if shutil.which("setpriv") is None:
        return "setpriv is not installed: apt-get install util-linux"
    return ""


class Cluster:
    """A running server as a context. It refuses to run as root, so that root lends it another user's rights."""

    def __init__(self) -> None:
        reason = why_not()
        if reason:
            raise RuntimeError(reason)
        self._bin = next(place for place in _PLACES if (place / "initdb").exists())
        # A socket's path must be short, which a test's own folder is not.
        self.folder = Path(tempfile.mkdtemp(prefix="visahub-pg-"))
        self._data = self.folder / "data"
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Cluster:
        try:
            options = ["-A", "trust", "-U", _USER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
            self._run("initdb", "-D", str(self._data), *options)
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        quick = ["-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=32MB"]
        reach = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("ab") as log:
            # The server ends when the tests are killed.
            command = ["setpriv", "--pdeathsig=INT", *self._as_user, str(self._bin / "postgres")]
            self._server = subprocess.Popen(
                [*command, "-D", str(self._data), *quick, *reach], stdout=log, stderr=log, cwd="/"
            )
        until = time.monotonic() + _SECONDS
        while True:
            try:
                psycopg.connect(self.address("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > until or self._server.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server and all its connections; SIGQUIT stops it as a crash does."""
        if self._server is None:
            return
        self._server.send_signal(how)
        try:
            self._server.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(_SECONDS)
        self._server = None

    def remove(self) -> None:
        """Stops the server at once and removes all that it kept."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self) -> str:
        """Makes an empty database and gives its name."""
        return self.named(f"visahub{next(self._numbers)}")

    def named(self, name: str) -> str:
        """Makes an empty database of a name and gives it."""
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def url(self, database: str) -> str:
        """Gives the address for `Store`."""
        return f"postgresql+psycopg://{_USER}@/{database}?host={self.folder}"

    def address(self, database: str) -> str:
        """Gives the address for psycopg."""
        return f"host={self.folder} user={_USER} dbname={database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = ["setpriv", *self._as_user] if self._as_user else []
        done = subprocess.run(
            [*command, str(self._bin / program), *arguments],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            timeout=_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("there is neither a user postgres nor nobody")
