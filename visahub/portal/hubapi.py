"""What the portal asks of the Hub: start and stop a server as its user, and one round of reconciliation."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse

from ..model.errors import Refused, Unavailable

log = logging.getLogger(__name__)

_SILENT = "The Hub does not answer. Nothing was lost; try again in a few seconds."
_SESSION = "The Hub does not know this session any more. Reload the page and log in again."
# What the Hub itself says when a token is too old or too weak: words for programmers, not for users.
_HUBS_OWN = ("Action is not authorized", "Missing or invalid credentials", "Forbidden")


class HubApi:
    """A small client of the Hub's REST API; a refusal becomes Refused with the Hub's sentence, silence Unavailable."""

    def __init__(self, url: str, service_token: str) -> None:
        self._url = url.rstrip("/")
        self._service_token = service_token
        self._client = AsyncHTTPClient(force_instance=True, max_clients=100)

    async def start(self, token: str, username: str, server: str, name: str, options: dict[str, Any]) -> bool:
        """Starts a server with options; tells whether it is ready already."""
        body = {"display_name": name, "user_options": options}
        response = await self._ask("POST", _server(username, server), token, body)
        return response.code == 201

    async def stop(self, token: str, username: str, server: str, *, remove: bool = False) -> bool:
        """Stops a server, and removes the Hub's record of it; tells whether it has stopped already.

        Right for a server that does not run, and for one that the Hub does not know.
        """
        try:
            response = await self._ask("DELETE", _server(username, server), token, {"remove": remove})
        except Refused as refused:
            if refused.status == 404:
                return True
            raise
        return response.code == 204

    async def is_ready(self, token: str, username: str, server: str) -> bool:
        """Tells whether the Hub leads browsers to the server by now."""
        response = await self._ask("GET", _server(username, server), token)
        return bool(json.loads(response.body).get("ready"))

    async def round(self) -> dict[str, Any]:
        """Asks the Hub for one look at all backends (`hub/handlers.py`), and gives what that did and found."""
        response = await self._ask("POST", "visahub/round", self._service_token, {}, seconds=60)
        return dict(json.loads(response.body or "{}"))

    def close(self) -> None:
        self._client.close()

    async def _ask(
        self, method: str, path: str, token: str, body: dict[str, Any] | None = None, *, seconds: float = 20
    ) -> HTTPResponse:
        try:
            response = await self._client.fetch(
                f"{self._url}/{path}",
                method=method,
                headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
                body=None if body is None else json.dumps(body),
                allow_nonstandard_methods=True,
                request_timeout=seconds,
                raise_error=False,
            )
        except (OSError, HTTPClientError) as error:
            log.warning("The Hub did not answer %s %s: %s", method, path, error)
            raise Unavailable(_SILENT) from error
        # 599 is tornado's own: no answer in time.
        if response.code >= 500:
            log.warning("The Hub answered %s to %s %s", response.code, method, path)
            raise Unavailable(_sentence(response) if response.code == 503 else _SILENT)
        if response.code >= 400:
            raise _refused(response)
        return response


def _server(username: str, server: str) -> str:
    return f"users/{quote(username, safe='')}/servers/{quote(server, safe='')}"


def _refused(response: HTTPResponse) -> Refused:
    sentence = _sentence(response)
    if response.code in {401, 403} and sentence.startswith(_HUBS_OWN):
        return Refused(_SESSION, rule="session", status=401)
    if response.code == 429:
        return Refused("Many instances start just now. Try again in a minute.", rule="busy", status=429)
    return Refused(sentence, rule="hub", status=response.code)


def _sentence(response: HTTPResponse) -> str:
    try:
        message = json.loads(response.body).get("message")
    except (ValueError, AttributeError):
        message = None
    return str(message) if message else _SILENT
