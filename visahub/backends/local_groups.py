"""Control groups of local instances: hold every process of an instance together and limit its memory.

Knows cgroup v2 and the older v1 and mixed layouts; where the Hub may not write, nothing is limited or held, and
`local_processes.py` finds the processes by other means. Used by `local.py`.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

_REMOVE_SECONDS = 1.0


@dataclass(frozen=True)
class Groups:
    """Where this machine keeps its control groups: `holder` for membership, `memory` for limits, None for neither."""

    holder: Path | None = None
    memory: Path | None = None
    is_v2: bool = False

    @classmethod
    def find(cls, root: str, deployment: str) -> Groups:
        """Looks what this machine allows; `root` is usually /sys/fs/cgroup, '' for no control groups."""
        if not root:
            return cls()
        name = f"visahub-{deployment}"
        base = Path(root)
        if (base / "cgroup.controllers").exists():
            holder = _made(base / name)
            return cls(holder, holder if holder and _has_memory(base, holder) else None, is_v2=True)
        mixed = base / "unified"
        holder = _made(mixed / name) if (mixed / "cgroup.procs").exists() else None
        limits = base / "memory" / "memory.limit_in_bytes"
        memory = _made(base / "memory" / name) if limits.exists() else None
        return cls(holder or memory, memory)

    def _all(self, key: str) -> list[Path]:
        return [base / key for base in dict.fromkeys((self.holder, self.memory)) if base is not None]

    def make(self, key: str, memory_mb: int) -> list[str]:
        """Makes the groups of one instance; gives the files into which its first process writes itself. 0: no limit."""
        for path in self._all(key):
            path.mkdir(exist_ok=True)
        if self.memory is not None and memory_mb:
            limit = str(memory_mb * 1024 * 1024)
            names = ("memory.max", "memory.swap.max") if self.is_v2 else ("memory.limit_in_bytes", "")
            (self.memory / key / names[0]).write_text(limit)
            if names[1]:
                # Without swap of its own an instance at its limit is ended instead of slowing the machine down.
                with contextlib.suppress(OSError):
                    (self.memory / key / names[1]).write_text("0")
        return [str(path / "cgroup.procs") for path in self._all(key)]

    def pids(self, key: str) -> set[int]:
        """Gives the processes of one instance, those in groups below too; empty when there is no group."""
        found: set[int] = set()
        for base in self._all(key):
            for path, _, _ in os.walk(base):
                with contextlib.suppress(OSError, ValueError):
                    found |= {int(line) for line in Path(path, "cgroup.procs").read_text().split()}
        return found - {0}

    def kill(self, key: str) -> None:
        """Ends all processes of one instance at once, where the kernel can (5.14 and newer)."""
        for base in self._all(key):
            with contextlib.suppress(OSError):
                (base / "cgroup.kill").write_text("1")

    def remove(self, key: str) -> None:
        """Removes the groups of one instance once its processes have ended; what stays busy is left."""
        for base in self._all(key):
            deadline = time.monotonic() + _REMOVE_SECONDS
            while base.exists() and time.monotonic() < deadline:
                for path, _, _ in os.walk(base, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(path)
                if base.exists():
                    time.sleep(0.02)


def _made(path: Path) -> Path | None:
    """Makes a group if the Hub may; with it comes the right to put processes there."""
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return None
    return path if os.access(path / "cgroup.procs", os.W_OK) else None


def _has_memory(base: Path, holder: Path) -> bool:
    """Tells whether instances below `holder` can be limited, after switching the controller on as far as possible."""
    for path in (base, holder):
        with contextlib.suppress(OSError):
            (path / "cgroup.subtree_control").write_text("+memory")
    try:
        return "memory" in (holder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False
