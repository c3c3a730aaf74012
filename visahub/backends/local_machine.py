"""What this machine has free now, and how that is said. Used by `local.py`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..model.offer import Hardware, Offer

_MIB = 1024 * 1024
_GROUPS = Path("/sys/fs/cgroup")
# (limit, used) of the control group at the root of this container, by version.
_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def free_memory_mb(meminfo: Path = Path("/proc/meminfo"), groups: Path = _GROUPS) -> int:
    """Gives the memory that programs may still take, in MiB: the machine's, or the container's where that is less."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = [int(lines["MemAvailable"].split()[0]) // 1024]
    for limit, used in _LIMITS:
        # Absent on most machines; "max" where there is no limit.
        with contextlib.suppress(OSError, ValueError):
            free.append((int((groups / limit).read_text()) - int((groups / used).read_text())) // _MIB)
    return min(free)


def offer(hardware: Hardware, free_mb: int) -> Offer:
    """Says whether a hardware is free on this machine now."""
    cores = len(os.sched_getaffinity(0))
    if hardware.cores > cores:
        has = "1 core" if cores == 1 else f"{cores} cores"
        return Offer(hardware=hardware, is_free=False, sentence=f"too large: this machine has {has}")
    if hardware.memory_mb > free_mb:
        free = f"{max(free_mb, 0) / 1024:.1f} of {hardware.memory_mb / 1024:.1f} GB memory are free"
        return Offer(hardware=hardware, is_free=False, sentence=f"full: {free}; stop an instance or try later")
    return Offer(hardware=hardware, is_free=True, sentence="free now, ready in about 2 s")
