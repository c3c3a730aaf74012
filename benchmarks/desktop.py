"""The desktop through our path, against Xvnc itself and against jupyter-remote-desktop-proxy, all on one display.

Proxy, Jupyter server, display and client are the same for every path; what differs is what lies between the Jupyter
server's door and Xvnc. The peer is installed into a directory of its own: beside visahub it would take our address.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from visahub import build
from visahub.singleuser import launcher, processes, runtime

from .figure import Figure
from .rfb_wire import Viewer, Wire

PEER = "jupyter-remote-desktop-proxy==3.0.1"
_ROOT = Path(__file__).parents[1]
_RUNS = 5
_SCREENS = 60
_PRESSES = 40
_SLOW_SECONDS = 4.0
_SIZE = "1920x1080"
_ALLOWED_MB = 10.0
_RAW, _KEY_A = 0, 0x61
_TOKEN = "a-token-of-the-benchmark"
_PROGRAMS = ("Xvnc", "xfce4-session", "xterm")
# What the peer starts in place of TigerVNC's script: our display under its name, so that both show the same.
_VNCSERVER = """#!/bin/sh
while [ "$1" != -rfbunixpath ]; do shift; done
ln -sf {display} "$2"
exec sleep 100000
"""


class Desk:
    """One Jupyter server with both extensions behind one proxy, and one running desktop."""

    def __init__(self, folder: Path, peer: Path) -> None:
        self._folder = folder
        self._port, self._proxy_port = _free_ports(2)
        self.environ = {
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{_ROOT}:{peer}",
            "VISAHUB_RUNTIME": str(folder / "run"),
            "VISAHUB_RESOLUTION": _SIZE,
            "JUPYTER_TOKEN": _TOKEN,
            "JUPYTER_CONFIG_PATH": str(launcher.CONFIG),
        }
        for name in ("home", "run", "bin"):
            (folder / name).mkdir(mode=0o700)
        self.runtime = runtime.find(self.environ)
        script = folder / "bin" / "vncserver"
        script.write_text(_VNCSERVER.format(display=self.runtime.display))
        script.chmod(0o755)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        server = [sys.executable, "-m", "jupyter_server", "--ServerApp.ip=127.0.0.1", "--ServerApp.open_browser=False"]
        server += [f"--ServerApp.port={self._port}", "--ServerApp.port_retries=0", "--ServerApp.allow_root=True"]
        server.append(f"--ServerApp.root_dir={self._folder / 'home'}")
        self._popen(server, "jupyter.log")
        script = build.share("node_modules", "configurable-http-proxy", "bin", "configurable-http-proxy")
        node = shutil.which("node")
        if node is None or not script.exists():
            raise OSError("the proxy is not installed: run share/scripts/install.sh test")
        proxy = [node, str(script), "--ip", "127.0.0.1", "--port", str(self._proxy_port), "--api-ip", "127.0.0.1"]
        proxy += ["--api-port", str(_free_ports(1)[0]), "--default-target", f"http://127.0.0.1:{self._port}"]
        self._popen(proxy, "proxy.log")
        _until(self._answers, "the Jupyter server behind the proxy answers")
        self.ours().wire.close()
        self._popen(["xterm", "-maximized", "-e", "cat"], "xterm.log", **self._display())
        # Until the panel and the terminal are there.
        time.sleep(5)

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            runtime.stop(self.runtime)
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)

    def direct(self) -> Viewer:
        return Viewer(Wire.unix(self.runtime.display))

    def ours(self) -> Viewer:
        return Viewer(Wire.websocket(self._proxy_port, "/visahub/desktop/socket", _TOKEN))

    def peers(self) -> Viewer:
        return Viewer(Wire.websocket(self._proxy_port, "/desktop-websockify/", _TOKEN))

    def relay_kib(self) -> int:
        """Gives the memory of what stands between proxy and display: the Jupyter server and the desktop's daemon."""
        pids = [self._processes[0].pid, runtime.running(self.runtime) or 0]
        return sum(_resident(pid) for pid in pids)

    def _answers(self) -> bool:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._proxy_port}/api/status", headers={"Authorization": f"token {_TOKEN}"}
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def _display(self) -> dict[str, str]:
        daemon = runtime.running(self.runtime) or 0
        for pid in processes.descendants(daemon):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if words[0] == "Xvnc":
                return {"DISPLAY": words[1], "XAUTHORITY": str(self.runtime.cookie)}
        raise OSError("the desktop has no display")

    def _popen(self, command: list[str], log: str, **more: str) -> None:
        environ = {**self.environ, **more}
        with (self._folder / log).open("ab") as file:
            process = subprocess.Popen(command, env=environ, cwd=self._folder / "home", stdout=file, stderr=file)
        self._processes.append(process)


