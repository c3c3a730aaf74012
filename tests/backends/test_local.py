"""Instances as processes of this machine; run as root they get Unix accounts of their own, else they share ours."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from visahub.backends.local_processes import scan
from visahub.model.errors import Failed, Refused, Unavailable
from visahub.model.instance import new_attempt
from visahub.model.launch import Seen
from visahub.model.offer import Hardware

from .conftest import HARDWARE, IS_ROOT, LocalWorld, open_python
from .contract import BackendContract, cut, started
from .local_world import as_root, runnable, runtime, stranger, until

pytestmark = runnable


class TestLocalBackend(BackendContract):
    @pytest.fixture
    def world(self, local: LocalWorld) -> LocalWorld:
        return local


class TestLocalBackendWithoutControlGroups(BackendContract):
    @pytest.fixture
    def world(self, local: LocalWorld) -> LocalWorld:
        local.settings["cgroup_root"] = ""
        return local


async def test_a_number_given_to_another_process_does_not_fool_it(local: LocalWorld) -> None:
    launch = local.launch()
    backend = local.backend()
    await started(backend, launch)
    pid_file = runtime(local, launch).parent / "pid"
    with stranger() as other:
        pid_file.write_text(json.dumps({"pid": other.pid, "started": 1}))
        assert (await backend.look())[launch.attempt].seen is Seen.FAILED
        await backend.stop(launch.attempt, {})
        assert other.poll() is None


async def test_a_starting_instance_is_seen_as_starting(local: LocalWorld) -> None:
    launch = local.launch("mute")
    backend = local.backend()
    task = asyncio.create_task(started(backend, launch))
    await until(lambda: (runtime(local, launch) / "report.json").exists())
    for looking in (backend, local.backend()):
        assert (await looking.look())[launch.attempt].seen is Seen.STARTING
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_frozen_instance_counts_as_running(local: LocalWorld) -> None:
    launch = local.launch()
    backend = local.backend()
    await started(backend, launch)
    server = next(p.pid for p in scan().values() if p.attempt == launch.attempt)
    os.kill(server, signal.SIGSTOP)
    assert (await backend.look())[launch.attempt].seen is Seen.RUNNING
    await backend.stop(launch.attempt, {})
    assert local.count(launch.attempt) == 0


async def test_half_built_without_a_process_is_absent_after_a_restart(local: LocalWorld) -> None:
    launch = local.launch()
    await cut(local.backend(), launch, 3)
    assert launch.attempt not in await local.backend().look()


async def test_what_cannot_be_read_is_unavailable_and_not_gone(local: LocalWorld) -> None:
    launch = local.launch()
    await started(local.backend(), launch)
    record = runtime(local, launch).parent / "record.json"
    kept = record.read_text()
    record.write_text("{")
    with pytest.raises(Unavailable):
        await local.backend().look()
    record.write_text(kept)


async def test_a_hub_that_was_killed_finds_its_instance(local: LocalWorld, tmp_path: Path) -> None:
    """A real process starts the instance and is killed; nothing of its memory is left."""
    launch = local.launch()
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(started(local.backend(), launch))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, pid, 0)
    seen = (await local.backend().look())[launch.attempt]
    assert seen.seen is Seen.RUNNING
    again = await started(local.backend(), launch)
    assert again[-1].address == seen.address


async def test_a_failed_start_shows_the_last_lines(local: LocalWorld) -> None:
    with pytest.raises(Failed) as raised:
        await started(local.backend(), local.failing())
    assert "no space left on device" in raised.value.log
    assert "exit code 3" in raised.value.log


async def test_an_unknown_image_is_refused(local: LocalWorld) -> None:
    with pytest.raises(Refused) as raised:
        await started(local.backend(), local.launch("nothing-like-that"))
    assert "commands" in raised.value.sentence


async def test_a_command_that_does_not_exist_is_said(local: LocalWorld) -> None:
    backend = local.backend()
    with pytest.raises(Failed) as raised:
        await started(backend, local.launch("/nonexistent/python"))
    assert "No such file" in raised.value.log


async def test_a_run_root_that_is_too_long_is_said(local: LocalWorld) -> None:
    backend = local.backend(run_root=str(local.root / ("x" * 60)))
    with pytest.raises(Failed, match="run_root"):
        await started(backend, local.launch())


async def test_the_log_is_bounded(local: LocalWorld) -> None:
    launch = local.launch("greedy")
    await started(local.backend(), launch)
    log = runtime(local, launch).parent / "log"
    await until(lambda: "last line" in log.read_text())
    assert log.stat().st_size < 1_200_000


async def test_offers_say_what_is_free(local: LocalWorld) -> None:
    backend = local.backend()
    huge = replace(HARDWARE, id="huge", memory_mb=10_000_000)
    wide = replace(HARDWARE, id="wide", cores=10_000)
    elsewhere = Hardware(id="far", name="Far", backend="slurm", place="there", cores=1, memory_mb=1)
    offers = await backend.offers((HARDWARE, huge, wide, elsewhere))
    assert [(offer.hardware.id, offer.is_free) for offer in offers] == [
        ("small", True),
        ("huge", False),
        ("wide", False),
    ]
    assert "2 s" in offers[0].sentence
    assert "full" in offers[1].sentence
    assert "cores" in offers[2].sentence


def test_remarks_tell_what_is_missing(local: LocalWorld) -> None:
    remarks = local.backend(cgroup_root="", limit_memory=False).remarks()
    assert any("not limited" in remark for remark in remarks)
    assert any("without isolation" in remark for remark in remarks) == (not IS_ROOT)


async def test_the_address_answers(local: LocalWorld) -> None:
    launch = local.launch()
    steps = await started(local.backend(), launch)
    path = str(runtime(local, launch).parent / "w" / "s")
    assert steps[-1].address == "http+unix://" + path.replace("/", "%2F")
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as client:
        assert (await client.get("http://localhost/user/ada/i1/api")).status_code == 200


async def test_ten_at_once(local: LocalWorld) -> None:
    launches = [local.launch() for _ in range(10)]
    backend = local.backend()
    done = await asyncio.gather(*(started(backend, launch) for launch in launches))
    assert len({steps[-1].address for steps in done}) == 10
    await asyncio.gather(*(backend.stop(launch.attempt, {}) for launch in launches))
    assert await backend.look() == {}
    assert new_attempt() not in {launch.attempt for launch in launches}


@as_root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hub_of_a_normal_user_keeps_the_contract_too() -> None:
    """Runs the greater part of this room's tests as somebody who is not root and has no entry in /etc/passwd."""
    python = open_python()
    assert python is not None
    room = Path(__file__).parent
    if not all(part.stat().st_mode & 0o001 for part in room.parents):
        pytest.skip("the checkout is in a closed directory")
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        done = subprocess.run(
            [
                *("setpriv", "--reuid=61999", "--regid=61999", "--clear-groups"),
                *(python[0], "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(room)),
                *("-k", "local and not WithoutControlGroups and not deaf and not launcher"),
            ],
            cwd=room.parents[1],
            env={
                "PATH": "/usr/sbin:/usr/bin:/bin",
                "HOME": home,
                "LANG": "C.UTF-8",
                "PYTHONPATH": os.pathsep.join((str(room.parents[1]), python[1])),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
