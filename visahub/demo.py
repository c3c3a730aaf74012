"""The demonstration: a Hub with everything embedded, from one command; called by `visahub demo` and `make demo`."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from urllib.error import URLError
from urllib.request import urlopen

from . import build
from .flows.enter import enter
from .hub.authenticator import sample_identity
from .model.errors import VisahubError

_UP_SECONDS = 90
_DOWN_SECONDS = 30


def main() -> int:
    """Runs until Ctrl-C and gives the exit status."""
    root = Path(__file__).parents[1]
    state = Path(os.environ.get("VISAHUB_STATE") or root / ".demo").resolve()
    port = int(os.environ.get("VISAHUB_PORT", "8000"))
    # The Node beside our Python is new enough for the proxy; the machine's may not be.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environ = os.environ | {"VISAHUB_STATE": str(state), "VISAHUB_PORT": str(port), "PATH": path}
    if _is_taken(port):
        print(
            f"Port {port} is taken by another program. Stop that one, or choose another: "
            f"VISAHUB_PORT={port + 100} make demo",
            file=sys.stderr,
        )
        return 1
    state.mkdir(parents=True, exist_ok=True)
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(
            f"A demonstration already runs on {state}. Open it, end it with Ctrl-C, or choose another folder: "
            "VISAHUB_STATE=/some/folder make demo",
            file=sys.stderr,
        )
        return 1
    _make_data(root, state)
    os.environ.update(environ)
    _enter_accounts(root)
    log = os.open(state / "hub.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # A session of its own: Ctrl-C reaches us alone, and we end the Hub in order.
    hub = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "visahub.hub", "-f", str(root / "jupyterhub_config.py")],
        cwd=state,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    status = 0
    try:
        if not _is_up(hub, port):
            print(f"The Hub did not come up. What it said last is in {state / 'hub.log'}:", file=sys.stderr)
            print("\n".join((state / "hub.log").read_text(errors="replace").splitlines()[-15:]), file=sys.stderr)
            return 1
        _welcome(state, port)
        status = hub.wait()
        print(f"The Hub ended by itself. What it said last is in {state / 'hub.log'}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nEnding the Hub and all instances ...", flush=True)
    finally:
        _end(hub, root)
    return 1 if status else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _make_data(root: Path, state: Path) -> None:
    """Writes the sample data once; does nothing at a second start."""
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(build.share("samples", "make_data.py")), str(state / "data")], cwd=root, check=True
    )


def _enter_accounts(root: Path) -> None:
    """Enters the sample accounts in their order, so that each has the same uid in every demonstration on a machine."""
    parts = build.build(build.read(root / "jupyterhub_config.py"))
    parts.store.upgrade()
    for raw in json.loads(build.share("samples", "accounts.json").read_text()):
        enter(parts.store, sample_identity(raw), uid_min=parts.settings.uid_min)
    parts.store.close()


def _is_up(hub: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + _UP_SECONDS
    while time.monotonic() < until and hub.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/services/visahub/health", timeout=2) as answer:
                if answer.status == 200:
                    return True
        except (URLError, OSError):
            pass
        time.sleep(0.2)
    return False


def _welcome(state: Path, port: int) -> None:
    passwords = json.loads((state / "passwords.json").read_text())
    accounts = json.loads(build.share("samples", "accounts.json").read_text())
    print(f"\nvisahub is ready: http://127.0.0.1:{port}\n\nSign in as one of the sample accounts:")
    for account in accounts:
        roles = ", ".join(account.get("roles", [])) or "user"
        secret = passwords["admin" if "admin" in account.get("roles", []) else "user"]
        print(f"  {account['username']:<8} password {secret}   ({account.get('display_name', '')}, {roles})")
    if shutil.which("Xvnc") is None or shutil.which("xfce4-session") is None:
        print(
            "\nWithout desktop: Xvnc or XFCE is not installed. As root: apt-get install tigervnc-standalone-server "
            "xfce4-session xfce4-panel xfwm4 xfdesktop4 xfce4-terminal dbus-x11"
        )
    if os.geteuid() != 0:
        print("\nNot started as root: all instances run as you, without protection from each other.")
    print(f"\nEverything is kept in {state}. Ctrl-C ends the Hub and all instances.\n", flush=True)


def _end(hub: subprocess.Popen[bytes], root: Path) -> None:
    """Ends the Hub, its proxy and portal, and every instance; a second Ctrl-C kills what is left of the Hub."""
    try:
        if hub.poll() is None:
            hub.terminate()
            hub.wait(_DOWN_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(hub.pid, signal.SIGKILL)
        hub.wait()
    try:
        asyncio.run(_end_instances(root))
    except VisahubError as error:
        print(f"Some instances may still run: {error.sentence}", file=sys.stderr)


async def _end_instances(root: Path) -> None:
    parts = build.build(build.read(root / "jupyterhub_config.py"))
    for backend in parts.backends.values():
        seen = await backend.look()
        await asyncio.gather(*(backend.stop(attempt, condition.state) for attempt, condition in seen.items()))
