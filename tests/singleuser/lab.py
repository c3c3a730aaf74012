"""A stand-alone JupyterLab with our extension and desktop, as on a Binder, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from visahub.singleuser import desktop, launcher

from .conftest import Place, wait_for

TOKEN = "a-token-of-the-tests"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Lab:
    """One server of one user; may be started again on the same port."""

    def __init__(self, place: Place, certificate: Path | None = None) -> None:
        """With a certificate (and its key, in one file) the server speaks https."""
        self.place = place
        self.port = free_port()
        self.address = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._certificate = certificate
        self.log = place.home.parent / "lab.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1"]
        words += [
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.place.home}",
        ]
        if self.place.uid == 0:
            words.append("--allow-root")
        if self._certificate:
            words += [f"--ServerApp.{name}={self._certificate}" for name in ("certfile", "keyfile")]
        environ = {**self.place.environ, "JUPYTER_TOKEN": TOKEN, "JUPYTER_CONFIG_PATH": self._config()}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.place.command(*words), env=environ, cwd=self.place.home, stdout=log, stderr=log
            )
        wait_for(lambda: self.get("/api") is not None, 60)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def get(self, path: str, *, token: str = TOKEN) -> bytes | None:
        """Gives what the server answers, None while it does not."""
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"token {token}"} if token else {}
        )
        try:
            # Its certificate is its own, if it has one.
            with urllib.request.urlopen(request, timeout=60, context=ssl._create_unverified_context()) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            error.close()
            return None
        except OSError:
            return None

    def _config(self) -> str:
        folders = [str(launcher.CONFIG)]
        if not any(entry.name == "desktop" for entry in entry_points(group="jupyter_serverproxy_servers")):
            # visahub is not installed here: say what its entry point would.
            folder = self.place.home.parent / "config"
            folder.mkdir(exist_ok=True)
            Path(folder / "jupyter_server_config.json").write_text(
                json.dumps({"ServerProxy": {"servers": {"desktop": desktop.entry()}}})
            )
            folders.append(str(folder))
        return os.pathsep.join(folders)


@contextlib.contextmanager
def running(place: Place, certificate: Path | None = None) -> Iterator[Lab]:
    lab = Lab(place, certificate)
    lab.start()
    try:
        yield lab
    finally:
        lab.stop()
        place.run(sys.executable, "-m", "visahub.singleuser.desktop", "stop")
