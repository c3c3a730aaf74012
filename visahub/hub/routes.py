"""The stock proxy's door, except that an instance is not stopped because the proxy is away; set by `settings.py`."""

from __future__ import annotations

from typing import Any

from jupyterhub.proxy import ConfigurableHTTPProxy


class KeepingProxy(ConfigurableHTTPProxy):
    """Leaves a route that cannot be set now to the next round, which sets it from what runs.

    The Hub itself would stop the instance "to avoid inconsistent state", and its user would lose it for a proxy that
    restarts.
    """

    async def add_route(self, routespec: str, target: str, data: Any) -> None:
        try:
            await super().add_route(routespec, target, data)
        except Exception as error:
            if "user" not in data:
                raise
            self.log.error("The route %s cannot be set yet; the next round does: %s", routespec, error)
