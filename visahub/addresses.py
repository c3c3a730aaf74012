"""Where Hub, proxy and portal are, read from the Hub's settings; for processes that the Hub does not start."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from traitlets.config import Config

_EVERYWHERE = {"", "*", "0.0.0.0", "::"}  # noqa: S104 - these mean "this machine" to whoever connects


def setting(config: Config, section: str, name: str, default: Any = "") -> Any:
    """Gives a setting as the file has it; a section that is not there is not made."""
    return config[section].get(name, default) if section in config else default


def public_url(config: Config) -> str:
    """Gives where people reach the Hub, also when the older `ip` and `port` say it."""
    ip, port = setting(config, "JupyterHub", "ip"), setting(config, "JupyterHub", "port")
    if ip or port:
        scheme = "https" if setting(config, "JupyterHub", "ssl_cert") else "http"
        return f"{scheme}://{ip}:{port or 8000}{setting(config, 'JupyterHub', 'base_url', '/')}"
    return str(setting(config, "JupyterHub", "bind_url", "http://:8000"))


def base_url(config: Config) -> str:
    """Gives the path below which everything lies, with a slash at both ends."""
    path = setting(config, "JupyterHub", "base_url") or urlsplit(public_url(config)).path
    return f"/{path.strip('/')}/" if path.strip("/") else "/"


def hub_url(config: Config) -> str:
    """Gives where the Hub itself listens, for a program on its machine."""
    bound = setting(config, "JupyterHub", "hub_bind_url")
    if not bound:
        ip, port = setting(config, "JupyterHub", "hub_ip"), setting(config, "JupyterHub", "hub_port", 8081)
        bound = f"http://{ip}:{port}"
    return _reachable(setting(config, "JupyterHub", "hub_connect_url") or bound)


def hub_api_url(config: Config) -> str:
    """Gives the Hub's API, for a program on its machine."""
    return f"{hub_url(config)}{base_url(config)}hub/api"


def proxy_api_url(config: Config) -> str:
    """Gives where the Hub tells the proxy its routes."""
    return str(setting(config, "ConfigurableHTTPProxy", "api_url", "http://127.0.0.1:8001"))


def portal_url(config: Config) -> str:
    """Gives where the portal listens, for a program on its machine."""
    return _reachable(setting(config, "Visahub", "portal_url", "http://127.0.0.1:8090"))


def _reachable(url: Any) -> str:
    parts = urlsplit(str(url))
    host = parts.hostname or ""
    host = "127.0.0.1" if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
