"""A real Xvnc with XFCE: nobody else gets in, by any door, and whoever controls it does."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from visahub.model.errors import Failed
from visahub.singleuser import privacy, processes, runtime
from visahub.singleuser.rfb import DESKTOP_NAME, EXTENDED_DESKTOP_SIZE

from . import rfb_client as client
from .conftest import Place, as_user, wait_for, words_of

pytestmark = pytest.mark.services

CONNECT = """
import socket, sys
probe = socket.socket(socket.AF_UNIX)
try:
    probe.connect(sys.argv[1].replace("@", chr(0), 1))
except PermissionError:
    sys.exit(13)
probe.settimeout(5)
# The X protocol's first message, without a cookie.
probe.sendall(b"l\\0\\x0b\\0\\0\\0\\0\\0\\0\\0\\0\\0")
print(probe.recv(1))
"""


def xvnc(desktop: Place) -> tuple[int, list[str]]:
    """Finds the display server of this desktop."""
    daemon = runtime.running(desktop.runtime)
    assert daemon
    for pid in processes.descendants(daemon):
        words = words_of(pid)
        if words[0] == "Xvnc":
            return pid, words
    raise AssertionError("no Xvnc")


def connects(uid: int, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        as_user(uid, sys.executable, "-c", CONNECT, name), capture_output=True, text=True, timeout=30, check=False
    )


def test_all_is_private(desktop: Place) -> None:
    here = desktop.runtime
    assert stat.S_IMODE(here.folder.stat().st_mode) == 0o700
    for path in (here.pages, here.gate, here.display, here.cookie):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600, path
        assert path.lstat().st_uid == desktop.uid


def test_another_user_gets_in_nowhere(desktop: Place, stranger: int) -> None:
    here = desktop.runtime
    for path in (here.pages, here.gate, here.display):
        assert connects(stranger, str(path)).returncode == 13
    # Even with the directory open, the sockets are not.
    here.folder.chmod(0o755)
    try:
        for path in (here.pages, here.gate, here.display):
            assert connects(stranger, str(path)).returncode == 13
    finally:
        here.folder.chmod(0o700)
    number = xvnc(desktop)[1][1]
    for name in (f"/tmp/.X11-unix/X{number[1:]}", f"@/tmp/.X11-unix/X{number[1:]}"):
        # The socket of X itself is open to all; without the cookie it answers 0: refused.
        assert connects(stranger, name).stdout.strip() == r"b'\x00'"
    seen = subprocess.run(
        as_user(stranger, "xdpyinfo", "-display", number), capture_output=True, text=True, timeout=30, check=False
    )
    assert seen.returncode != 0


def test_the_owner_needs_the_cookie_too(desktop: Place) -> None:
    number = xvnc(desktop)[1][1]
    without = desktop.run("setxkbmap", "-query", DISPLAY=number, XAUTHORITY="/nonexistent")
    assert without.returncode != 0
    with_it = desktop.run("setxkbmap", "-query", DISPLAY=number, XAUTHORITY=str(desktop.runtime.cookie))
    assert "layout" in with_it.stdout


def test_nothing_listens_on_a_port_and_no_secret_is_in_ps(desktop: Place) -> None:
    daemon = runtime.running(desktop.runtime)
    assert daemon
    cookie = desktop.runtime.cookie.read_bytes()[-16:].hex()
    inodes = set()
    for pid in [daemon, *processes.descendants(daemon)]:
        words = Path(f"/proc/{pid}/cmdline").read_text()
        assert cookie not in words
        assert "token" not in words.lower()
        assert "JUPYTERHUB_API_TOKEN" not in Path(f"/proc/{pid}/environ").read_text()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            assert not (fields[3] == "0A" and fields[9] in inodes), "a listening TCP socket"


async def test_keys_and_sizes_reach_the_display(desktop: Place) -> None:
    reader, writer, init = await client.connect(desktop.runtime.gate)
    width, height = struct.unpack(">HH", init[:4])
    writer.write(client.set_encodings(7, 0, EXTENDED_DESKTOP_SIZE, DESKTOP_NAME, -224))
    writer.write(client.update_request(width, height))
    assert await reader.readexactly(1) == b"\0"
    writer.write(client.set_desktop_size(1024, 700))
    number, cookie = xvnc(desktop)[1][1], str(desktop.runtime.cookie)
    wait_for(lambda: "1024x700" in desktop.run("xdpyinfo", DISPLAY=number, XAUTHORITY=cookie).stdout)
    await client.hang_up()


async def test_the_display_comes_back_after_its_end(own_desktop: Place) -> None:
    pid, words = xvnc(own_desktop)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    _, _, init = await client.connect(own_desktop.runtime.gate)
    assert init
    assert xvnc(own_desktop)[1][1] != words[1]
    await client.hang_up()


def test_everything_ends_with_the_daemon(own_desktop: Place) -> None:
    daemon = runtime.running(own_desktop.runtime)
    assert daemon
    wait_for(lambda: any("xfwm4" in words_of(pid)[0] for pid in processes.descendants(daemon)))
    below = processes.descendants(daemon)
    number = xvnc(own_desktop)[1][1][1:]
    assert own_desktop.run(sys.executable, "-m", "visahub.singleuser.desktop", "stop").returncode == 0
    for pid in [daemon, *below]:
        wait_for(lambda pid=pid: not alive(pid), 5)
    for path in (
        own_desktop.runtime.pages,
        own_desktop.runtime.gate,
        own_desktop.runtime.display,
        own_desktop.runtime.cookie,
    ):
        assert not path.exists()
    assert not Path(f"/tmp/.X11-unix/X{number}").exists()


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


# --- what keeps it private, without a display ---


def test_there_is_no_start_without_a_private_cookie(tmp_path: Path) -> None:
    cookie = tmp_path / "xauth"
    with pytest.raises(Failed):
        privacy.check_cookie(cookie)
    privacy.write_cookie(cookie)
    privacy.check_cookie(cookie)
    first = cookie.read_bytes()
    assert stat.S_IMODE(cookie.stat().st_mode) == 0o600
    privacy.write_cookie(cookie)
    assert cookie.read_bytes() != first
    cookie.chmod(0o644)
    with pytest.raises(Failed):
        privacy.check_cookie(cookie)
    cookie.unlink()
    cookie.touch(0o600)
    with pytest.raises(Failed):
        privacy.check_cookie(cookie)
    cookie.unlink()
    target = tmp_path / "elsewhere"
    cookie.symlink_to(target)
    privacy.write_cookie(cookie)
    assert not target.exists()


def test_a_folder_of_sockets_that_others_own_is_refused(tmp_path: Path, stranger: int) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, stranger, -1)
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(theirs)
    for folder in (theirs, loose, link):
        with pytest.raises(Failed, match="administrator"):
            privacy.check_x_sockets(folder)
    made = tmp_path / "made"
    privacy.check_x_sockets(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o1777


SQUATTED = """
import asyncio, os, socket
from pathlib import Path
from visahub.singleuser import privacy, processes, runtime
from visahub.singleuser.display import Display

