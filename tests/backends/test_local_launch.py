"""What an instance is told and may do: its environment, its rights, its command line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

from .conftest import IS_ROOT, LocalWorld
from .contract import started
from .local_world import report, runnable

pytestmark = runnable


async def test_the_environment_holds_nothing_but_the_listed_names(
    local: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_SECRET", "of the Hub")
    launch = local.launch()
    steps = await started(local.backend(), launch)
    seen = report(local, launch)
    environ = seen["environ"]
    assert isinstance(environ, dict)
    fixed = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "XDG_RUNTIME_DIR", "JUPYTERHUB_SERVICE_URL"}
    ours = {"INSTANCE", "ATTEMPT", "DEPLOYMENT", "NAME", "RESOLUTION", "KEYBOARD", "RUNTIME", "EXPERIMENTS"}
    # LC_CTYPE is what Python sets for itself.
    assert set(environ) - {"LC_CTYPE"} == fixed | {f"VISAHUB_{name}" for name in ours} | set(launch.environ)
    assert environ["JUPYTERHUB_SERVICE_URL"] == f"{steps[-1].address}/user/ada/i1/"
    assert environ["HOME"] == seen["cwd"] == str(local.home())
    assert environ["USER"] == local.ada.username


async def test_the_process_has_only_the_account_s_rights(local: LocalWorld) -> None:
    launch = local.launch()
    await started(local.backend(), launch)
    seen = report(local, launch)
    uid = local.ada.uid if IS_ROOT else os.getuid()
    gid = local.ada.gid if IS_ROOT else os.getgid()
    assert seen["ids"] == [uid] * 3 + [gid] * 3
    assert seen["groups"] == ([gid] if IS_ROOT else os.getgroups())
    assert seen["umask"] == 0o077
    assert seen["session"] is True
    # Python itself ignores SIGPIPE and SIGXFSZ; 3 is the listing's own.
    assert seen["ignored"] == [13, 25]
    assert seen["files"] == ["0", "1", "2", "3"]


async def test_signals_that_the_hub_ignores_are_not_ignored_by_the_instance(local: LocalWorld) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        launch = local.launch()
        await started(local.backend(), launch)
    finally:
        signal.signal(signal.SIGINT, before)
    assert report(local, launch)["ignored"] == [13, 25]


async def test_no_command_line_shows_a_secret(local: LocalWorld) -> None:
    launch = local.launch()
    task = asyncio.create_task(started(local.backend(), launch))
    lines = []
    while not task.done():
        lines.append(await asyncio.to_thread(_command_lines))
    await task
    lines.append(_command_lines())
    assert any("tiny_server" in line for line in lines)
    assert not any("s3cret-token" in line for line in lines)


def _command_lines() -> str:
    return subprocess.run(["ps", "-eo", "args", "ww"], capture_output=True, text=True, check=True).stdout
