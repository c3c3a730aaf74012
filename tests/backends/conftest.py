"""One local machine for the tests of a room: short directories, throw-away accounts, everything ended afterwards."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from visahub.backends.base import Backend
from visahub.backends.local import LocalBackend
from visahub.backends.local_launch import is_open_to_all
from visahub.backends.local_processes import scan
from visahub.model.account import Account
from visahub.model.experiment import Experiment
from visahub.model.instance import new_attempt
from visahub.model.launch import Launch
from visahub.model.offer import Environment, Hardware

IS_ROOT = os.geteuid() == 0
SERVER = Path(__file__).with_name("tiny_server.py")
KINDS = ("plain", "failing", "mute", "daemons", "deaf", "greedy")
HARDWARE = Hardware(id="small", name="Small", backend="local", place="here", cores=1, memory_mb=512)


def open_python() -> tuple[str, str] | None:
    """Finds a Python that every account may run, and the PYTHONPATH with which it has our packages."""
    if is_open_to_all(sys.executable):
        return sys.executable, ""
    system = Path("/usr/bin/python3")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if system.exists() and os.path.realpath(system).endswith(version):
        return str(system), sysconfig.get_path("purelib")
    return None


class LocalWorld:
    """Everything that `LocalBackend` may touch, in one place."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="vh"))
        self.root.chmod(0o755)
        self.deployment = f"t{secrets.token_hex(3)}"
        self.people: dict[str, Account] = {}
        python = open_python()
        self.python = python[0] if python else sys.executable
        self.settings: dict[str, Any] = {}
        # Not in the checkout, which accounts may be unable to read.
        self.server = shutil.copy(SERVER, self.root)
        self.ada = self.account()

    def account(self) -> Account:
        """Makes up an account that this machine does not have."""
        name = f"vh{secrets.token_hex(4)}a"
        uid = 61_000 + secrets.randbelow(2_000)
        made = Account(id=len(self.people) + 1, username=name, uid=uid, gid=uid)
        self.people[name] = made
        return made

    def backend(self, deployment: str = "", **settings: Any) -> Backend:
        name = f"{self.deployment}-{deployment}" if deployment else self.deployment
        usual = {
            "deployment": name,
            "run_root": str(self.root / "run"),
            "home_root": str(self.root / "home"),
            "data_dir": str(self.root / "data"),
            "commands": {kind: [self.python, "-S", self.server, kind] for kind in KINDS},
        }
        return LocalBackend(**{**usual, **self.settings, **settings})

    def launch(
        self, kind: str = "plain", account: Account | None = None, experiments: tuple[Experiment, ...] = ()
    ) -> Launch:
        return Launch(
            instance_id="i123456789",
            attempt=new_attempt(),
            deployment=self.deployment,
            name="quiet-beamline",
            account=account or self.ada,
            experiments=experiments,
            environment=Environment(id="lab", name="Lab", images={"local": kind}),
            hardware=HARDWARE,
            resolution="client",
            keyboard="us",
            environ={"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/i1/", "JUPYTERHUB_API_TOKEN": "s3cret-token"},
        )

    def failing(self) -> Launch:
        return self.launch("failing")

    def home(self, account: Account | None = None) -> Path:
        return self.root / "home" / (account or self.ada).username

    def runs(self) -> list[Path]:
        return [path for path in (self.root / "run").glob("*/*") if not path.name.startswith(".")]

    def count(self, attempt: str) -> int:
        """Counts run directories and processes, also those that have thrown their environment away."""
        key = attempt[:12]
        directories = [path for path in self.runs() if path.name == key]
        return len(directories) + sum(1 for process in scan().values() if process.attempt == attempt)

    def processes(self, account: Account | None = None) -> list[int]:
        """Gives the processes of an account of ours, all of them when it has a uid of its own."""
        uid = (account or self.ada).uid
        return [process.pid for process in scan().values() if process.uid == uid]

    def close(self) -> None:
        for deployment in ("", "theirs"):
            backend = self.backend(deployment)
            asyncio.run(_end_all(backend))
            for base in ("", "memory", "unified"):
                for group in Path("/sys/fs/cgroup", base).glob(f"visahub-{backend.deployment}"):
                    group.rmdir()
        for name, account in self.people.items():
            # Only what the tests have made: the name is random, and the uid must be ours.
            if IS_ROOT and name in {entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == account.uid}:
                subprocess.run(["userdel", name], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)


async def _end_all(backend: Backend) -> None:
    for attempt in await backend.look():
        await backend.delete(attempt, {})


@pytest.fixture
def local() -> Iterator[LocalWorld]:
    world = LocalWorld()
    yield world
    world.close()