async def run():
    # As the daemon does: else a program of the session that is just starting could stay behind.
    processes.adopt_orphans()
    taken = []
    for name in ("\\0/tmp/.X11-unix/X51111", "/tmp/.X11-unix/X51112"):
        if name[0] == "/":
            Path(name).unlink(missing_ok=True)
        taken.append(socket.socket(socket.AF_UNIX))
        taken[-1].bind(name)
        taken[-1].listen(5)
    numbers = iter([50_111, 50_112, 50_113])
    privacy.secrets.randbelow = lambda _: next(numbers)
    display = Display(runtime.find(os.environ), os.environ)
    try:
        await display._start_once()
        print("used", display._number)
    finally:
        await display._end()
        Path("/tmp/.X11-unix/X51112").unlink(missing_ok=True)

asyncio.run(run())
"""


def test_names_that_somebody_made_beforehand_are_not_used(own_place: Place) -> None:
    """Listeners on the abstract name of one display and the file of another are noticed; a third number is taken.

    The file is in a directory with the sticky bit, so that Xvnc could remove only its own user's.
    """
    done = own_place.run(sys.executable, "-c", SQUATTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2] == "used"
    assert done.stdout.split()[-1] in {"51112", "51113"}, done.stdout


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failed) as error:
        privacy.check_programs(str(tmp_path))
    assert "Xvnc" in error.value.sentence
    assert "apt install tigervnc-standalone-server" in error.value.sentence
