"""What `configure(c)` sets: the Hub's settings for a facility, each with its reason."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from jupyterhub.app import JupyterHub
from traitlets.config import Config

from .. import build, proxy
from ..flows.descriptors import expect_shortage
from . import handlers, lease, limits, logs, own_database
from .portal import ROUND_SCOPE, SERVICE, Site, portal_address

# One slow answer of an instance or of the proxy must not hold a request of the Hub for aiohttp's 300 s.
_HTTP_SECONDS = 20
_DAY = 24 * 3600

# Section, setting, value. The comments of the Hub's documentation are not repeated, only why it is so here.
_DEFAULTS: tuple[tuple[str, str, Any], ...] = (
    ("JupyterHub", "spawner_class", "visahub.hub.spawner.VisaSpawner"),
    # An instance is a named server; the default server is refused by the spawner.
    ("JupyterHub", "allow_named_servers", True),
    # Quotas are visahub's own. This is only the outer bound against a script that creates names without starting.
    ("JupyterHub", "named_server_limit_per_user", 50),
    # Instances go on while the Hub restarts.
    ("JupyterHub", "cleanup_servers", False),
    ("JupyterHub", "default_url", portal_address),
    # Nothing starts because a page was opened.
    ("JupyterHub", "implicit_spawn_seconds", 0),
    ("JupyterHub", "concurrent_spawn_limit", 50),
    # At a restart the Hub answers after this many seconds, also when instances are still being asked.
    ("JupyterHub", "init_spawners_timeout", 1),
    ("JupyterHub", "cookie_max_age_days", 7),
    ("JupyterHub", "oauth_token_expires_in", 7 * _DAY),
    # Tokens that people make for scripts end; without this they would be valid for ever.
    ("JupyterHub", "token_expires_in_max_seconds", 90 * _DAY),
    ("JupyterHub", "last_activity_interval", 300),
    # A front server on this machine is no user: behind it the address before its own is who asks.
    ("JupyterHub", "trusted_downstream_ips", ["127.0.0.1", "::1", "::ffff:127.0.0.1"]),
    # A Hub that is asked to show a progress page does so after a second instead of holding the request.
    ("JupyterHub", "tornado_settings", {"slow_spawn_timeout": 1, "slow_stop_timeout": 10}),
    # The rounds see within seconds what has ended, by one look at all; this is for a Hub whose portal is away.
    ("Spawner", "poll_interval", 600),
    # Starts that fail are told to their user; they never end the Hub.
    ("Spawner", "consecutive_failure_limit", 0),
    ("Spawner", "http_timeout", 60),
    ("Spawner", "env_keep", []),
    ("JupyterHubHTTPClient", "session_options", {"timeout": aiohttp.ClientTimeout(total=_HTTP_SECONDS)}),
)


def apply(c: Config) -> None:
    """Does what `configure` promises."""
    for section, name, value in _DEFAULTS:
        _default(c, section, name, value)
    domains = str(c.JupyterHub.get("subdomain_host", ""))
    if domains and not domains.startswith("http://"):
        # A page of one user's domain can set cookies for all domains, but none whose name begins with `__Host-`. They
        # need TLS, and domains of their own: their path is "/".
        _default(c, "JupyterHub", "cookie_host_prefix_enabled", True)
    settings = build.Visahub(config=c)
    # The flow gives up at `start_seconds`; the Hub waits a little longer, so that the flow's sentence is told.
    _default(c, "Spawner", "start_timeout", settings.start_seconds + 30)
    _default(c, "ConfigurableHTTPProxy", "command", proxy.command())
    _default(c, "JupyterHub", "db_kwargs", own_database.arguments(_hubs_url(c)))
    _template_path(c)
    c.JupyterHub.template_vars.update({"visahub": Site(settings.name)})
    c.JupyterHub.custom_scopes.update({ROUND_SCOPE: {"description": "Let the Hub look after all instances once."}})
    c.JupyterHub.extra_user_scopes.update({f"access:services!service={SERVICE}"})
    c.JupyterHub.services.append(_portal(settings))
    c.JupyterHub.load_roles.append(
        {
            "name": "visahub-portal",
            "description": "The portal's own token: it may ask for a round, and for nothing else.",
            "scopes": [ROUND_SCOPE],
            "services": [SERVICE],
        }
    )
    logs.protect(c)
    if _is_hub():
        _default(c, "JupyterHub", "proxy_class", "visahub.hub.routes.KeepingProxy")
        _prepare(c)


def _default(c: Config, section: str, name: str, value: Any) -> None:
    if name not in c[section]:
        c[section][name] = value
    elif isinstance(value, dict) and isinstance(c[section][name], Mapping):
        c[section][name] = {**value, **c[section][name]}


def _template_path(c: Config) -> None:
    """Puts our pages behind the facility's own and before the Hub's, which the Hub appends."""
    ours = str(build.share("templates", "hub"))
    if isinstance(c.JupyterHub.get("template_paths"), list):
        c.JupyterHub.template_paths.append(ours)
    else:
        c.JupyterHub.template_paths = [*c.JupyterHub.template_paths.to_dict().get("prepend", []), ours]


def _portal(settings: build.Visahub) -> dict[str, Any]:
    """Describes the portal: managed by the Hub, or a unit of its own when VISAHUB_PORTAL_TOKEN is given to both."""
    service: dict[str, Any] = {
        "name": SERVICE,
        "url": settings.portal_url,
        # Our own pages link to it; the Hub's menu of services need not.
        "display": False,
        "oauth_no_confirm": True,
        # What the portal may do as its user: start, stop and see servers. It never needs to enter them.
        "oauth_client_allowed_scopes": ["servers", "read:users:name"],
    }
    token = os.environ.get("VISAHUB_PORTAL_TOKEN", "")
    if token:
        return {**service, "api_token": token}
    command = [sys.executable, "-m", "visahub.cli", "portal", "--config", str(_config_file())]
    kept = {name: value for name, value in os.environ.items() if name.startswith(("VISAHUB_", "PG"))}
    # A Hub ends when a service of its own does not come up; on a busy machine that may take longer than 30 s.
    return {**service, "command": command, "environment": kept, "cwd": os.getcwd(), "timeout": 90}


def _config_file() -> Path:
    name = JupyterHub.instance().config_file if JupyterHub.initialized() else "jupyterhub_config.py"
    return Path(name).resolve()


def _is_hub() -> bool:
    """Tells whether this process is the Hub, and not the portal or a command that only reads the file."""
    return JupyterHub.initialized() and not JupyterHub.instance().generate_config


def _prepare(c: Config) -> None:
    """Stops a Hub with wrong settings, and brings a database in a file up to date before anything uses it."""
    # The Hub reads its configuration in its event loop; a command such as `jupyterhub token` has none.
    with contextlib.suppress(RuntimeError):
        expect_shortage()
    parts = build.parts(c)
    limits.apply()
    # Not when the spawner is imported: a Hub that only lists all spawners there are does that, too.
    handlers.register()
    _make_private(_hubs_url(c))
    own_database.watch_over()
    if parts.settings.database_url.startswith("sqlite:///"):
        parts.store.upgrade()
    else:
        parts.store.check()
    lease.begin(parts.store, parts.settings.deployment)


def _hubs_url(c: Config) -> str:
    return str(c.JupyterHub.get("db_url", "sqlite:///jupyterhub.sqlite"))


def _make_private(db_url: str) -> None:
    """Lets nobody else read the Hub's own database: it holds the tokens of running instances."""
    if db_url.startswith("sqlite:///"):
        path = Path(db_url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
