"""Run directories: private, sealed, and removed without following what an account has planted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

from .conftest import IS_ROOT, LocalWorld
from .contract import started
from .local_world import as_ada, as_root, may_read, runnable, runtime, until

pytestmark = runnable


async def test_the_socket_and_the_runtime_directory_are_private(local: LocalWorld) -> None:
    launch = local.launch()
    await started(local.backend(), launch)
    directory = runtime(local, launch)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory.parent / "w").stat().st_mode & 0o777 == (0o711 if IS_ROOT else 0o700)
    assert (directory.parent / "w" / "s").stat().st_mode & 0o777 == 0o600
    assert len(os.fsencode(directory.parent / "w" / "s:80")) < 100
    if IS_ROOT:
        assert directory.stat().st_uid == local.ada.uid
        for path in (directory, directory.parent / "w" / "s", directory.parent / "record.json"):
            assert not may_read(path, 65_534)


async def test_the_proxy_s_spelling_of_the_socket_leads_there_too(local: LocalWorld) -> None:
    launch = local.launch()
    await started(local.backend(), launch)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(runtime(local, launch).parent / "w" / "s:80"))


@as_root
async def test_a_socket_exchanged_for_a_link_is_never_followed(local: LocalWorld) -> None:
    """The account ends its server and puts a link to another socket in its place, before anybody has answered."""
    launch = local.launch("mute")
    backend = local.backend()
    task = asyncio.create_task(started(backend, launch))
    web = runtime(local, launch).parent / "w"
    await until(lambda: (runtime(local, launch) / "report.json").exists())
    met = []
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(local.root / "trap"))
        os.chmod(local.root / "trap", 0o777)
        trap.listen()
        trap.setblocking(False)
        assert not as_ada(local, "ln", "-s", str(local.root / "trap"), str(web / "s"))
        await asyncio.sleep(0.3)
        await backend.look()
        with contextlib.suppress(BlockingIOError):
            met.append(trap.accept())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert met == []
    await backend.stop(launch.attempt, {})


@as_root
async def test_the_socket_cannot_be_exchanged_once_it_answers(local: LocalWorld) -> None:
    launch = local.launch()
    await started(local.backend(), launch)
    web = runtime(local, launch).parent / "w"
    for command in (
        ["rm", "-f", str(web / "s")],
        ["ln", "-s", "/etc", str(web / "x")],
        ["mv", str(web), str(web) + "x"],
    ):
        assert as_ada(local, *command) != 0


@as_root
async def test_a_removal_does_not_follow_links(local: LocalWorld) -> None:
    launch = local.launch()
    backend = local.backend()
    await started(backend, launch)
    precious = local.root / "precious"
    precious.mkdir()
    (precious / "data").write_text("42")
    assert not as_ada(local, "ln", "-s", str(precious), str(runtime(local, launch) / "link"))
    await backend.delete(launch.attempt, {})
    assert (precious / "data").read_text() == "42"
    assert local.runs() == []


@pytest.mark.parametrize("attempt", ["../../etc", "", "a/b", ".", "A" * 26, "a" * 70])
async def test_an_attempt_that_cannot_be_is_a_defect(local: LocalWorld, attempt: str) -> None:
    with pytest.raises(ValueError, match="attempt"):
        await local.backend().stop(attempt, {})
