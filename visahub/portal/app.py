"""The portal's process: its routes, its server and its end; started by `visahub portal` or by the Hub."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import logging
import os
import secrets
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlparse

from jinja2 import Environment as Jinja
from jinja2 import FileSystemLoader, StrictUndefined
from jupyterhub.log import log_request
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler, StaticFileHandler
from traitlets.config import Config

from .. import addresses, build, front
from ..flows.descriptors import expect_shortage
from ..flows.privacy import Retention
from ..front import Front
from ..model.logline import NoSecrets, secrets_of
from . import api, choosing, events, experiments, health, instances, lab, me, progress, words
from .auth import Callback, PortalAuth
from .base import HEADERS, NotFound, Portal, utc_now
from .clock import Clock
from .domains import Domains
from .hubapi import HubApi

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
_ID = r"([A-Za-z0-9._-]{1,64})"

ROUTES: list[tuple[str, type[RequestHandler]]] = [
    ("", instances.Instances),
    ("new", choosing.NewInstance),
    ("instances", choosing.Launches),
    (f"instances/{_ID}", instances.InstancePage),
    (f"instances/{_ID}/progress", progress.ProgressPage),
    (f"instances/{_ID}/events", progress.ProgressStream),
    (f"instances/{_ID}/start", instances.Start),
    (f"instances/{_ID}/stop", instances.Stop),
    (f"instances/{_ID}/restart", instances.Restart),
    (f"instances/{_ID}/delete", instances.Delete),
    ("events", events.CardStream),
    ("experiments", experiments.Experiments),
    # An id may hold a slash (a DOI), which some proxies decode.
    ("experiments/(.{1,600})", experiments.ExperimentPage),
    ("api/openapi.json", api.ApiDescription),
    ("api/offers", api.ApiOffers),
    ("api/experiments", api.ApiExperiments),
    ("api/experiments/(.{1,600})", api.ApiExperiment),
    ("me", me.MePage),
    ("api/me/data", me.ApiMyData),
    ("api/instances", api.ApiInstances),
    (f"api/instances/{_ID}", api.ApiInstance),
    (f"api/instances/{_ID}/start", api.ApiStart),
    (f"api/instances/{_ID}/stop", api.ApiStop),
    (f"api/instances/{_ID}/activity", api.ApiActivity),
    ("health", health.Health),
    ("metrics", health.Metrics),
    ("oauth_callback", Callback),
]


class Static(StaticFileHandler):
    """Our own files, with the headers of every other answer."""

    def set_extra_headers(self, path: str) -> None:
        for name, value in HEADERS.items():
            if name != "Cache-Control":
                self.set_header(name, value)
        # The Hub's pages use them too, and may have a domain of their own beside the portal's.
        self.set_header("Cross-Origin-Resource-Policy", "same-site")
        self.clear_header("Server")


def log_and_count(handler: RequestHandler) -> None:
    """Logs without secrets, as the Hub does, and counts; streams are not counted: they last as long as their page."""
    log_request(handler)
    if not isinstance(handler, events.Stream):
        health.count_request(handler)


def make_app(portal: Portal, static: Path, htmx: Path, builds: lab.Builds) -> Application:
    """Makes the application; `static` holds our files, `htmx` is the folder of htmx.min.js."""
    prefix = portal.prefix
    portal.jinja.globals["prefetched"] = builds.prefetched
    routes: list[Any] = [(prefix + path, handler, {"portal": portal}) for path, handler in ROUTES]
    routes += [
        (f"{prefix}static/(htmx\\.min\\.js)", Static, {"path": str(htmx)}),
        (f"{prefix}static/(.*)", Static, {"path": str(static)}),
        (f"{prefix}lab/([0-9a-f]{{8,64}})/([A-Za-z0-9._-]{{1,200}})", lab.LabFile, {"builds": builds}),
    ]
    return Application(
        routes,
        default_handler_class=NotFound,
        default_handler_args={"portal": portal},
        cookie_secret=secrets.token_bytes(32),
        cross_origin_protection=True,
        log_function=log_and_count,
    )


def make_server(app: Application, trusted: list[str] | None = None) -> HTTPServer:
    """Makes the server: small bodies only, and no patience with those who send them byte by byte.

    `trusted` are the addresses of proxies: the first other one, from the right, is who asks.
    """
    return Front(app, max_body_size=MAX_BODY, xheaders=True, trusted_downstream=trusted or [], **front.SETTINGS)


def make_jinja(templates: Path, static: Path, prefix: str, base_url: str, brand: str) -> Jinja:
    """Makes the templates' environment: everything is escaped, and a misspelt name is an error."""
    jinja = Jinja(loader=FileSystemLoader(templates), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    jinja.globals.update(
        brand=brand,
        prefix=prefix,
        base_url=base_url,
        static=partial(_versioned, static, prefix),
        hub_static=partial(_hub_static, base_url),
        span=words.span,
        ago=words.ago,
        duration=words.duration,
        TEAM_ROLES=words.TEAM_ROLES,
    )
    jinja.filters["units"] = words.units
    jinja.filters["quoted"] = partial(quote, safe="")
    return jinja


def _versioned(static: Path, prefix: str, name: str) -> str:
    """Gives the address of one of our files; it changes with the file, so that browsers may keep it for long."""
    file = static / name
    version = f"?v={hashlib.sha256(file.read_bytes()).hexdigest()[:12]}" if file.is_file() else ""
    return f"{prefix}static/{name}{version}"


def _hub_static(base_url: str, name: str) -> str:
    return f"{base_url}hub/static/{name}"


def die_with_the_hub() -> None:
    """Ends this process when the Hub that started it is killed.

    Otherwise an orphan keeps the port and an old secret, and the next portal cannot start.
    """
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() == 1:
        sys.exit("The Hub that started this portal is gone.")


def make_auth(config: Config, prefix: str) -> PortalAuth:
    """Makes the login; what a Hub-managed service is told by its environment follows from the prefix otherwise."""
    name = prefix.rstrip("/").rpartition("/")[2]
    auth = PortalAuth(config=config, base_url=prefix, cache_max_age=30)
    if "JUPYTERHUB_API_URL" not in os.environ:
        auth.api_url = addresses.hub_api_url(config)
    auth.hub_prefix = f"{_base_url(config)}hub/"
    domains = Domains.read(config)
    if domains.hub:
        # The Hub tells it to the services that it starts; a unit of one's own has only the configuration.
        auth.hub_host = domains.hub
        auth.cookie_host_prefix_enabled = bool(config.JupyterHub.get("cookie_host_prefix_enabled", False))
        auth.oauth_redirect_uri = f"{domains.of_service(name)}{prefix}oauth_callback"
    if not auth.api_token and "VISAHUB_PORTAL_TOKEN" not in os.environ:
        sys.exit("The portal has no token for the Hub. Give VISAHUB_PORTAL_TOKEN to the Hub and to the portal.")
    # Without a scope to ask for, the stock class would let everybody in.
    auth.access_scopes = auth.access_scopes or {f"access:services!service={name}"}
    auth.oauth_client_id = auth.oauth_client_id or f"service-{name}"
    auth.api_token = auth.api_token or os.environ.get("VISAHUB_PORTAL_TOKEN", "")
    return auth


def _lab_folders(settings: build.Visahub) -> list[Path]:
    """Gives the builds that the setting names, and the one beside this portal."""
    return [*map(Path, settings.lab_folders), Path(sys.prefix) / "share" / "jupyter" / "lab" / "static"]


def _base_url(config: Config) -> str:
    return os.environ.get("JUPYTERHUB_BASE_URL") or addresses.base_url(config)


async def serve(config: Config, portal_url: str | None = None) -> None:
    """Serves until SIGTERM or SIGINT."""
    expect_shortage()
    parts = build.parts(config)
    settings = parts.settings
    base_url = _base_url(config)
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", f"{base_url}services/visahub/")
    auth = make_auth(config, prefix)
    hub = HubApi(auth.api_url, auth.api_token)
    static = build.share("static")
    portal = Portal(
        keep=Retention(settings.keep_events_months, settings.keep_instances_months),
        store=parts.store,
        menu=parts.menu,
        hub=hub,
        auth=auth,
        jinja=make_jinja(build.share("templates", "portal"), static, prefix, base_url, settings.name),
        watch=events.Watch(parts.store),
        prefix=prefix,
        base_url=base_url,
        domains=Domains.read(config),
    )
    builds = lab.Builds(_lab_folders(settings))
    app = make_app(portal, static, build.share("node_modules", "htmx.org", "dist"), builds)
    server = make_server(app, list(config.JupyterHub.get("trusted_downstream_ips", [])))
    url = urlparse(portal_url or os.environ.get("JUPYTERHUB_SERVICE_URL") or settings.portal_url)
    server.listen(url.port or 8090, address=url.hostname or "127.0.0.1")
    clock = Clock(hub, parts.store, parts.sources, settings.mirror_minutes, utc_now)
    clock.keep = portal.keep
    clock.start()
    packing = asyncio.create_task(builds.pack_all())
    log.info("The portal listens on %s", url.netloc)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.stop()
    packing.cancel()
    await clock.close()
    await portal.watch.close()
    await asyncio.wait_for(server.close_all_connections(), timeout=5)
    hub.close()
    parts.store.close()


def main(config: Config) -> None:
    """Runs the portal; `cli.py` calls it with the configuration that it has read."""
    # The Hub names the services that it starts; a unit of one's own does not set this.
    if "JUPYTERHUB_SERVICE_NAME" in os.environ:
        die_with_the_hub()
    handler = logging.StreamHandler()
    handler.addFilter(NoSecrets(secrets_of(os.environ) | secrets_of(config)))
    form = "%(levelname)s %(asctime)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=[handler])
    asyncio.run(serve(config))
