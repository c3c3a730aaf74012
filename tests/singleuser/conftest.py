"""An ordinary user, a private place and a running desktop for the tests of what runs inside an instance."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from visahub.singleuser import runtime
from visahub.singleuser.runtime import Runtime

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = ("Xvnc", "xfce4-session", "xfwm4", "dbus-run-session", "setxkbmap")


@dataclass(frozen=True)
class Place:
    """A home and a runtime directory of one user, who is not root where the tests are."""

    uid: int
    home: Path
    environ: dict[str, str]

    @property
    def runtime(self) -> Runtime:
        return Runtime(Path(self.environ["VISAHUB_RUNTIME"]) / "desktop")

    def command(self, *words: str) -> list[str]:
        """Makes a command run as this user."""
        return as_user(self.uid, *words)

    def popen(self, *words: str, **changes: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*words),
            env={**self.environ, **changes},
            cwd=self.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )

    def run(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env={**self.environ, **changes},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def as_user(uid: int, *words: str) -> list[str]:
    """Makes a command run as a user; only root may choose another one."""
    if uid == os.geteuid():
        return list(words)
    return [shutil.which("setpriv") or "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *words]


def make_place(folder: Path, uid: int) -> Place:
    home, private = folder / "home", folder / "run"
    home.mkdir(mode=0o700)
    private.mkdir(mode=0o700)
    folder.chmod(0o755)
    for path in (home, private):
        os.chown(path, uid, -1 if uid == os.geteuid() else uid)
    environ = {
        "HOME": str(home),
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VISAHUB_RUNTIME": str(private),
        "VISAHUB_KEYBOARD": "us",
        "VISAHUB_RESOLUTION": "client",
    }
    return Place(uid, home, environ)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path that every user may enter: unix sockets have at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="vh-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def uid() -> int:
    """An ordinary user where the tests run as root and that user may run this Python, else whoever runs them."""
    if os.geteuid() != 0:
        return os.geteuid()
    nobody = pwd.getpwnam("nobody").pw_uid
    # setpriv keeps root's rights up to its exec, so the question is put by a shell behind it.
    may_run = subprocess.run(as_user(nobody, "test", "-x", os.path.realpath(sys.executable)), check=False)
    return nobody if may_run.returncode == 0 else 0


@pytest.fixture(scope="module")
def stranger() -> int:
    """Another user of the machine."""
    if os.geteuid() != 0:
        pytest.skip("Only root can act as another user.")
    return pwd.getpwnam("daemon").pw_uid


@pytest.fixture(scope="module")
def place(folder: Path, uid: int) -> Place:
    return make_place(folder, uid)


@pytest.fixture(scope="module")
def desktop(place: Place) -> Iterator[Place]:
    """A running desktop: the daemon with Xvnc and XFCE."""
    with started(place):
        yield place


@pytest.fixture
def own_place(uid: int) -> Iterator[Place]:
    """A place for one test."""
    path = Path(tempfile.mkdtemp(prefix="vh-", dir="/tmp"))
    yield make_place(path, uid)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def own_desktop(own_place: Place) -> Iterator[Place]:
    """A desktop for one test that breaks it."""
    with started(own_place):
        yield own_place


@contextlib.contextmanager
def started(place: Place) -> Iterator[None]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"No desktop on this machine: {', '.join(missing)} not installed.")
    process = place.popen(sys.executable, "-m", "visahub.singleuser.desktop")
    try:
        wait_for(lambda: place.runtime.display.exists() and runtime.answers(place.runtime.pages), 60)
        yield
    finally:
        process.terminate()
        process.wait(30)


def words_of(pid: int) -> list[str]:
    """Gives the command line of a process, [""] when it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return [""]


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
