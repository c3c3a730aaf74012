"""Faults inside a real JupyterLab with a desktop: a kernel without memory, a display server that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.services.hub import running, wait_until
from tests.services.memory import scarce
from visahub.model.instance import Phase

from .conftest import OTHERS, OWN, Asking

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]


class Lab:
    """Alice's JupyterLab behind the proxy, as her browser and her notebook meet it."""

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.server = asking.started(environment="lab")
        self.headers = {"Authorization": f"token {asking.token('alice')}"}
        self.url = f"{asking.hub.url}/user/alice/{self.server}"

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(method, f"{self.url}/{path}", headers=self.headers, json=body, timeout=60)

    async def kernel(self) -> Kernel:
        answer = self.ask("POST", "api/kernels", {"name": "python3"})
        assert answer.status_code == 201, answer.text
        address = f"{self.url}/api/kernels/{answer.json()['id']}/channels".replace("http", "ws", 1)
        return Kernel(await websocket_connect(HTTPRequest(address, headers=self.headers, request_timeout=60)))

    @property
    def row(self) -> Any:
        return self.asking.row(self.server)


class Kernel:
    """One kernel's channels."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket

    def send(self, code: str) -> str:
        """Sends code and gives the message's id."""
        made = uuid.uuid4().hex
        header = {"msg_id": made, "msg_type": "execute_request", "session": "tests", "username": "", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self._socket.write_message(json.dumps({**message, "buffers": []}))
        return made

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        while (text := await self._socket.read_message()) is not None:
            yield json.loads(text)

    async def run(self, code: str) -> tuple[str, str]:
        """Runs code; gives what it printed and the name of its error."""
        sent, printed, error = self.send(code), "", ""
        async for message in self.messages():
            if message["parent_header"].get("msg_id") != sent:
                continue
            kind, content = message["msg_type"], message["content"]
            printed += content["text"] if kind == "stream" else ""
            error = content["ename"] if kind == "error" else error
            if kind == "status" and content["execution_state"] == "idle":
                break
        return printed.strip(), error

    async def pid(self) -> int:
        """Gives the kernel's process; asks again while one that starts does not hear it."""
        for _ in range(12):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    printed, _error = await self.run("import os; print(os.getpid())")
                if printed:
                    return int(printed)
        raise AssertionError("the kernel does not answer")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


@pytest.fixture
def lab(asking: Asking) -> Lab:
    return Lab(asking)


async def test_f18_a_kernel_without_memory_is_told_and_the_instance_goes_on(lab: Lab) -> None:
    before = lab.row
    kernel = await lab.kernel()
    pid = await kernel.pid()
    # A limit, as the local backend sets one for each process: Python tells it.
    resource.prlimit(pid, resource.RLIMIT_AS, (size(pid) + (64 << 20), resource.RLIM_INFINITY))
    assert (await kernel.run("much = bytearray(1 << 30)"))[1] == "MemoryError"
    assert (await kernel.run("print(1 + 1)"))[0] == "2"
    resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    # The kernel's killer, as in a control group: JupyterLab shows that the kernel died and starts it again.
    with scarce(pid) as is_scarce:
        if not is_scarce:
            os.kill(pid, signal.SIGKILL)
        kernel.send("much = bytearray(1 << 26)")
        async for message in kernel.messages():
            if message["msg_type"] == "status" and "restarting" in message["content"]["execution_state"]:
                break
        else:
            pytest.fail("nobody told that the kernel died")
    assert await kernel.pid() != pid
    kernel.close()
    after = lab.row
    assert (after.phase, after.attempt) == (Phase.READY, before.attempt)
    assert lab.ask("GET", "api/status").status_code == 200


@pytest.mark.skipif(shutil.which("Xvnc") is None, reason="No desktop on this machine: Xvnc is not installed.")
def test_f11_a_display_server_that_hangs(lab: Lab, asking: Asking) -> None:
    before = lab.row
    wait_until(lambda: status(lab).get("state") == "running", "the desktop runs", seconds=90)
    pid = display_server(asking, before.id)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: "does not answer" in status(lab)["sentence"], "the desktop's page says so")
        # JupyterLab goes on, so the instance is ready, and nothing of the desktop is ended.
        assert lab.ask("GET", "api/status").status_code == 200
        assert lab.row.phase is Phase.READY and not lab.row.sentence
        assert display_server(asking, before.id) == pid
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: status(lab)["sentence"] == "", "the desktop's page is content")
    assert display_server(asking, before.id) == pid
    assert (lab.row.phase, lab.row.attempt) == (Phase.READY, before.attempt)


def test_f11_a_jupyterlab_that_hangs(lab: Lab, asking: Asking) -> None:
    before = lab.row
    (pid,) = [pid for pid in asking.hub.instance_pids() if "singleuser.launcher" in command(pid)]
    with closing(asking.hub.login("alice")) as session:
        session.follow_redirects = True
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: "It does not answer" in session.get("/services/visahub/").text, "its card says so")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: "It does not answer" not in session.get("/services/visahub/").text, "its card is content")
    assert lab.ask("GET", "api/status").status_code == 200
    assert (lab.row.phase, lab.row.attempt) == (Phase.READY, before.attempt)


def status(lab: Lab) -> dict[str, Any]:
    """Asks as the desktop's page does before it connects."""
    answer = lab.ask("GET", "desktop/status")
    return dict(answer.json()) if answer.status_code == 200 else {}


def command(pid: int) -> str:
    """Gives the command line of a process, '' when it has just ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def display_server(asking: Asking, instance_id: str) -> int:
    (pid,) = [
        pid
        for pid in asking.hub.instance_pids()
        if command(pid).startswith("Xvnc ") and f"VISAHUB_INSTANCE={instance_id}" in environ(pid)
    ]
    return pid


def size(pid: int) -> int:
    """Gives the address space of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def environ(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    return ""
