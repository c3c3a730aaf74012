"""Where browsers find the Hub, the portal and each user's instances: on one domain or each on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.utils import subdomain_hook_idna, subdomain_hook_legacy
from traitlets.config import Config

Hook = Callable[..., str]

_HOOKS: dict[str, Hook] = {"idna": subdomain_hook_idna, "legacy": subdomain_hook_legacy}


@dataclass(frozen=True)
class Domains:
    """The Hub's rules for domains. `hub` is its scheme, name and port, "" when everything shares one domain."""

    hub: str = ""
    hook: Hook = subdomain_hook_idna

    @classmethod
    def read(cls, config: Config) -> Domains:
        """Reads `JupyterHub.subdomain_host` and `subdomain_hook`, as the Hub itself does."""
        settings = config.JupyterHub
        host = str(settings.get("subdomain_host", "") or "").rstrip("/")
        if not host:
            return cls()
        hook: Any = settings.get("subdomain_hook", "idna")
        return cls(host if "://" in host else f"https://{host}", hook if callable(hook) else _HOOKS[hook])

    def of_user(self, username: str) -> str:
        """Gives the scheme, name and port of a user's instances, "" for the domain of all."""
        return self._of(username, "user")

    def of_service(self, name: str) -> str:
        """Gives the scheme, name and port of a service, "" for the domain of all."""
        return self._of(name, "service")

    def _of(self, name: str, kind: str) -> str:
        if not self.hub:
            return ""
        url = urlsplit(self.hub)
        domain = self.hook(name, url.hostname or "", kind=kind)
        return f"{url.scheme}://{domain}" + (f":{url.port}" if url.port else "")
