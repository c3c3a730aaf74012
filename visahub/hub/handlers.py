"""The address that visahub adds to the Hub: POST /hub/api/visahub/round, for the portal's clock alone."""

from __future__ import annotations

import asyncio
import json

from jupyterhub import apihandlers, orm
from jupyterhub.apihandlers.base import APIHandler
from tornado import web

from .portal import SERVICE
from .rounds import Round
from .settings import ROUND_SCOPE

_PATH = r"/api/visahub/round"
_busy = asyncio.Lock()


class RoundHandler(APIHandler):
    """Looks after all instances once; the answer tells what was done."""

    # Servers whose start was interrupted, by user and server name; the spawner goes on with their rows.
    lost: dict[tuple[str, str], object]

    async def post(self) -> None:
        asker = self.current_user
        if not (isinstance(asker, orm.Service) and asker.name == SERVICE and self.has_scope(ROUND_SCOPE)):
            raise web.HTTPError(403, "Only visahub's own portal may ask for a round.")
        if _busy.locked():
            raise web.HTTPError(409, "A round is under way. Ask again in a few seconds.")
        async with _busy:
            done = await Round(self).run()
        self.write(json.dumps(done))


def register() -> None:
    """Adds the address to the Hub's own; right when called twice."""
    if not any(handler is RoundHandler for _, handler, *_ in apihandlers.default_handlers):
        apihandlers.default_handlers.append((_PATH, RoundHandler))
