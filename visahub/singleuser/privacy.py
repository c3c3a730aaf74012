"""What keeps a display private, checked before and after it starts. Used by the desktop daemon."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import stat
import struct
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

from visahub.model.errors import Failed

X_SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108 (the X protocol's own place; checked before use)
_PROGRAMS = {
    "Xvnc": "tigervnc-standalone-server",
    "xfce4-session": "xfce4-session",
    "xfwm4": "xfwm4",
    "dbus-run-session": "dbus",
    "setxkbmap": "x11-xkb-utils",
}
# As the system's session.conf, but for the address.
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <keep_umask/>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <standard_session_servicedirs/>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="max_completed_connections">1000</limit>
  <limit name="max_connections_per_user">1000</limit>
  <limit name="max_match_rules_per_connection">50000</limit>
  <limit name="max_replies_per_connection">50000</limit>
</busconfig>
"""


def check_programs(path: str | None) -> None:
    """Raises Failed with what is missing and how an administrator installs it."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        packages = " ".join(_PROGRAMS[name] for name in missing)
        is_one = len(missing) == 1
        raise Failed(
            f"This environment has no desktop: {', '.join(missing)} {'is' if is_one else 'are'} not installed. "
            f"Ask the administrator to install {'it' if is_one else 'them'} (Debian, Ubuntu: apt install {packages}; "
            "others: TigerVNC's server and XFCE), or work in JupyterLab."
        )


def check_x_sockets(folder: Path = X_SOCKETS) -> None:
    """Raises Failed when another user could replace the sockets of displays."""
    try:
        seen = folder.lstat()
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o1777)
        seen = folder.lstat()
    writable = seen.st_mode & 0o022
    if (
        not stat.S_ISDIR(seen.st_mode)
        or seen.st_uid not in {0, os.geteuid()}
        or (writable and not seen.st_mode & stat.S_ISVTX)
    ):
        raise Failed(
            f"{folder} belongs to another user or is not protected, so your desktop would not be private. "
            f"Ask the administrator to make it again as root: rm -r {folder}; install -d -m 1777 {folder}."
        )


def write_cookie(path: Path) -> None:
    """Makes a new X authority file (0600) with one random cookie that holds for any display number."""
    path.unlink(missing_ok=True)
    name, cookie = b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16)
    family_wild = 65535
    entry = struct.pack(">HHHH", family_wild, 0, 0, len(name)) + name + struct.pack(">H", len(cookie)) + cookie
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(handle, "wb") as file:
        file.write(entry)


def write_bus_settings(path: Path) -> None:
    """Makes the settings of the session's D-Bus, with its socket beside them: by default it lies in /tmp for all."""
    address = "unix:path=" + quote(str(path.with_name("bus")), safe="/-_.*")
    text = _BUS.format(address=escape(address))
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)


def check_cookie(path: Path) -> None:
    """Raises Failed without a private cookie: without one, everybody on the machine could open the display."""
    try:
        seen = path.lstat()
    except OSError:
        seen = None
    if seen is None or not stat.S_ISREG(seen.st_mode) or seen.st_size < 16 or stat.S_IMODE(seen.st_mode) != 0o600:
        raise Failed("The desktop's access file is missing or not private: nothing was started. Press 'Start again'.")


def listener(name: str) -> int | None:
    """Gives the process that listens on a unix socket (as the kernel knows it), None when nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(name)
        except OSError:
            return None
        pid: int = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid
