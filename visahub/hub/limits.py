"""Limits that JupyterHub has no setting for: the size of requests and notes, the number of tokens."""

from __future__ import annotations

from typing import Any

from jupyterhub.apihandlers.users import UserTokenListAPIHandler
from tornado import web
from tornado.httpserver import HTTPServer

from .. import front
from ..model.errors import Refused

MAX_BODY = 1024 * 1024
# Tokens of one user that are valid, those of running instances included; sessions of a browser are not counted.
MOST_TOKENS = 50
LONGEST_NOTE = 255
_BY_HAND = "jupyterhub"


def apply() -> None:
    """Makes the Hub's server `Front`, with small bodies: its own would read 100 MB of anybody into memory."""
    HTTPServer.configure(front.Front, max_body_size=MAX_BODY, **front.SETTINGS)


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


def check_starts(spawner: Any, most: int) -> None:
    """Raises Refused when the spawner's user has as many starts under way as one may have, and counts this one."""
    spawner.is_counted = False
    others = [one for one in spawner.user.spawners.values() if one is not spawner]
    if sum(1 for one in others if one.is_counted and one.pending == "spawn") >= most:
        raise Refused(
            f"{most} of your instances start just now. Wait until one of them is ready, then start the next.",
            rule="starts",
            status=429,
        )
    spawner.is_counted = True


def _number(token: Any) -> int:
    return int(token.id)
