"""Takes up what runs and what an older copy of the Hub's database does not know; for `spawner.py` and `rounds.py`.

Its route and its token come back, so that its owner goes on as if nothing had been.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from jupyterhub import __version__, orm
from jupyterhub.objects import Server
from jupyterhub.utils import AnyTimeoutError

from ..model.errors import Refused, VisahubError
from ..model.instance import Instance
from ..store.database import ask
from .tokens import seal, unseal

# How long a restarted Hub waits for the answer of an instance that is known to run.
_KNOWN_SECONDS = 5


class Known(Server):
    """A server that was ready before the Hub was restarted. The Hub would end it if it did not answer now.

    That is for its owner to decide: `silence.py` tells that it does not answer.
    """

    async def wait_up(self, **kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(_KNOWN_SECONDS):
                return await super().wait_up(**kwargs)
        except AnyTimeoutError:
            # All that the Hub reads of the answer.
            return SimpleNamespace(headers={"X-JupyterHub-Version": __version__})


async def keep_token(spawner: Any) -> None:
    """Keeps the token of an admitted start, sealed; a start goes on without it."""
    sealed = seal(spawner.api_token, _secret(spawner.user))
    try:
        await ask(spawner.desk.parts.store.strays.keep_token, spawner.attempt, sealed)
    except VisahubError as error:
        spawner.log.warning("%s: its token was not kept for a restore: %s", spawner._log_name, error)


async def token_of(store: Any, user: Any, row: Instance) -> str:
    """Gives the token that an instance was started with, '' when nobody knows it any more."""
    sealed = await ask(store.strays.token, row.attempt)
    return unseal(sealed, _secret(user)) if sealed else ""


async def take_up(spawner: Any, row: Instance) -> None:
    """Makes a spawner, in the place of its start, that of a running instance; raises Refused without its token."""
    token = await token_of(spawner.desk.parts.store, spawner.user, row)
    made = orm.APIToken.find(spawner.user.db, spawner.api_token)
    if not token or made is None:
        raise Refused(
            f"{row.name} runs, but the Hub has lost its token, so nobody can be let in. Stop it and start it again.",
            rule="token-lost",
            status=409,
        )
    client = spawner.orm_spawner.oauth_client
    spawner.kept_scopes = list(client.allowed_scopes) if client else []
    # The Hub has just made a token with all that it may do; the instance has another one, and cannot be told.
    made.token = token
    spawner.api_token, spawner.attempt = token, row.attempt
    spawner.resumed_address = row.address
    spawner.user_options = spawner.orm_spawner.user_options = row.request.as_options()
    spawner.orm_spawner.state = spawner.get_state()
    spawner.user.db.commit()


def give_scopes_back(spawner: Any) -> None:
    """Gives the instance's login what it may ask for, which the Hub takes away from a server with a token of its own.

    https://github.com/jupyterhub/jupyterhub/blob/6.1.1/jupyterhub/user.py (spawn, "updated API token")
    """
    client = spawner.orm_spawner.oauth_client
    if spawner.kept_scopes and client is not None:
        client.allowed_scopes = spawner.kept_scopes
        spawner.kept_scopes = []
        spawner.user.db.commit()


def _secret(user: Any) -> bytes:
    return bytes(user.settings["cookie_secret"])
