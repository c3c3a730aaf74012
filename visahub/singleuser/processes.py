"""The processes below the desktop daemon: found, ended and waited for, however they detached themselves."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import time

_PR_SET_CHILD_SUBREAPER = 36
_TERM_SECONDS = 3.0
_KILL_SECONDS = 5.0


def adopt_orphans() -> None:
    """Makes this process the parent of whatever its descendants leave behind, so that nothing gets away."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def dying_with_parent(command: list[str]) -> list[str]:
    """Makes a command end when the daemon is killed, where util-linux is there to do it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


def descendants(root: int) -> dict[int, str]:
    """Gives every process below `root` with its state letter (Z: ended, not yet waited for)."""
    parents: dict[int, tuple[int, str]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The program's name, in brackets, may hold anything.
                    rest = file.read().rpartition(b")")[2].split()
                parents[int(name)] = (int(rest[1]), rest[0].decode())
    found: dict[int, str] = {}
    level = {root}
    while level:
        level = {pid for pid, (parent, _) in parents.items() if parent in level and pid not in found}
        found.update({pid: parents[pid][1] for pid in level})
    return found


def reap(except_pids: set[int]) -> None:
    """Waits for adopted processes that have ended; those in `except_pids` are waited for by somebody else."""
    for pid, state in descendants(os.getpid()).items():
        if state == "Z" and pid not in except_pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


async def end_all(except_pids: set[int]) -> None:
    """Ends everything below this process but `except_pids`: politely for a while, then surely."""
    for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        told: set[int] = set()
        while time.monotonic() < deadline:
            reap(except_pids)
            alive = {pid for pid, state in descendants(os.getpid()).items() if state != "Z"} - except_pids
            if not alive:
                return
            for pid in alive - told:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            told |= alive
            await asyncio.sleep(0.05)