def measure() -> list[Figure]:
    """Measures every path in turn, in each round."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise OSError(f"{', '.join(missing)} not installed")
    with running() as desk:
        paths = {"direct": desk.direct, "ours": desk.ours, "peer": desk.peers}
        seconds: dict[str, list[float]] = {name: [] for name in paths}
        reactions: dict[str, list[float]] = {name: [] for name in paths}
        for _ in range(_RUNS):
            for name, connect in paths.items():
                seconds[name].append(_screens(connect))
            _reactions(paths, reactions)
        grown = [max(_slow_reader(desk), 0.01) for _ in range(_RUNS)]
    return [
        Figure.of(
            f"desktop, {_SCREENS} screens {_SIZE}",
            "s",
            seconds["ours"],
            seconds["peer"],
            reference_is=PEER.replace("==", " "),
            goal=1.0,
        ),
        Figure.of(
            "desktop, key to pixel",
            "s",
            reactions["ours"],
            reactions["direct"],
            reference_is="a direct connection to Xvnc",
            goal=1.1,
        ),
        Figure.of(
            "desktop, memory of a slow reader",
            "MB",
            grown,
            [_ALLOWED_MB] * _RUNS,
            reference_is="the 10 MB that are allowed",
            goal=1.0,
        ),
        Figure.told("stock desktop, key to pixel", "s", reactions["peer"], what="told for comparison"),
        Figure.told("Xvnc itself, screens", "s", seconds["direct"], what="told for comparison"),
    ]


@contextlib.contextmanager
def running() -> Iterator[Desk]:
    """Runs everything in a folder of its own: sockets need a short path."""
    peer = _installed_peer()
    folder = Path(tempfile.mkdtemp(prefix="vb-", dir="/tmp"))
    desk = Desk(folder, peer)
    try:
        desk.start()
        yield desk
    finally:
        desk.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _screens(connect: Callable[[], Viewer]) -> float:
    viewer = connect()
    viewer.speak(_RAW)
    viewer.screens(3)
    seconds = viewer.screens(_SCREENS)
    viewer.wire.close()
    return seconds


def _reactions(paths: dict[str, Callable[[], Viewer]], found: dict[str, list[float]]) -> None:
    """Presses a key on each path in turn; adds each path's median."""
    viewers = {name: connect() for name, connect in paths.items()}
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for viewer in viewers.values():
        viewer.speak(_RAW)
        viewer.ask(incremental=False)
        viewer.update()
    for number in range(_PRESSES * len(viewers)):
        name = list(viewers)[number % len(viewers)]
        # Only who is measured asks for updates: each viewer would cost Xvnc time.
        viewers[name].ask(incremental=True)
        seconds[name].append(viewers[name].reaction(_KEY_A))
    for name, viewer in viewers.items():
        viewer.wire.close()
        found[name].append(median(seconds[name]))


def _slow_reader(desk: Desk) -> float:
    """Gives by how many MB the relay grows while a client asks for 150 screens and reads none of them."""
    viewer = desk.ours()
    viewer.speak(_RAW)
    viewer.screens(3)
    before = most = desk.relay_kib()
    for _ in range(150):
        viewer.ask(incremental=False)
    until = time.monotonic() + _SLOW_SECONDS
    while time.monotonic() < until:
        time.sleep(0.1)
        most = max(most, desk.relay_kib())
    viewer.wire.close()
    return (most - before) / 1024


def _installed_peer() -> Path:
    """Gives the directory with the peer, fetched once; raises OSError when it cannot be."""
    folder = _ROOT / "build" / "bench" / PEER
    if not (folder / "jupyter_remote_desktop_proxy").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), PEER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{PEER} could not be installed: {done.stderr.strip()[-200:]}")
    return folder


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _until(is_so: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise OSError(f"waited in vain until {what}")
        time.sleep(0.1)
