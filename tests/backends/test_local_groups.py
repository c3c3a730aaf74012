"""Limits of memory, for an instance by control groups, else for each process."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import LocalWorld
from .contract import started
from .local_world import runnable, server_of

pytestmark = runnable


async def test_the_memory_of_an_instance_is_limited(local: LocalWorld) -> None:
    backend = local.backend()
    if any("Control groups" in remark for remark in backend.remarks()):
        pytest.skip("no memory controller that may be used here")
    launch = local.launch()
    await started(backend, launch)
    key = f"visahub-{local.deployment}/{launch.attempt[:12]}"
    assert _limits(key) == ["536870912"]
    await backend.stop(launch.attempt, {})
    assert _limits(key) == []


def _limits(key: str) -> list[str]:
    return [
        path.read_text().strip()
        for path in (
            Path("/sys/fs/cgroup/memory", key, "memory.limit_in_bytes"),
            Path("/sys/fs/cgroup", key, "memory.max"),
        )
        if path.exists()
    ]


async def test_without_control_groups_each_process_is_limited(local: LocalWorld) -> None:
    backend = local.backend(cgroup_root="")
    launch = local.launch()
    await started(backend, launch)
    assert _data_limit(server_of(launch)) == ["536870912", "536870912"]


def _data_limit(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max data size")).split()[3:5]
