"""Where an instance keeps its private sockets, and how its desktop daemon is found, started and ended.

Called by the desktop's holder, the server extension and the daemon itself. Standard library only: so the holder
starts fast.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from visahub.model.errors import Failed, Refused

# The longest name of a file below the directory, and the longest path of a unix socket.
_LONGEST_NAME = len("/pages.sock")
_LONGEST_SOCKET = 107
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Runtime:
    """The private directory (0700) of one instance's desktop, and what lies in it."""

    folder: Path

    @property
    def pages(self) -> Path:
        """The daemon's HTTP socket: the page, noVNC, the state."""
        return self.folder / "pages.sock"

    @property
    def gate(self) -> Path:
        """The daemon's RFB socket for somebody who may use keyboard and pointer."""
        return self.folder / "gate.sock"

    @property
    def web(self) -> Path:
        """Where the Jupyter server hands over the websockets of the owner's browser."""
        return self.folder / "web.sock"

    @property
    def display(self) -> Path:
        """Xvnc's own RFB socket; only the gate opens it."""
        return self.folder / "vnc.sock"

    @property
    def cookie(self) -> Path:
        """The X authority file, without which nobody opens the display."""
        return self.folder / "xauth"

    @property
    def bus_settings(self) -> Path:
        """The settings of the session's D-Bus, whose socket is `bus`."""
        return self.folder / "bus.conf"

    @property
    def pid(self) -> Path:
        """Says which process the daemon is. The daemon ends when the file goes: so removing the directory ends it."""
        return self.folder / "daemon.pid"

    @property
    def lock(self) -> Path:
        """Held by the daemon as long as it lives."""
        return self.folder / "daemon.lock"

    @property
    def log(self) -> Path:
        return self.folder / "desktop.log"


def find(environ: Mapping[str, str]) -> Runtime:
    """Gives the instance's directory, made if needed; raises Refused when it is not private or too long.

    VISAHUB_RUNTIME is given by the backend. Without it (on a Binder) the login's own directory or the home serves.
    """
    if environ.get("VISAHUB_RUNTIME"):
        parent = Path(environ["VISAHUB_RUNTIME"])
        folder = parent / "desktop"
    elif environ.get("XDG_RUNTIME_DIR"):
        parent = Path(environ["XDG_RUNTIME_DIR"])
        folder = parent / "visahub-desktop"
    else:
        parent = Path(environ.get("HOME") or Path.home()) / ".cache"
        # Two machines may share one home.
        host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
        folder = parent / f"visahub-desktop-{host}"
    if len(os.fsencode(folder)) + _LONGEST_NAME > _LONGEST_SOCKET:
        raise Refused(
            f"The path {folder} is too long for a socket. Ask the administrator to choose a shorter runtime directory.",
            rule="runtime",
        )
    parent.mkdir(parents=True, exist_ok=True)
    _make_private(folder)
    return Runtime(folder)


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    # lstat: a symlink that somebody else put there is not followed.
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
        raise Refused(
            f"{folder} is not a directory of yours, so the desktop would not be private. "
            "Remove it, or ask the administrator to.",
            rule="runtime",
        )
    if stat.S_IMODE(seen.st_mode) != 0o700:
        folder.chmod(0o700)


def running(runtime: Runtime) -> int | None:
    """Gives the process number of the living daemon, None when there is none."""
    try:
        handle = os.open(runtime.lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_pid(runtime)
    finally:
        os.close(handle)
    return None


def read_pid(runtime: Runtime) -> int | None:
    """Gives the number that the pid file holds."""
    try:
        return int(json.loads(runtime.pid.read_text())["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextlib.contextmanager
def held(runtime: Runtime) -> Iterator[bool]:
    """Makes this process the daemon of the directory; gives False when there is one already."""
    handle = os.open(runtime.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        runtime.pid.write_text(json.dumps({"pid": os.getpid()}))
        yield True
        if read_pid(runtime) == os.getpid():
            runtime.pid.unlink(missing_ok=True)
    finally:
        os.close(handle)


def ensure(runtime: Runtime, environ: Mapping[str, str]) -> int:
    """Starts the daemon unless it runs, waits until its sockets answer and gives its process number; raises Failed."""
    starting = os.open(runtime.folder / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # One at a time; whoever comes second finds it running.
        fcntl.flock(starting, fcntl.LOCK_EX)
        if running(runtime) is None:
            for path in (runtime.pages, runtime.gate, runtime.web):
                path.unlink(missing_ok=True)
            _spawn(runtime, environ)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            pid = running(runtime)
            if pid is not None and answers(runtime.pages) and runtime.web.exists():
                return pid
            time.sleep(0.02)
    finally:
        os.close(starting)
    raise Failed(
        f"The desktop did not start within {_START_SECONDS:.0f} seconds. Try again; if it stays so, "
        f"show support the file {runtime.log}.",
        log=tail(runtime.log),
    )


def _spawn(runtime: Runtime, environ: Mapping[str, str]) -> None:
    """Starts the daemon in a session of its own, so that it survives a restart of the Jupyter server."""
    command = [sys.executable, "-m", "visahub.singleuser.desktop"]
    setsid = shutil.which("setsid")
    if setsid:
        # --fork: it becomes nobody's child, so that nobody has to wait for it.
        command = [setsid, "--fork", *command]
    if runtime.log.exists() and runtime.log.stat().st_size > 1_000_000:
        runtime.log.replace(runtime.log.with_suffix(".log.1"))
    log = os.open(runtime.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={name: value for name, value in environ.items() if not _is_secret(name)},
            start_new_session=True,
        )
    finally:
        os.close(log)
    if setsid:
        process.wait(timeout=_START_SECONDS)


def _is_secret(name: str) -> bool:
    """Keeps the server's own token from the desktop and its programs, which do not need it."""
    return name.startswith(("JUPYTERHUB_", "JPY_")) or name.endswith(("_TOKEN", "_SECRET", "_PASSWORD"))


def stop(runtime: Runtime) -> None:
    """Ends the daemon with all that it started; returns when it has gone."""
    pid = running(runtime)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while running(runtime) is not None:
        if time.monotonic() > deadline:
            raise Failed(f"The desktop (process {pid}) did not end within {_STOP_SECONDS:.0f} seconds.")
        time.sleep(0.02)


def answers(path: Path) -> bool:
    """Tells whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def tail(path: Path, size: int = 4000) -> str:
    """Gives the end of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def share(*parts: str) -> Path:
    """Finds a data file: in the environment's `share/visahub`, or else in the checkout's `share`."""
    for base in (Path(sys.prefix) / "share" / "visahub", Path(__file__).parents[2] / "share"):
        if base.joinpath(*parts).exists():
            return base.joinpath(*parts)
    return Path(sys.prefix) / "share" / "visahub" / Path(*parts)
