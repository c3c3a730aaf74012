"""A real instance with a real desktop, seen by another account of the machine: X13, X14, X15, and no new port."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from visahub.backends import local_processes as processes
from visahub.model.launch import Launch

from .conftest import LocalWorld
from .contract import started
from .local_world import as_root, runnable
from .test_local_launcher import PREFIX, TOKEN, hub, real_launch

__all__ = ["hub"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(240), runnable, as_root]
OTHER = 65_533
PROGRAMS = ("Xvnc", "xfce4-session", "ss", "ps")


@dataclass
class Instance:
    """A running instance, its listeners before its desktop was opened, and the connection that holds it open."""

    local: LocalWorld
    launch: Launch
    before: set[str]
    desktop: socket.socket

    @property
    def run(self) -> Path:
        return self.local.runs()[0]

    @property
    def pids(self) -> list[int]:
        return self.local.processes()


def as_other(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command as an account that has nothing to do with the instance."""
    ids = [f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"]
    return subprocess.run(["setpriv", *ids, *words], capture_output=True, timeout=60)


def ports(uid: int) -> set[str]:
    """Gives the TCP ports on which an account listens."""
    listing = subprocess.run(["ss", "-ltneH"], capture_output=True, text=True, check=True).stdout
    return {line.split()[3] for line in listing.splitlines() if f"uid:{uid} " in line}


@pytest.fixture
async def instance(local: LocalWorld, hub: str) -> AsyncIterator[Instance]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    launch = real_launch(local, hub)
    backend = local.backend(limit_memory=False)
    await started(backend, launch)
    door = local.runs()[0] / "w" / "s"
    before = ports(local.ada.uid)
    desktop = await asyncio.to_thread(opened, door)
    yield Instance(local, launch, before, desktop)
    desktop.close()
    await backend.stop(launch.attempt, {})
    assert local.processes() == []


def opened(door: Path) -> socket.socket:
    """Opens the desktop as the browser does, through the server's websocket; returns when its screen is there."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(90)
    link.connect(str(door))
    link.sendall(
        f"GET {PREFIX}visahub/desktop/socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Authorization: token users-token\r\n\r\n".encode()
    )
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += link.recv(65536)
    assert b" 101 " in seen.splitlines()[0], seen
    for answer in (b"RFB 003.008\n", b"\1", b"\1"):
        link.sendall(b"\x82" + bytes([0x80 | len(answer)]) + bytes(4) + answer)
    seen = b""
    while b"visahub" not in seen:
        seen += link.recv(65536)
    return link


def words_of(pid: int) -> list[str]:
    """Gives a process's command line, [""] when it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return [""]


CONNECT = """
import socket, sys
name = sys.argv[1]
probe = socket.socket(socket.AF_UNIX)
probe.settimeout(5)
try:
    probe.connect(chr(0) + name[1:] if name[0] == "@" else name)
except (PermissionError, ConnectionRefusedError, FileNotFoundError) as error:
    print("closed", type(error).__name__)
    sys.exit()
if "X11-unix" in name:
    # The X protocol's first message, without a cookie.
    probe.sendall(b"l\\0\\x0b\\0\\0\\0\\0\\0\\0\\0\\0\\0")
elif "ICE-unix" in name:
    # The session manager's protocol: the order of bytes, and a connection without a proof of who it is.
    probe.sendall(b"\\0\\1\\0\\0\\0\\0\\0\\0")
    probe.recv(8)
    probe.sendall(b"\\0\\2\\1\\0\\3\\0\\0\\0" + bytes(8) + b"\\3\\0MIT\\0\\0\\0\\1\\0" + b"1\\0\\1\\0\\0\\0")
else:
    import os
    probe.sendall(b"\\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\\r\\n")
try:
    print("answer", probe.recv(64))
except (TimeoutError, ConnectionResetError) as error:
    print("silent", type(error).__name__)
"""


def listeners(pids: list[int]) -> dict[str, int]:
    """Gives the unix sockets on which processes listen, by name."""
    inodes = {}
    for pid in pids:
        try:
            for entry in os.scandir(f"/proc/{pid}/fd"):
                match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry.path))
                if match:
                    inodes[match[1]] = pid
        except OSError:
            continue
    found = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split(None, 7)
        # The flag says that it accepts connections.
        if len(words) == 8 and int(words[3], 16) & 0x10000 and words[6] in inodes:
            found[words[7]] = inodes[words[6]]
    return found


async def test_x13_x15_a_desktop_opens_no_port_and_tells_other_accounts_nothing(instance: Instance) -> None:
    assert instance.before == set()
    assert ports(instance.local.ada.uid) == set(), "a desktop listens on a port"
    _nothing_in_proc(instance)
    _no_socket_serves(instance)
    _nothing_in_tmp(instance)


def _nothing_in_proc(instance: Instance) -> None:
    names = {pid: words_of(pid)[0] for pid in instance.pids}
    assert {"Xvnc", "xfce4-session"} <= set(names.values())
    cookie = (instance.run / "u" / "desktop" / "xauth").read_bytes()[-16:].hex().encode()
    secrets = [TOKEN.encode(), instance.launch.attempt.encode(), cookie]
    listing = as_other("ps", "-eo", "args", "e", "ww")
    assert b"Xvnc" in listing.stdout
    for secret in secrets:
        assert secret not in listing.stdout
    for pid, name in names.items():
        for file in ("environ", "mem", "fd/0", "cwd"):
            done = as_other("cat", f"/proc/{pid}/{file}")
            assert done.returncode != 0 or not processes.scan().get(pid), (name, file)


def _no_socket_serves(instance: Instance) -> None:
    found = listeners(instance.pids)
    assert any(name.endswith("/w/s") for name in found)
    assert any(name.endswith("/vnc.sock") for name in found)
    for name in found:
        said = as_other(instance.local.python, "-S", "-c", CONNECT, name).stdout.decode()
        if name.startswith(str(instance.run)):
            assert said.startswith("closed PermissionError"), (name, said)
        elif "X11-unix" in name:
            # 0: refused, and why.
            assert "answer b'\\x00" in said or said.startswith("closed"), (name, said)
        elif "ICE-unix" in name:
            # 6 would be the reply to who may come in, 0 is an error.
            assert "answer b'\\x00\\x00" in said or said.startswith(("closed", "silent")), (name, said)
        else:
            # D-Bus and its like ask the kernel who is there.
            assert not said.startswith("answer b'OK"), (name, said)


def _nothing_in_tmp(instance: Instance) -> None:
    for path in Path("/tmp").rglob("*"):
        try:
            seen = path.lstat()
        except OSError:
            continue
        # X's lock says which process has the display, which everybody may know.
        if seen.st_uid != instance.local.ada.uid or not path.is_file() or re.fullmatch(r"/tmp/\.X\d+-lock", str(path)):
            continue
        assert as_other("cat", str(path)).returncode != 0, path


async def test_x13_another_account_draws_nothing_and_sees_nothing(instance: Instance) -> None:
    display = next(words[1] for words in map(words_of, instance.pids) if words[0] == "Xvnc")
    for command in (["xdpyinfo", "-display", display], ["xwd", "-root", "-silent", "-display", display]):
        if shutil.which(command[0]):
            assert as_other(*command).returncode != 0, command
    vnc = instance.run / "u" / "desktop" / "vnc.sock"
    for path in (vnc, vnc.parent, vnc.parent / "xauth", vnc.parent / "desktop.log", vnc.parent / "web.sock"):
        assert as_other("stat", str(path)).returncode != 0, path
