"""The proxy as `configure` starts it, before an instance that answers faster than the proxy finishes its question."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.services.hub import free_ports, wait_until
from visahub import proxy

pytestmark = pytest.mark.services

_TOKEN = "proxy-token"


class QuickInstance:
    """A server on a unix socket that answers at once and does what the proxy asks about the connection."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s"
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(100)
        # The proxy takes the port for a part of the path; see `local_runs.py`.
        (folder / "s:80").symlink_to("s")
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http+unix://{quote(str(self.path), safe='')}"

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, contextlib.suppress(OSError):
                    while self._answer(connection):
                        pass

    @staticmethod
    def _answer(connection: socket.socket) -> bool:
        """Answers one request; tells whether the connection stays open."""
        read = b""
        while b"\r\n\r\n" not in read:
            more = connection.recv(65536)
            if not more:
                return False
            read += more
        head, _, body = read.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        while len(body) < int(fields.get(b"content-length", 0)):
            body += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return fields.get(b"connection") != b"close"


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[str, QuickInstance]]:
    """Gives the address of an instance behind a proxy, and the instance."""
    folder = Path(os.path.realpath(tmp_path)) / "i"
    folder.mkdir()
    instance = QuickInstance(folder)
    port, api_port = free_ports(2)
    command = [*proxy.command(), "--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1"]
    with (tmp_path / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--api-port", str(api_port), "--log-level", "error"],
            env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": _TOKEN},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _adds_route(api_port, instance.address), "the proxy answers", process)
        yield f"http://127.0.0.1:{port}/instance", instance
    finally:
        process.terminate()
        process.wait(10)
        instance.close()


def _adds_route(api_port: int, address: str) -> bool:
    headers = {"Authorization": f"token {_TOKEN}"}
    try:
        answer = httpx.post(
            f"http://127.0.0.1:{api_port}/api/routes/instance", headers=headers, json={"target": address}, timeout=5
        )
    except httpx.HTTPError:
        time.sleep(0.1)
        return False
    return answer.status_code == 201


def test_a_quick_answer_to_a_request_with_a_body_never_becomes_an_error(proxied: tuple[str, QuickInstance]) -> None:
    """Without `share/proxy/unix_sockets.cjs` every few of these requests is a 503, "write EPIPE"."""
    address, instance = proxied
    with httpx.Client(timeout=20) as client:
        codes = Counter(client.post(address, content=b"a" * 200).status_code for _ in range(300))
    assert codes == {200: 300}
    assert instance.connections < 5
