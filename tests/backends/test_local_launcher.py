"""One real start: LocalBackend, our launcher, JupyterLab and a kernel, with a stub of the Hub's API."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from visahub.model.experiment import Experiment
from visahub.model.launch import Launch

from .conftest import IS_ROOT, LocalWorld, open_python
from .contract import started

pytestmark = [
    pytest.mark.skipif(IS_ROOT and open_python() is None, reason="no Python here that another account could run"),
    pytest.mark.timeout(120),
]
TOKEN = "the-servers-own-token"
PREFIX = "/user/ada/i1/"


class StubHub(BaseHTTPRequestHandler):
    """Answers what a single-user server asks of its Hub; knows one user by one token."""

    def do_GET(self) -> None:
        if self.path.startswith("/hub/api/user"):
            is_known = self.headers.get("Authorization", "").endswith("users-token")
            user = {"kind": "user", "name": "ada", "admin": False, "groups": [], "scopes": ["access:servers!user=ada"]}
            self._answer(200 if is_known else 404, user if is_known else {})
        else:
            self._answer(200, {"version": "6.1.1"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(200, {})

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), StubHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def real_launch(local: LocalWorld, hub: str) -> Launch:
    data = local.root / "facility" / "e1"
    data.mkdir(parents=True)
    experiment = Experiment(id="e1", proposal="p700001", title="About p700001", instrument="p06", path=str(data))
    python, packages = open_python() or (sys.executable, "")
    launch = local.launch(python if packages else "this", experiments=(experiment,))
    environ = {
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTERHUB_API_URL": f"{hub}/hub/api",
        "JUPYTERHUB_ACTIVITY_URL": f"{hub}/hub/api/users/ada/activity",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ada-i1",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{PREFIX}oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!user=ada"]',
        "JUPYTERHUB_OAUTH_SCOPES": '["access:servers!user=ada"]',
        "JUPYTERHUB_SERVER_NAME": "i1",
        "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
        "JUPYTERHUB_USER": "ada",
    }
    if packages:
        # The packages of one Python, run by another.
        checkout = Path(__file__).parents[2]
        environ |= {
            "PYTHONPATH": f"{checkout}:{packages}",
            "JUPYTER_PATH": f"{sys.prefix}/share/jupyter",
            "JUPYTER_CONFIG_PATH": f"{sys.prefix}/etc/jupyter",
            "JUPYTERLAB_DIR": f"{sys.prefix}/share/jupyter/lab",
        }
    return replace(launch, environ=environ, hardware=replace(launch.hardware, memory_mb=2048))


async def test_jupyterlab_starts_answers_runs_a_kernel_and_ends(local: LocalWorld, hub: str) -> None:
    pytest.importorskip("jupyterlab")
    launch = real_launch(local, hub)
    backend = local.backend()
    steps = await started(backend, launch)
    assert steps[-1].address
    socket = local.runs()[0] / "w" / "s"
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://localhost{PREFIX}", timeout=30) as client:
        assert (await client.get("api/status")).status_code == 403
        client.headers["Authorization"] = "token users-token"
        assert (await client.get("api/status")).json()["kernels"] == 0
        assert (await client.get("lab")).status_code == 200
        folder = (await client.get("api/contents/experiments")).json()
        assert [item["name"] for item in folder["content"]] == ["p700001"]
        assert (await client.post("api/kernels", json={})).status_code == 201
    assert local.count(launch.attempt) >= 3
    await backend.stop(launch.attempt, {})
    assert local.count(launch.attempt) == 0
    assert local.runs() == []
