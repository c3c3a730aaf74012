"""The end of an instance: nothing of it is left, and nothing else is touched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess

import pytest

from visahub.backends.local_processes import is_alive
from visahub.model.launch import Launch, Seen

from .conftest import IS_ROOT, LocalWorld
from .contract import started
from .local_world import as_root, runnable, runtime, server_of, stranger, until

pytestmark = runnable


@pytest.mark.parametrize("cgroup_root", ["", "/sys/fs/cgroup"])
@pytest.mark.parametrize("kind", ["daemons", "deaf"])
async def test_everything_ends(local: LocalWorld, kind: str, cgroup_root: str) -> None:
    backend = local.backend(cgroup_root=cgroup_root)
    launch = local.launch(kind)
    await started(backend, launch)
    before = set(await asyncio.to_thread(_sleepers, launch))
    assert bool(before) == (kind == "daemons")
    await backend.stop(launch.attempt, {})
    assert local.count(launch.attempt) == 0
    assert not before & set(_sleepers(launch))
    if IS_ROOT:
        assert local.processes() == []


def _sleepers(launch: Launch) -> list[int]:
    """The test's own daemons, by their user: other tests have some at the same time."""
    uid = launch.account.uid if IS_ROOT else os.getuid()
    lines = subprocess.run(["ps", "-eo", "pid,uid,args", "ww"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines() if "visahub-test-daemon" in line]
    return [int(pid) for pid, owner, _ in rows if int(owner) == uid]


async def test_daemons_end_with_a_server_that_ends_by_itself(local: LocalWorld) -> None:
    launch = local.launch("daemons")
    backend = local.backend()
    await started(backend, launch)
    before = set(_sleepers(launch))
    keeper = json.loads((runtime(local, launch).parent / "pid").read_text())
    os.kill(server_of(launch), signal.SIGKILL)
    await until(lambda: not is_alive(keeper["pid"], keeper["started"]))
    assert not before & set(_sleepers(launch))
    seen = (await backend.look())[launch.attempt]
    assert seen.seen is Seen.FAILED
    assert "SIGKILL" in seen.sentence


@pytest.mark.parametrize("cgroup_root", ["", "/sys/fs/cgroup"])
async def test_what_goes_on_without_its_keeper_is_ended_too(local: LocalWorld, cgroup_root: str) -> None:
    backend = local.backend(cgroup_root=cgroup_root)
    launch = local.launch("plain")
    await started(backend, launch)
    record = json.loads((runtime(local, launch).parent / "pid").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    await until(lambda: not is_alive(record["pid"], record["started"]))
    assert local.count(launch.attempt) == 2
    assert (await local.backend(cgroup_root=cgroup_root).look())[launch.attempt].seen is Seen.FAILED
    await local.backend(cgroup_root=cgroup_root).stop(launch.attempt, {})
    assert local.count(launch.attempt) == 0


async def test_processes_without_a_run_directory_are_found(local: LocalWorld) -> None:
    launch = local.launch()
    backend = local.backend()
    await started(backend, launch)
    for path in sorted(runtime(local, launch).parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    runtime(local, launch).parent.rmdir()
    assert (await backend.look())[launch.attempt].seen is Seen.FAILED
    await backend.stop(launch.attempt, {})
    assert local.count(launch.attempt) == 0


@as_root
async def test_naming_another_s_attempt_protects_nobody_and_ends_nobody(local: LocalWorld) -> None:
    launch = local.launch()
    backend = local.backend()
    await started(backend, launch)
    environ = {"VISAHUB_ATTEMPT": launch.attempt, "VISAHUB_RUNTIME": str(runtime(local, launch))}
    with stranger(environ, uid=65_533) as other:
        await backend.stop(launch.attempt, {})
        assert other.poll() is None
