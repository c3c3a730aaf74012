"""Where the portal is, for the Hub's pages and redirects."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from jupyterhub.app import JupyterHub

SERVICE = "visahub"
# What the portal's own token may ask for.
ROUND_SCOPE = "custom:visahub:round"


class Site:
    """What the Hub's templates know of visahub: `{{ visahub.name }}`, `{{ visahub.portal }}`."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def portal(self) -> str:
        """The portal's address with a slash at the end, '' while it is not configured."""
        return _href(JupyterHub.instance().tornado_settings)


def portal_address(handler: Any) -> str:
    """Gives where people land after login: `JupyterHub.default_url`."""
    return _href(handler.settings) or f"{handler.hub.base_url}home"


def new_instance_address(settings: dict[str, Any], choices: dict[str, list[str]]) -> str:
    """Gives the portal's form with the same choices, escaped."""
    query = urlencode(choices, doseq=True)
    return f"{_href(settings)}new" + (f"?{query}" if query else "")


def page_address(settings: dict[str, Any], path: str) -> str:
    """Gives the address of one of the portal's pages; `path` begins with the portal's prefix."""
    service = settings.get("services", {}).get(SERVICE)
    return f"{service.host}{path}" if service else path


def connect_address(settings: dict[str, Any], url: str) -> str:
    """Gives where an instance reaches the portal, '' while it is not configured."""
    service = settings.get("services", {}).get(SERVICE)
    return f"{url.rstrip('/')}{service.prefix}" if service else ""


def public_address(settings: dict[str, Any]) -> str:
    """Gives where browsers reach the portal, with a slash at the end; '' while it is not configured."""
    return _href(settings)


def _href(settings: dict[str, Any]) -> str:
    service = settings.get("services", {}).get(SERVICE)
    # Not `service.href`, which forgets the port of the service's own domain.
    return f"{service.host}{service.prefix}" if service else ""
