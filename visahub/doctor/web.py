"""What browsers get: pages, files, addresses, logins, and the experiments that they show."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from .. import addresses, build
from ..model.errors import VisahubError
from .findings import CORRECT_FIRST, Answer, Check, Grade, Site

_THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}


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


def _logins(site: Site) -> Answer:
    name = site.setting("JupyterHub", "authenticator_class")
    is_sample = "sample" in name.lower()
    if is_sample and urlsplit(addresses.public_url(site.config)).hostname not in _THIS_MACHINE:
        return Grade.PROBLEM, (
            "The sample logins can be reached from other machines. Set JupyterHub.bind_url to http://127.0.0.1:8000, "
            "or use the facility's logins."
        )
    if is_sample:
        return Grade.WARNING, "Logins are invented samples. Use the facility's logins before anybody works here."
    return Grade.OK, f"Logins come from {name or 'PAM, the default'}."


def _encryption(site: Site) -> Answer:
    public = urlsplit(addresses.public_url(site.config))
    if site.setting("JupyterHub", "ssl_cert") or public.scheme == "https":
        return Grade.OK, "Browsers reach the Hub by HTTPS."
    if public.hostname in _THIS_MACHINE:
        return Grade.OK, "Only this machine reaches the Hub; what is in front of it encrypts."
    return Grade.WARNING, (
        "Passwords and sessions cross the network as they are, for everybody to read. Set JupyterHub.ssl_key and "
        "JupyterHub.ssl_cert, or let a web server with a certificate stand in front and JupyterHub.bind_url be "
        "http://127.0.0.1:8000."
    )


def _domains(site: Site) -> Answer:
    if site.setting("JupyterHub", "subdomain_host"):
        return Grade.OK, "Every user has a domain of its own."
    return Grade.WARNING, (
        "All users share one domain, so a page of one instance can act on another in the same browser. Set "
        "JupyterHub.subdomain_host (it needs a wildcard DNS entry and certificate)."
    )


def _catalogues(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, CORRECT_FIRST
    if not site.parts.sources:
        return Grade.WARNING, "No experiments come from anywhere. Name a source in Visahub.sources."
    for source in site.parts.sources:
        try:
            next(iter(source.experiments()), None)
        except VisahubError as error:
            return Grade.PROBLEM, f"{type(source).__name__}: {error.sentence}"
    return Grade.OK, "Every source of experiments can be read."


def _restarts(site: Site) -> Answer:
    if site.config.JupyterHub.get("cleanup_servers", True) is not False:
        return Grade.PROBLEM, (
            "A restart of the Hub would end all instances. Set JupyterHub.cleanup_servers = False, or call "
            "`visahub.hub.configure(c)`."
        )
    return Grade.OK, "Instances go on while the Hub restarts."


CHECKS: tuple[Check, ...] = (
    _files_for_browsers,
    _templates_of_the_hub,
    _logins,
    _encryption,
    _domains,
    _catalogues,
    _restarts,
)
