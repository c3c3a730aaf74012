"""The product as `make demo` starts it, in a state folder of its own; for the browser tests and for figures."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Gives a port on the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _sample_accounts() -> set[str]:
    """The Unix accounts of this machine that visahub has made for the sample accounts."""
    samples = {raw["username"] for raw in json.loads((ROOT / "share" / "samples" / "accounts.json").read_text())}
    return {entry.pw_name for entry in pwd.getpwall() if entry.pw_gecos == "visahub" and entry.pw_name in samples}


class Demo:
    """A running demo: `address`, the accounts' passwords, and its log; everything ends with the `with` block."""

    def __init__(self, state: Path, *, environ: dict[str, str] | None = None) -> None:
        self.state = state
        self.port = free_port()
        self._known: set[str] = set()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = state / "demo.log"
        self._environ = environ or {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Demo:
        # One at a time on a machine: all demonstrations share the sample accounts' Unix accounts.
        self._turn = open(Path(tempfile.gettempdir()) / "visahub-demo-test.lock", "w")
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        self._known = _sample_accounts()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        for name in _sample_accounts() - self._known:
            # Only what this demonstration made is taken away again.
            subprocess.run(["/usr/sbin/userdel", "--remove", name], check=True, capture_output=True)
        self._turn.close()

    def start(self, *, seconds: float = 120) -> None:
        """Starts the demo and returns when the Hub and the portal answer; shows the log when they do not."""
        environ = os.environ | {"VISAHUB_STATE": str(self.state), "VISAHUB_PORT": str(self.port)} | self._environ
        said = len(self.log.read_text()) if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "visahub.cli", "demo"],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            try:
                with urlopen(f"{self.address}/services/visahub/health", timeout=2) as answer:
                    if answer.status == 200 and "visahub is ready" in self.log.read_text()[said:]:
                        return
            except OSError:
                pass
            time.sleep(0.2)
        tail = self.log.read_text(errors="replace")[-6000:]
        self.end()
        raise RuntimeError(f"The demo did not come up:\n{tail}")

    def password(self, name: str) -> str:
        """The password of a sample account, as the demo printed it."""
        passwords = json.loads((self.state / "passwords.json").read_text())
        return str(passwords["admin" if name == "admin" else "user"])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def end(self, *, seconds: float = 40) -> None:
        """Ends the demo as Ctrl-C does."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(10)
        self._process = None

    def home(self, name: str) -> Path:
        """The home directory of a sample account."""
        return Path(pwd.getpwnam(name).pw_dir) if os.geteuid() == 0 else self.state / "homes" / name
