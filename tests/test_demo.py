"""The demonstration from outside: what it says, that it ends everything, and that a second start finds all again."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services.demo import ROOT, Demo, free_port

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def state() -> Iterator[Path]:
    # Not pytest's own folder: that one is closed to the sample accounts.
    folder = Path(tempfile.mkdtemp(prefix="visahub-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def processes(state: Path) -> list[str]:
    """The command lines of all processes that belong to a demonstration."""
    # The Hub's processes know the folder; an instance only knows the deployment that is named after it.
    deployment = f"demo-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command, environ = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if str(state).encode() in command + environ or deployment.encode() in environ:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def start_instance(demo: Demo) -> None:
    """Signs in and starts one over the JSON door; returns when it is ready."""
    with httpx.Client(base_url=demo.address, timeout=60) as session:
        session.get("/hub/login")
        given = {"username": "alice", "password": demo.password("alice")}
        entered = session.post("/hub/login", params={"_xsrf": session.cookies["_xsrf"]}, data=given)
        assert entered.status_code == 302
        session.get("/hub/home")
        options = {"experiments": ["p700002"], "environment": "notebooks", "hardware": "small"}
        headers = {"X-XSRFToken": next(c.value or "" for c in session.cookies.jar if c.name == "_xsrf")}
        started = session.post("/hub/api/users/alice/servers/i1", json={"user_options": options}, headers=headers)
        assert started.status_code in {201, 202}, started.text
        until = time.monotonic() + 60
        while not session.get("/hub/api/users/alice/servers/i1", headers=headers).json()["ready"]:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_it_tells_the_way_in_and_ends_everything(state: Path) -> None:
    demo = Demo(state)
    with demo:
        said = demo.log.read_text()
        assert demo.address in said
        for name in ("alice", "bob", "carol", "isabel", "sam", "admin"):
            assert name in said
        assert demo.password("alice") in said
        start_instance(demo)
        assert any("visahub.singleuser.launcher" in command for command in processes(state))
        secret = demo.password("alice")
        demo.end()
        assert processes(state) == []
        demo.start()
        assert demo.password("alice") == secret
        again = subprocess.run(
            [sys.executable, "-m", "visahub.cli", "demo"],
            cwd=ROOT,
            env=os.environ | {"VISAHUB_STATE": str(state), "VISAHUB_PORT": str(free_port())},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert again.returncode == 1
        assert "already runs" in again.stderr
    assert processes(state) == []


def test_a_taken_port_is_told(state: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "visahub.cli", "demo"],
            cwd=ROOT,
            env=os.environ | {"VISAHUB_STATE": str(state), "VISAHUB_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert f"Port {port} is taken" in ended.stderr
    assert "VISAHUB_PORT=" in ended.stderr
