"""Lets a process run out of memory: by the kernel's OOM killer where control groups allow it, else by its signal."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
# The next page that a process touches for the first time is one too many.
_BYTES = 1 << 14


@contextlib.contextmanager
def scarce(pid: int) -> Iterator[bool]:
    """Puts a process into a group that has nearly no memory left; tells whether that could be done here."""
    group = next((path for path in (_GROUPS / "memory", _GROUPS) if os.access(path / "cgroup.procs", os.W_OK)), None)
    if group is None:
        yield False
        return
    own = group / f"visahub-test-{pid}"
    limit = own / ("memory.limit_in_bytes" if group.name == "memory" else "memory.max")
    own.mkdir()
    try:
        try:
            limit.write_text(str(_BYTES))
            (own / "cgroup.procs").write_text(str(pid))
        except OSError:
            yield False
            return
        yield True
    finally:
        _remove(own)


def _remove(group: Path) -> None:
    """A group goes when its last process has gone."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.1)


def kill_for_memory(pid: int, use: Callable[[], object], *, seconds: float = 20) -> bool:
    """Lets `use` make a process need memory until it is killed; tells whether the OOM killer did it."""
    with scarce(pid) as is_scarce:
        until = time.monotonic() + (seconds if is_scarce else 0)
        while _lives(pid) and time.monotonic() < until:
            with contextlib.suppress(Exception):
                use()
        if not _lives(pid):
            return True
        os.kill(pid, signal.SIGKILL)
        return False


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
