"""What the tests of the local backend share: skips, and what an instance and its directory say."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from visahub.backends.local_processes import scan
from visahub.model.experiment import Experiment
from visahub.model.launch import Launch

from .conftest import IS_ROOT, LocalWorld, open_python

runnable = pytest.mark.skipif(IS_ROOT and open_python() is None, reason="no Python here that another account could run")
as_root = pytest.mark.skipif(not IS_ROOT, reason="makes Unix accounts: needs root")


def runtime(local: LocalWorld, launch: Launch) -> Path:
    return local.root / "run" / local.deployment / launch.attempt[:12] / "u"


def report(local: LocalWorld, launch: Launch) -> dict[str, object]:
    """What the tiny server has seen of itself."""
    read: dict[str, object] = json.loads((runtime(local, launch) / "report.json").read_text())
    return read


def experiments(local: LocalWorld, launch: Launch) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads((runtime(local, launch) / "experiments.json").read_text())
    return rows


def experiment(local: LocalWorld, id: str, proposal: str, *, has_data: bool = True) -> Experiment:
    path = local.root / "facility" / id
    if has_data:
        path.mkdir(parents=True, exist_ok=True)
        (path / "scan.h5").write_text(id)
    return Experiment(id=id, proposal=proposal, title=f"About {proposal}", instrument="p06", path=str(path))


async def until(is_so: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def as_ada(local: LocalWorld, *command: str) -> int:
    """Runs a command as the account of the tests and gives its exit status."""
    ids = [f"--reuid={local.ada.uid}", f"--regid={local.ada.gid}", "--clear-groups"]
    return subprocess.run(["setpriv", *ids, *command], capture_output=True).returncode


def may_read(path: Path, uid: int) -> bool:
    """Tells whether another account can read something."""
    ids = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return subprocess.run(["setpriv", *ids, "test", "-r", str(path)]).returncode == 0


@contextmanager
def stranger(environ: dict[str, str] | None = None, uid: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    ids = [f"--reuid={uid}", "--clear-groups"] if uid else []
    process = subprocess.Popen(["setpriv", *ids, "sleep", "1000"], env={"PATH": os.environ["PATH"], **(environ or {})})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def server_of(launch: Launch) -> int:
    """Gives the number of the tiny server's process."""
    return next(
        process.pid
        for process in scan().values()
        if process.attempt == launch.attempt and b"tiny_server" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    )
