"""Start, stop, restart and delete: checked here early, done by the Hub as the user; used by the pages and the API."""

from __future__ import annotations

import asyncio
import logging

from ..flows.launch import choose
from ..model.account import Account
from ..model.errors import Refused, Unavailable, VisahubError
from ..model.instance import Instance, Phase, Want
from ..model.request import StartRequest
from ..store.database import ask
from .base import Portal

log = logging.getLogger(__name__)

# How long a restart waits for the stop.
STOP_SECONDS = 30


async def start(portal: Portal, account: Account, token: str, server_name: str, request: StartRequest) -> Instance:
    """Starts a new instance, or one that has stopped, with a request; gives its row.

    A name that is active already is given back as it is: so a form that is sent twice starts once. When the Hub
    answers with trouble but has begun, the row is given back too, and its page tells what happened.
    """
    known = await ask(portal.store.instances.named, account.id, server_name)
    if known is not None and not known.may_start:
        return known
    await ask(choose, portal.store, portal.menu, account, request, portal.today)
    trouble: VisahubError | None = None
    try:
        await portal.hub.start(token, account.username, server_name, request.name or server_name, request.as_options())
    except (Refused, Unavailable) as error:
        trouble = error
    begun = await ask(portal.store.instances.named, account.id, server_name)
    if begun is not None and (known is None or begun.attempt != known.attempt):
        return begun
    if trouble is None:
        raise Unavailable("The Hub has taken the start, but it is not recorded yet. Look at My instances in a moment.")
    raise trouble


async def stop(portal: Portal, account: Account, token: str, instance: Instance) -> bool:
    """Stops an instance, or cancels its start; tells whether it has stopped already. Its files are kept.

    The wish is written first: a Hub that is away or has lost its record finds it at the next round.
    """
    if not instance.may_stop:
        return instance.phase in {Phase.STOPPED, Phase.ERROR}
    await ask(portal.store.instances.wish, instance.id, Want.OFF, portal.now())
    return await portal.hub.stop(token, account.username, instance.server_name)


async def restart(portal: Portal, account: Account, token: str, instance: Instance) -> Instance:
    """Stops an instance, waits for it and starts it with the same choices."""
    await stop(portal, account, token, instance)
    for _ in range(STOP_SECONDS * 5):
        current = await ask(portal.store.instances.get, instance.id)
        if current is None or current.want is Want.GONE:
            raise Refused(f"{instance.name} was deleted meanwhile.", rule="unknown-instance", status=404)
        if current.may_start:
            return await start(portal, account, token, current.server_name, current.request)
        await asyncio.sleep(0.2)
    raise Refused(
        f"{instance.name} still stops. Press Start on My instances when it has stopped.",
        rule="still-stopping",
        status=409,
    )


async def delete(portal: Portal, account: Account, token: str, instance: Instance) -> None:
    """Deletes an instance for ever. The wish is written first: whatever fails after it, the next round goes on."""
    await ask(portal.store.instances.wish, instance.id, Want.GONE, portal.now())
    try:
        await portal.hub.stop(token, account.username, instance.server_name, remove=True)
    except (Refused, Unavailable) as error:
        log.warning("%s: the Hub could not delete it yet (%s); the next round does", instance.id, error)
