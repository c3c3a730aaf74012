"""The run directories of local instances, one per attempt: all that the backend knows, kept over a restart of the Hub.

    <run_root>/<deployment>/<first 12 of the attempt>/      the Hub's own, 0711
        record.json, pid, log                              the Hub's own
        u/                                                 VISAHUB_RUNTIME, the account's own, 0700
        w/s                                                the unix socket of JupyterLab

The account makes the socket; then `w` is taken from it ("sealed"), so that it cannot put a link to somebody else's
socket in its place, which Hub and proxy would follow with their own rights. Used by `local.py`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..model.errors import Failed
from .local_remove import remove_tree
from .local_socket import PASSABLE, SOCKET, open_to, sealed

log = logging.getLogger(__name__)

_ATTEMPT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# Short, since kernels put sockets with names of 54 characters below, and 107 is the limit of the kernel.
_KEY_LENGTH = 12
_LONGEST_SOCKET = 99
_TAIL_LINES = 200
# Control characters (a terminal obeys them, a database may refuse them) and those that turn the reading direction.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TAIL_BYTES = 64_000
# What is no run directory any more and is only to be removed.
_ASIDE = ".gone-"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is written down before anything of an attempt exists."""

    attempt: str
    instance_id: str
    uid: int
    gid: int
    home: str
    # Names in ~/experiments that this instance uses.
    links: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One run directory and its record."""

    path: Path
    record: Record

    @property
    def key(self) -> str:
        return self.path.name

    @property
    def runtime(self) -> Path:
        return self.path / "u"

    @property
    def list(self) -> Path:
        """The instance's experiments, as JSON."""
        return self.runtime / "experiments.json"

    @property
    def socket(self) -> Path:
        return self.path / "w" / SOCKET

    @property
    def pid_file(self) -> Path:
        return self.path / "pid"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def address(self) -> str:
        return f"http+unix://{_quoted(self.socket)}"

    def keeper(self) -> tuple[int, int] | None:
        """Gives number and start time of the process that keeps the attempt, None before there is one."""
        try:
            read = json.loads(self.pid_file.read_text())
            # `close` writes 0.
            return (int(read["pid"]), int(read["started"])) if read["pid"] else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def close(self) -> tuple[int, int] | None:
        """Lets no keeper begin any more; gives the one that has begun before, None when there is none."""
        draft = self.path / f".closed-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            _write(draft, '{"pid": 0, "started": 0}')
            with contextlib.suppress(FileExistsError):
                os.link(draft, self.pid_file)
            draft.unlink()
        return self.keeper()

    def seal(self) -> bool:
        """Takes the socket's directory from the account once the socket is there; tells whether it is."""
        return sealed(self.path / "w", self.record.uid)

    def open_to(self, gid: int) -> None:
        """Lets a group use the sealed socket, too: the proxy's, where that is not root."""
        open_to(self.path / "w", self.record.uid, gid)

    def is_listening(self) -> bool:
        """Tells whether the sealed socket takes connections; a busy or stopped server still counts."""
        try:
            if not self.seal():
                return False
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
                client.connect(str(self.socket))
            return True
        except BlockingIOError:
            return True
        except (OSError, Failed):
            return False

    def tail(self) -> str:
        """Gives the last lines of the log, without what could make a page or a terminal show something else."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
                return "\n".join(_UNPRINTABLE.sub("\ufffd", line) for line in lines)
        except OSError:
            return ""

    def remove(self) -> None:
        """Removes the directory: from its place at once, and then for good.

        What cannot be removed now (something in it is mounted and busy) holds nobody up; `Runs.sweep` tries again.
        """
        aside = self.path.with_name(f"{_ASIDE}{secrets.token_hex(8)}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        _remove(aside)


class Runs:
    """All run directories of one deployment."""

    def __init__(self, root: Path, deployment: str) -> None:
        self.path = root / deployment

    def prepare(self) -> None:
        """Makes the directories above; refuses what somebody else has put there."""
        for path in (self.path.parent, self.path):
            path.mkdir(mode=PASSABLE, parents=True, exist_ok=True)
            seen = os.lstat(path)
            if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or _is_movable(path):
                raise Failed(
                    f"{path} does not belong to the Hub, or others could replace it, so nothing was started. Remove "
                    "it, or let LocalBackend.run_root name another place."
                )
            os.chmod(path, PASSABLE)
        longest = self.longest()
        if len(os.fsencode(longest)) > _LONGEST_SOCKET or str(longest) != str(longest).lower():
            raise Failed(
                f"{self.path} is too long for unix sockets, or has capital letters, which get lost in addresses. "
                "Let LocalBackend.run_root name a shorter place in lower-case letters."
            )

    def longest(self) -> Path:
        """Gives the longest path that is made here; the kernel and the proxy allow no more than _LONGEST_SOCKET."""
        return self.path / ("x" * _KEY_LENGTH) / "w" / f"{SOCKET}:80"

    def make(self, record: Record) -> Run:
        """Makes the directory of an attempt, whole or not at all."""
        self.prepare()
        draft = self.path / f".{secrets.token_hex(8)}"
        draft.mkdir(mode=PASSABLE)
        # Whatever the Hub's umask.
        os.chmod(draft, PASSABLE)
        try:
            _write(draft / "record.json", json.dumps(asdict(record)))
            _write(draft / "log", "")
            for name in ("u", "w"):
                (draft / name).mkdir(mode=0o700)
                os.chown(draft / name, record.uid, record.gid)
            # Fails when the attempt has a directory already, since that is never empty.
            draft.rename(self.path / self.key(record.attempt))
        except BaseException:
            _remove(draft)
            raise
        return Run(self.path / self.key(record.attempt), record)

    def update(self, run: Run, links: list[str]) -> Run:
        """Adds to the record which links the instance uses."""
        changed = Record(**{**asdict(run.record), "links": links})
        draft = run.path / ".record"
        draft.unlink(missing_ok=True)
        _write(draft, json.dumps(asdict(changed)))
        draft.rename(run.path / "record.json")
        return Run(run.path, changed)

    def get(self, attempt: str) -> Run | None:
        """Gives the directory of an attempt, None when there is none."""
        run = self._read(self.path / self.key(attempt))
        return run if run is not None and run.record.attempt == attempt else None

    def all(self) -> Iterator[Run]:
        """Gives all of them; raises OSError when they cannot be read, so that nothing is taken for gone."""
        try:
            paths = sorted(self.path.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            run = None if path.name.startswith(".") else self._read(path)
            if run is not None:
                yield run

    def sweep(self) -> None:
        """Removes what earlier removals have left; what is still busy stays for the next time."""
        with contextlib.suppress(FileNotFoundError):
            for path in self.path.glob(f"{_ASIDE}*"):
                _remove(path)

    def _read(self, path: Path) -> Run | None:
        """Reads a record of the Hub's own; a directory or a file that somebody else has put there is none."""
        try:
            if os.lstat(path).st_uid != os.geteuid():
                return None
            handle = os.open(path / "record.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(handle, encoding="utf-8") as file:
            if os.fstat(handle).st_uid != os.geteuid():
                return None
            read: Mapping[str, Any] = json.loads(file.read())
        return Run(path, Record(**read))

    def is_runtime(self, attempt: str, runtime: str) -> bool:
        """Tells whether this is the VISAHUB_RUNTIME of an attempt here: what processes say of themselves is checked."""
        return _ATTEMPT.fullmatch(attempt) is not None and runtime == str(self.path / self.key(attempt) / "u")

    @staticmethod
    def key(attempt: str) -> str:
        """Gives the short name of an attempt, for directories and control groups."""
        if not _ATTEMPT.fullmatch(attempt):
            raise ValueError(f"{attempt[:40]!r} is not an attempt")
        return attempt[:_KEY_LENGTH]


def _write(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(handle, "w") as file:
        file.write(text)


def _is_movable(path: Path) -> bool:
    """Tells whether an account could put something else in a directory's place, by its rights further up.

    Only asked of a Hub that is root: without Unix accounts of their own, accounts have the Hub's rights anyway.
    """
    if os.geteuid() != 0:
        return False
    for above in Path(os.path.realpath(path)).parents:
        seen = os.lstat(above)
        for_others = seen.st_mode & (0o002 if seen.st_gid == 0 else 0o022)
        if seen.st_uid != 0 or (for_others and not seen.st_mode & stat.S_ISVTX):
            return True
    return False


def _remove(path: Path) -> None:
    try:
        remove_tree(path)
    except OSError as error:
        log.warning("%s could not be removed yet: %s", path, error)


def _quoted(path: Path) -> str:
    return quote(str(path), safe="")
