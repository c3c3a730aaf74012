"""Limits that JupyterHub has no setting for: the size of requests, options and notes, the number of tokens."""

from __future__ import annotations

from typing import Any

from jupyterhub import apihandlers
from jupyterhub.apihandlers.auth import CookieAPIHandler, TokenAPIHandler
from jupyterhub.apihandlers.users import UserServerAPIHandler, UserTokenListAPIHandler
from tornado import web
from tornado.httpserver import HTTPServer

from .. import front
from ..model.errors import Refused
from ..model.request import StartRequest
from .refusals import spoken

MAX_BODY = 1024 * 1024
# Tokens of one user that are valid, those of running instances included; sessions of a browser are not counted.
MOST_TOKENS = 100
LONGEST_NOTE = 255
_BY_HAND = "jupyterhub"


def apply() -> None:
    """Makes the Hub's server `Front`, with small bodies: its own would read 100 MB of anybody into memory."""
    HTTPServer.configure(front.Front, max_body_size=MAX_BODY, **front.SETTINGS)


def register() -> None:
    """Puts our handlers in the place of the Hub's own; right when called twice.

    Two that the Hub keeps for services of before 2021 go: they fail with a traceback for everybody who asks.
    """
    ours = {handler.__mro__[1]: handler for handler in (Servers, Tokens)}
    apihandlers.default_handlers[:] = [
        (path, ours.get(handler, handler), *more)
        for path, handler, *more in apihandlers.default_handlers
        if handler not in {TokenAPIHandler, CookieAPIHandler}
    ]


class Servers(UserServerAPIHandler):
    """The Hub's door to servers. It keeps options before anybody looks at them: here somebody does."""

    def get_json_body(self) -> Any:
        body = super().get_json_body()
        if self.request.method == "DELETE" or not isinstance(body, dict):
            return body
        # The Hub takes a body without either name for the options themselves; a change takes none such.
        is_old = not body.keys() & {"user_options", "display_name", "name"}
        options = body if is_old and self.request.method != "PATCH" else body.get("user_options")
        if options:
            try:
                StartRequest.read(options)
            except Refused as error:
                raise spoken(error, self.log) from None
        return body


class Tokens(UserTokenListAPIHandler):
    """The Hub's door to tokens, with a limit to their number and notes."""

    async def post(self, user_name: str) -> None:
        await super().post(user_name)
        # The Hub has checked who asks, and nothing was awaited since it made the token.
        user = self.find_user(user_name)
        mine = [token for token in user.api_tokens if token.client_id == _BY_HAND and not token.expired]
        if len(mine) > MOST_TOKENS:
            self.db.delete(max(mine, key=_number))
            self.db.commit()
            sentence = f"There are {MOST_TOKENS} tokens already. Revoke those that are not needed any more."
            raise web.HTTPError(409, sentence)

    def get_json_body(self) -> Any:
        body = super().get_json_body()
        note = body.get("note") if isinstance(body, dict) else None
        if note is not None and not (isinstance(note, str) and len(note) <= LONGEST_NOTE):
            raise web.HTTPError(400, f"The note must be a text of at most {LONGEST_NOTE} characters.")
        return body


def _number(token: Any) -> int:
    return int(token.id)
