"""The processes of local instances: what runs, how it is started and how all of it is ended. Used by `local.py`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model.errors import Failed, Unavailable
from .local_accounts import Person
from .local_keeper import started

_HERE = Path(__file__).parent
# No site packages, nothing of the environment or the working directory: these programs begin as root.
_PYTHON = (sys.executable, "-I", "-S")
# The keeper ends everything within 5 s of SIGTERM; then SIGKILL, repeated.
_TERM_SECONDS = 7.0
_KILL_SECONDS = 10.0
# Long for a file server that wakes up, short enough for a start.
_HOME_SECONDS = 30.0
# A process may carry megabytes of environment, and there may be thousands of them.
_ENVIRON_BYTES = 1 << 17


@dataclass(frozen=True)
class Process:
    """One line of /proc. `attempt` and `runtime` are what its environment says, '' when it may not be read."""

    pid: int
    parent: int
    started: int
    uid: int
    attempt: str = ""
    runtime: str = ""


def scan() -> dict[int, Process]:
    """Gives all processes by number; zombies are left out, they have ended."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            # A process may end while it is looked at.
            with contextlib.suppress(OSError, ValueError, IndexError):
                process = _read(int(name))
                if process is not None:
                    found[process.pid] = process
    return found


def _read(pid: int) -> Process | None:
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    if fields[0] in {b"Z", b"X"}:
        return None
    with open(f"/proc/{pid}/status", "rb") as file:
        # The real uid: /proc/<pid> itself belongs to root for a process that has changed its account.
        uid = next(int(line.split()[1]) for line in file if line.startswith(b"Uid:"))
    environ = _environ(pid)
    return Process(pid, int(fields[1]), int(fields[19]), uid, *environ)


def _environ(pid: int) -> tuple[str, str]:
    attempt = runtime = b""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        for item in file.read(_ENVIRON_BYTES).split(b"\0"):
            if item.startswith(b"VISAHUB_ATTEMPT="):
                attempt = item[16:]
            elif item.startswith(b"VISAHUB_RUNTIME="):
                runtime = item[16:]
    return os.fsdecode(attempt), os.fsdecode(runtime)


def is_alive(pid: int, start: int) -> bool:
    """Tells whether exactly this process runs: the number alone could have been given to another one."""
    try:
        return started(pid) == start and Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (OSError, IndexError):
        return False


def below(table: Mapping[int, Process], roots: Iterable[int]) -> set[int]:
    """Gives these processes and all below them; never this process itself."""
    found = {pid for pid in roots if pid in table}
    fresh = set(found)
    while fresh:
        fresh = {process.pid for process in table.values() if process.parent in fresh} - found
        found |= fresh
    return found - {os.getpid()}


def as_user(person: Person, program: str, orders: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one of our programs, which takes an account's rights; gives its answer, raises Failed with a sentence."""
    try:
        done = subprocess.run(  # noqa: S603 - our own program, no shell
            [*_PYTHON, str(_HERE / program)],
            input=json.dumps({**person.rights, **orders}).encode(),
            capture_output=True,
            timeout=_HOME_SECONDS,
            cwd="/",
            env={"LANG": "C.UTF-8"},
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(
            f"The home {person.home} did not answer within {_HOME_SECONDS:.0f} s, so nothing was started. "
            "Try again in a few minutes; if it stays, tell support that the file server does not answer."
        ) from error
    if done.returncode:
        raise Failed(
            f"The home {person.home} could not be prepared, so nothing was started. "
            "It may be full: delete something there, or ask support.",
            log=done.stderr.decode(errors="replace")[-4000:],
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def spawn(orders: Mapping[str, Any], log: int, claimed: Callable[[], bool]) -> int:
    """Starts a keeper and gives its number, once the attempt is claimed by it or by an earlier one.

    Not by `subprocess.Popen`, which complains when it is forgotten before its process ends: a keeper outlives us.
    """
    source, sink = os.pipe2(os.O_CLOEXEC)
    try:
        keeper = os.posix_spawn(
            _PYTHON[0],
            [*_PYTHON, str(_HERE / "local_keeper.py")],
            {"LANG": "C.UTF-8"},
            file_actions=[(os.POSIX_SPAWN_DUP2, source, 0)] + [(os.POSIX_SPAWN_DUP2, log, number) for number in (1, 2)],
            setsid=True,
        )
    finally:
        os.close(source)
    with contextlib.suppress(BrokenPipeError), open(sink, "wb") as pipe:
        pipe.write(json.dumps(orders).encode())
    deadline = time.monotonic() + _HOME_SECONDS
    while not claimed() and time.monotonic() < deadline:
        if has_ended(keeper):
            raise Failed("The first process of the instance ended at once. Show support what the log says.")
        time.sleep(0.002)
    return keeper


def has_ended(child: int) -> bool:
    """Tells whether a process that we have started has ended; takes its exit status from the kernel."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def end(find: Callable[[], Mapping[int, int]], kill: Callable[[], None], keeper: tuple[int, int] | None) -> None:
    """Ends all that `find` finds (number and start time): the keeper is asked, then all is killed until none is left.

    A number that was given to another process meanwhile is not touched. `kill` ends what a cgroup holds. Raises
    Unavailable when something cannot be ended (it waits for a dead disk).
    """
    if keeper is not None and _signal(*keeper, signal.SIGTERM):
        deadline = time.monotonic() + _TERM_SECONDS
        while is_alive(*keeper) and time.monotonic() < deadline:
            time.sleep(0.02)
    deadline = time.monotonic() + _KILL_SECONDS
    pause = 0.005
    while found := find():
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{len(found)} processes of the instance could not be ended; they probably wait for a file server "
                "that does not answer. Try again in a few minutes, or tell support."
            )
        kill()
        for pid, start in found.items():
            _signal(pid, start, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 2, 0.2)


def _signal(pid: int, start: int, number: signal.Signals) -> bool:
    """Signals exactly this process; the descriptor keeps meaning it even when the number is given to another."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_alive(pid, start):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
