"""The launcher: a single-user server on a unix socket, with the start page, private kernels and no secret in `ps`."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient

from visahub.singleuser import launcher, processes, runtime, start

from .conftest import Place, make_place, wait_for

TOKEN = "the-secret-of-this-server"
PREFIX = "/user/ada/i123/"
SCOPE = "access:servers!server=ada/i123"


class Hub(BaseHTTPRequestHandler):
    """Answers what a single-user server asks its Hub."""

    def do_GET(self) -> None:
        body = json.dumps({"name": "ada", "kind": "user", "admin": False, "groups": [], "scopes": [SCOPE]}).encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class Instance:
    """A server that the launcher started."""

    def __init__(self, place: Place, pid: int, path: Path) -> None:
        self.place, self.pid, self.path = place, pid, path

    def ask(
        self, address: str, method: str = "GET", sent: str | None = None, token: str = TOKEN
    ) -> tuple[int, str, Any]:
        """Gives status, Location and body."""
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self.path))
        headers = {"Authorization": f"token {token}"} if token else {}
        connection.request(method, PREFIX + address, sent, {**headers, "Connection": "close"})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, answer.headers.get("Location", ""), body


@pytest.fixture(scope="module")
def hub() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def instance(folder: Path, uid: int, hub: int) -> Iterator[Instance]:
    place = make_place(folder, uid)
    private = Path(place.environ["VISAHUB_RUNTIME"])
    data = place.home / "experiments" / "p700001"
    data.mkdir(parents=True)
    (private / "experiments.json").write_text(json.dumps([{"proposal": "p700001", "link": str(data)}]))
    for path in (data, data.parent, private / "experiments.json"):
        os.chown(path, uid, -1)
    path = private / "jupyter.sock"
    api = f"http://127.0.0.1:{hub}/hub/api"
    process = place.popen(
        sys.executable,
        "-m",
        "visahub.singleuser.launcher",
        VISAHUB_EXPERIMENTS=str(private / "experiments.json"),
        JUPYTERHUB_API_TOKEN=TOKEN,
        JUPYTERHUB_API_URL=api,
        JUPYTERHUB_ACTIVITY_URL=f"{api}/users/ada/activity",
        JUPYTERHUB_BASE_URL="/",
        JUPYTERHUB_CLIENT_ID="jupyterhub-user-ada-i123",
        JUPYTERHUB_HOST="",
        JUPYTERHUB_OAUTH_ACCESS_SCOPES=json.dumps([SCOPE]),
        JUPYTERHUB_OAUTH_CALLBACK_URL=f"{PREFIX}oauth_callback",
        JUPYTERHUB_OAUTH_SCOPES=json.dumps([SCOPE]),
        JUPYTERHUB_SERVER_NAME="i123",
        JUPYTERHUB_SERVICE_PREFIX=PREFIX,
        JUPYTERHUB_SERVICE_URL="http+unix://" + str(path).replace("/", "%2F"),
        JUPYTERHUB_USER="ada",
    )
    wait_for(lambda: runtime.answers(path), 60)
    yield Instance(place, process.pid, path)
    process.terminate()
    process.wait(30)


def test_it_answers_on_its_private_socket(instance: Instance) -> None:
    assert stat.S_IMODE(instance.path.stat().st_mode) == 0o600
    assert json.loads(instance.ask("api")[2])["version"]
    assert instance.ask("api/contents")[0] == 200
    assert instance.ask("api/contents", token="")[0] == 403


def test_it_opens_the_start_page_beside_the_experiment(instance: Instance) -> None:
    assert instance.ask("")[1].rstrip("?") == f"{PREFIX}visahub/start"
    status, location, _ = instance.ask("visahub/start")
    assert status == 302
    assert location.rstrip("&") == f"{PREFIX}lab/tree/start-p700001.ipynb?file-browser-path=%2Fexperiments%2Fp700001"
    assert (instance.place.home / "start-p700001.ipynb").read_bytes() == start.TEMPLATE.read_bytes()
    assert instance.ask("lab/tree/start-p700001.ipynb")[0] == 200
    entries = json.loads(instance.ask("api/contents")[2])["content"]
    assert "experiments" in {entry["name"] for entry in entries}


def test_strangers_are_led_to_the_login_and_told_no_proposal(instance: Instance) -> None:
    for address in ("", "visahub/start"):
        status, location, body = instance.ask(address, token="")
        assert status == 302
        assert "p700001" not in location + body
    assert "/oauth2/authorize" in location


def test_what_the_facility_does_not_want_is_off(instance: Instance) -> None:
    page = instance.ask("lab")[2]
    assert "@jupyterlab/extensionmanager-extension:plugin" in page
    assert '"news": {"disabled": true}' in page
    settings = json.loads(instance.ask("lab/api/settings/@jupyterlab/apputils-extension:sanitizer")[2])
    assert settings["schema"]["properties"]["allowCommandLinker"]["default"] is False
    assert instance.ask("lab/api/extensions?refresh=0", "POST", '{"cmd": "install", "extension_name": "x"}')[0] >= 400


def test_kernels_listen_on_no_port_and_nothing_secret_is_in_ps(instance: Instance) -> None:
    kernel = json.loads(instance.ask("api/kernels", "POST", '{"name": "python3"}')[2])
    folder = Path(instance.place.environ["VISAHUB_RUNTIME"]) / "jupyter"
    file = folder / f"kernel-{kernel['id']}.json"
    wait_for(file.exists)
    assert json.loads(file.read_text())["transport"] == "ipc"
    wait_for(lambda: len(list(folder.glob(f"kernel-{kernel['id']}-ipc-*"))) == 5)
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(60)
    assert client.execute_interactive("6 * 7", timeout=60)["content"]["status"] == "ok"
    client.stop_channels()
    client.context.destroy(linger=0)
    below = processes.descendants(instance.pid)
    for pid in (instance.pid, *below):
        assert TOKEN not in Path(f"/proc/{pid}/cmdline").read_text()
    assert listening(instance.pid) == 0
    # ipykernel opens one for the output of forked children; it takes only what carries its random key.
    assert sum(map(listening, below)) <= 1
    assert instance.ask(f"api/kernels/{kernel['id']}", "DELETE")[0] == 204


def listening(pid: int) -> int:
    """Counts the TCP sockets on which a process listens."""
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(link) if link.is_symlink() else ""
        held.add(target[8:-1] if target.startswith("socket:[") else "")
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "0A" and row[9] in held for row in rows)


def test_the_desktop_is_offered(instance: Instance) -> None:
    offered = json.loads(instance.ask("server-proxy/servers-info")[2])["server_processes"]
    if not offered:
        pytest.skip("visahub is not installed, so nothing declares its entry points.")
    desktop = next(entry for entry in offered if entry["name"] == "desktop")
    assert desktop["new_browser_tab"] is False
    assert desktop["launcher_entry"]["title"] == "Desktop"


def test_the_settings_hold_no_secret(tmp_path: Path) -> None:
    given = {"JUPYTERHUB_API_TOKEN": TOKEN, "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:8000"}
    words = launcher.arguments(given, tmp_path)
    assert not any(TOKEN in word for word in words)
    assert not any("sock" in word for word in words)
    given["JUPYTERHUB_SERVICE_URL"] = "http+unix://%2Frun%2Fa%20b.sock"
    assert "--ServerApp.sock=/run/a b.sock" in launcher.arguments(given, tmp_path)


def test_kernels_stay_on_tcp_where_a_path_would_be_too_long(tmp_path: Path) -> None:
    assert "--KernelManager.transport=ipc" in launcher.arguments({"JUPYTER_RUNTIME_DIR": "/run/short"}, tmp_path)
    assert "--KernelManager.transport=ipc" not in launcher.arguments({"JUPYTER_RUNTIME_DIR": "/" + "x" * 80}, tmp_path)


def test_node_is_left_out_while_importing_only(tmp_path: Path) -> None:
    has, lacks = tmp_path / "has", tmp_path / "lacks"
    for folder in (has, lacks):
        folder.mkdir()
    (has / "node").touch(0o755)
    assert launcher._without_node(f"{has}{os.pathsep}{lacks}{os.pathsep}") == str(lacks)
    assert launcher._without_node(str(has)) == "/nonexistent"


def test_every_instance_has_a_workspace_of_its_own(tmp_path: Path) -> None:
    # JupyterLab keeps open tabs by their whole address, and would open another instance's desktop again.
    environ = {"VISAHUB_INSTANCE": "i1"}
    launcher.prepare(environ, tmp_path)
    other = {"VISAHUB_INSTANCE": "i2"}
    launcher.prepare(other, tmp_path)
    assert environ["JUPYTERLAB_WORKSPACES_DIR"] != other["JUPYTERLAB_WORKSPACES_DIR"]
    assert environ["JUPYTERLAB_WORKSPACES_DIR"].startswith(str(tmp_path))
