"""From the start of the single-user server's process until `/api` answers: our launcher against the stock one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from .figure import Figure

_RUNS = 5
_LONGEST_SECONDS = 60


class _Hub(BaseHTTPRequestHandler):
    """Answers the two questions that a single-user server asks a Hub at its start."""

    def do_GET(self) -> None:
        self._answer({"version": "6.1.1"})

    def do_POST(self) -> None:
        self._answer({})

    def _answer(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        # A server that is ended at once does not wait for its answer.
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def measure() -> list[Figure]:
    """Starts both in turn, each run with a home of its own."""
    hub = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    api = f"http://127.0.0.1:{hub.server_port}/hub/api"
    ours, stock = [], []
    for _ in range(_RUNS):
        ours.append(_start([sys.executable, "-m", "visahub.singleuser.launcher"], api))
        stock.append(_start([sys.executable, "-m", "jupyterhub.singleuser", "--allow-root"], api))
    hub.shutdown()
    return [
        Figure.of(
            "single-user start to /api",
            "s",
            ours,
            stock,
            reference_is="python -m jupyterhub.singleuser",
            goal=0.6,
        )
    ]


def _start(command: list[str], api: str) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "JUPYTERHUB_API_TOKEN": "benchmark",
            "JUPYTERHUB_CLIENT_ID": "benchmark",
            "JUPYTERHUB_API_URL": api,
            "JUPYTERHUB_USER": "benchmark",
            "JUPYTERHUB_SERVICE_PREFIX": "/user/benchmark/",
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/benchmark/",
            "JUPYTERHUB_ACTIVITY_URL": f"{api}/users/benchmark/activity",
        }
        began = time.monotonic()
        with (Path(home) / "log").open("wb") as log:
            server = subprocess.Popen(command, env=environ, cwd=home, stdout=log, stderr=log)
        try:
            return _until_it_answers(f"http://127.0.0.1:{port}/user/benchmark/api", server) - began
        finally:
            server.terminate()
            server.wait(20)


def _until_it_answers(url: str, server: subprocess.Popen[bytes]) -> float:
    until = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return time.monotonic()
        except HTTPError:
            return time.monotonic()
        except (URLError, OSError):
            time.sleep(0.004)
    raise OSError("the single-user server did not come up")
