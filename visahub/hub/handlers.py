"""The addresses that visahub adds to the Hub: the round for the portal's clock, and a page while the portal is away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from jupyterhub import apihandlers, orm
from jupyterhub import handlers as pages
from jupyterhub.apihandlers.auth import CookieAPIHandler, TokenAPIHandler
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.apihandlers.users import UserServerAPIHandler, UserTokenListAPIHandler
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.pages import SpawnHandler
from tornado import web

from ..model.errors import Unavailable
from . import guard, limits, metrics
from .desk import Desk
from .doors import ServerDoor, SpawnPage
from .portal import ROUND_SCOPE, SERVICE, page_address
from .rounds import Round

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
        supervisor = Desk.of(self.settings["config"]).supervisor
        supervisor.heard(self)
        async with _busy:
            try:
                with metrics.ROUND_SECONDS.time():
                    done = await Round(self).run()
            except Unavailable as error:
                raise web.HTTPError(503, error.sentence) from None
            finally:
                supervisor.heard(self)
        self.write(json.dumps(done))


class AwayHandler(BaseHandler):
    """Answers in the portal's place while the proxy does not lead to it, which is so for seconds after a restart."""

    async def get(self) -> None:
        # The Hub's prefix is before the address that was asked for.
        address = page_address(self.settings, self.base_url + self.request.uri.removeprefix(self.hub.base_url))
        self.set_status(503)
        self.set_header("Retry-After", "3")
        self.finish(await self.render_template("away.html", address=address))


def register() -> None:
    """Adds the addresses to the Hub's own, and closes doors of its own; right when called twice.

    Two that the Hub keeps for services of before 2021 go: they fail with a traceback for everybody who asks.
    """
    old = {TokenAPIHandler, CookieAPIHandler}
    apihandlers.default_handlers[:] = [row for row in apihandlers.default_handlers if row[1] not in old]
    _put_instead(pages.default_handlers, SpawnHandler, SpawnPage)
    _put_instead(apihandlers.default_handlers, UserServerAPIHandler, ServerDoor)
    _put_instead(apihandlers.default_handlers, UserTokenListAPIHandler, limits.Tokens)
    for path, handler in ((r"/api/visahub/round", RoundHandler), (rf"/services/{SERVICE}/.*", AwayHandler)):
        if not any(known is handler for _, known, *_ in apihandlers.default_handlers):
            apihandlers.default_handlers.append((path, handler))
    guard.stand()


def _put_instead(routes: list[Any], theirs: type[BaseHandler], ours: type[BaseHandler]) -> None:
    routes[:] = [(path, ours if handler is theirs else handler, *rest) for path, handler, *rest in routes]
