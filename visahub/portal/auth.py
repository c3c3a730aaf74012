"""Who asks: the Hub's OAuth for browsers, its tokens for programs; used by `base.py`."""

from __future__ import annotations

from typing import Any

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler
from tornado.web import HTTPError

from ..model.errors import Refused, Unavailable
from ..model.instance import Instance
from .base import Handler, no_such_instance

_SILENT = "The Hub does not answer, so nobody can be recognised. Nothing was lost; try again in a few seconds."


class PortalAuth(HubOAuth):
    """The Hub's OAuth, except that a Hub in trouble is "unavailable" and that "nobody" is never remembered.

    While its database is locked or full the Hub calls valid tokens invalid; the stock class would keep that for
    `cache_max_age` seconds, and users would stay locked out long after the Hub has recovered.
    """

    async def _check_hub_authorization(
        self, url: str, api_token: str, cache_key: str | None = None, use_cache: bool = True
    ) -> dict[str, Any] | None:
        try:
            model: dict[str, Any] | None = await super()._check_hub_authorization(url, api_token, cache_key, use_cache)
        except HTTPError as error:
            raise Unavailable(_SILENT) from error
        if model is None and cache_key is not None:
            self.cache.pop(cache_key, None)
        return model


def check_is_instance(model: dict[str, Any], instance: Instance | None) -> Instance:
    """Checks that a token is the one of this very instance; for anybody but its owner it is as if it were absent.

    The token that the Hub gives a server has the scope to access that server and no other, while a person's token
    has the scope for all servers of the person; so the exact string is compared.
    """
    if instance is None or model.get("kind") != "user" or model["name"] != instance.owner:
        raise no_such_instance()
    if f"access:servers!server={instance.owner}/{instance.server_name}" not in model["scopes"]:
        if any(scope.startswith("access:servers!server=") for scope in model["scopes"]):
            # The token of another instance, whose code need not know what else its owner has.
            raise no_such_instance()
        raise Refused("Only the instance itself may tell this, with the token that it was given.", rule="scope")
    return instance


class Callback(Handler, HubOAuthCallbackHandler):
    """Finishes a login; errors look like those of every other page."""

    access = "open"

    async def get(self) -> None:
        try:
            await HubOAuthCallbackHandler.get(self)
        except HTTPError as error:
            if error.status_code < 500:
                raise Refused(
                    "The login was not finished: it was too long ago, or it began in another window. "
                    "Go to My instances to log in again.",
                    rule="login",
                    status=error.status_code,
                ) from error
            raise Unavailable(_SILENT) from error
