"""The keeper of one instance: starts its server as the account, writes its log, and ends all that it leaves behind.

Run as a program by `local_processes.spawn`, with `python -I -S`: standard library only, orders as JSON from stdin
(they hold the server's token, which must not stand in a command line). It outlives the Hub. As a "child subreaper"
it inherits every daemon that leaves its parent, so that nothing of the instance escapes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

# Another keeper holds the same attempt (EX_TEMPFAIL of sysexits.h).
TAKEN = 75
LOG_BYTES = 1_000_000
LOG_KEPT_BYTES = 250_000
# After SIGTERM: the server alone, then everything else, then SIGKILL.
SERVER_SECONDS = 3.0
REST_SECONDS = 2.0
KILL_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Keeps one instance from its orders to its end; gives the server's exit status."""
    # Nothing of the Hub's but the orders and the log, which stands in for stdout: its directory is closed to accounts.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    orders = json.loads(sys.stdin.buffer.read())
    _claim(orders["pid_file"])
    for path in orders["cgroups"]:
        with open(path, "w") as file:
            file.write("0")
    _become(orders)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return Keeper(orders).run()


def started(pid: int | str) -> int:
    """Gives the start time of a process in clock ticks since boot: with it a number names one process only."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The command in parentheses may contain anything; the start time is the 20th field after it.
        return int(file.read().rpartition(b")")[2].split()[19])


def _claim(path: str) -> None:
    """Writes who keeps the attempt; link() is atomic and fails when there is one already."""
    own = {"pid": os.getpid(), "started": started("self")}
    draft = f"{path}.{os.getpid()}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(handle, "w") as file:
        json.dump(own, file)
    try:
        os.link(draft, path)
    except FileExistsError:
        sys.exit(TAKEN)
    finally:
        os.unlink(draft)


def _become(orders: dict[str, Any]) -> None:
    os.umask(0o077)
    if os.geteuid() == 0 and orders["uid"] != 0:
        os.setgroups(orders["groups"])
        os.setresgid(orders["gid"], orders["gid"], orders["gid"])
        os.setresuid(orders["uid"], orders["uid"], orders["uid"])


class Keeper:
    """One server, its log and its orphans."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self._orders = orders
        self._log = Log(sys.stdout.fileno())
        self._server = 0
        self._status: int | None = None
        self._is_asked = False
        # When the next, harsher signal is due; None while nobody has to end.
        self._term_rest: float | None = None
        self._kill_rest: float | None = None

    def run(self) -> int:
        waker, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked)
        signal.signal(signal.SIGCHLD, _noted)
        output, pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(output, False)
        # A signal between fork and exec would meet our handlers in the child, and be lost.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        self._server = self._fork(pipe)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.close(pipe)
        if self._is_asked:
            self._ask_server()
        watched = [waker, output]
        while True:
            ready = select.select(watched, [], [], 0.05 if self._kill_rest else 60)[0]
            if waker in ready:
                _drain(waker)
            if output in ready and not self._log.copy(output):
                watched.remove(output)
            if not self._reap() or self._signal_rest():
                break
        self._log.copy(output)
        self._log.write(self._farewell().encode())
        return self._status if self._status is not None else 1

    def _asked(self, number: int, frame: object) -> None:
        if not self._is_asked:
            self._is_asked = True
            now = time.monotonic()
            self._term_rest = now + SERVER_SECONDS
            self._kill_rest = now + SERVER_SECONDS + REST_SECONDS
            self._ask_server()

    def _ask_server(self) -> None:
        if self._server:
            _kill(self._server, signal.SIGTERM)
            # One that is stopped would not hear it.
            _kill(self._server, signal.SIGCONT)

    def _fork(self, output: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            _exec(self._orders, output)
        except BaseException as error:
            os.write(output, f"visahub: the server could not be started: {error}\n".encode())
        os._exit(127)

    def _reap(self) -> bool:
        """Takes note of what ended; tells whether anything is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._server:
                self._status = os.waitstatus_to_exitcode(status)
                # What the server leaves behind (a desktop, daemons) ends with it.
                now = time.monotonic()
                self._term_rest = now
                self._kill_rest = now + REST_SECONDS

    def _signal_rest(self) -> bool:
        """Sends what is due; tells whether to give up (what runs as another user cannot be ended from here)."""
        now = time.monotonic()
        if self._term_rest is not None and now >= self._term_rest:
            self._term_rest = None
            for pid in _descendants(os.getpid()):
                _kill(pid, signal.SIGTERM)
        if self._kill_rest is not None and now >= self._kill_rest:
            for pid in _descendants(os.getpid()):
                _kill(pid, signal.SIGKILL)
            return now >= self._kill_rest + KILL_SECONDS
        return False

    def _farewell(self) -> str:
        if self._is_asked:
            return "visahub: the instance was stopped\n"
        status = self._status if self._status is not None else 1
        how = f"with exit code {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        return f"visahub: the server of this instance ended {how}\n"


class Log:
    """A log file of bounded size: when it is full, its older part goes."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._size = os.fstat(self._file).st_size
        self._tail = b""

    def copy(self, source: int) -> bool:
        """Copies what is there to be read; tells whether more may come."""
        while True:
            try:
                data = os.read(source, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.write(data)

    def write(self, data: bytes) -> None:
        # A full disk must not end the instance.
        with contextlib.suppress(OSError):
            self._tail = (self._tail + data)[-LOG_KEPT_BYTES:]
            if self._size + len(data) > LOG_BYTES:
                os.ftruncate(self._file, 0)
                data = self._tail
                self._size = 0
            self._size += os.write(self._file, data)


def _exec(orders: dict[str, Any], output: int) -> None:
    """Becomes the server: own session, all signals as by default, nothing inherited but its log."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        # SIGKILL and SIGSTOP cannot be set, nor the two that the C library uses.
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if orders["data_bytes"]:
        resource.setrlimit(resource.RLIMIT_DATA, (orders["data_bytes"], orders["data_bytes"]))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(orders["home"])
    # The command is the facility's and the environment is given: no shell is involved.
    os.execve(orders["command"][0], orders["command"], orders["environ"])  # noqa: S606


def _descendants(root: int) -> set[int]:
    """Gives all processes below one, by their parents."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found: set[int] = set()
    fresh = {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _noted(number: int, frame: object) -> None:
    """Does nothing: a handler must exist so that SIGCHLD wakes the loop."""


def _drain(source: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(source, 4096):
            pass


if __name__ == "__main__":
    status = main()
    # As shells say it: 128 + number of the signal.
    sys.exit(status if status >= 0 else 128 - status)
