"""What runs and no row knows, because the database came from a copy: listed, taken up again, ended; for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ..backends.base import Backend
from ..model.errors import Refused
from ..model.instance import Instance
from ..model.launch import Condition, Seen
from ..model.request import StartRequest
from ..store.database import Store


@dataclass(frozen=True)
class Stray:
    """One resource that carries this deployment's tag and an attempt that no row ever had."""

    backend: str
    attempt: str
    condition: Condition


async def find(store: Store, backends: Mapping[str, Backend]) -> list[Stray]:
    """Gives all strays. Raises Unavailable when a place or the database cannot be asked: a part is no answer."""
    looks = await asyncio.gather(*(backend.look() for backend in backends.values()))
    found = []
    for backend_id, look in zip(backends, looks, strict=True):
        known = await asyncio.to_thread(store.instances.known_attempts, list(look))
        found += [
            Stray(backend_id, attempt, condition)
            for attempt, condition in sorted(look.items())
            if attempt not in known and condition.is_live
        ]
    return found


async def one(store: Store, backends: Mapping[str, Backend], attempt: str) -> Stray:
    """Gives a stray by its attempt; raises Refused when there is none."""
    for stray in await find(store, backends):
        if stray.attempt == attempt:
            return stray
    raise Refused(
        f"Nothing that no row knows runs under the attempt {attempt!r}. See: visahub strays list",
        rule="no-stray",
        status=404,
    )


def adopt(store: Store, stray: Stray, owner: str, server_name: str, name: str, now: datetime) -> Instance:
    """Writes a stray's row for an owner; the next round of the Hub leads its owner there again.

    Raises Refused for an unknown owner, a taken name, or when it is known by now.
    """
    account = store.accounts.named(owner)
    if account is None:
        raise Refused(f"There is no account {owner!r}. Its owner has to log in once.", rule="no-account", status=404)
    server = server_name or stray.condition.instance_id
    if not server:
        raise Refused(
            "The place does not say which server it is. Name it: --server, as in its address /user/OWNER/SERVER/",
            rule="no-server",
            status=422,
        )
    if stray.condition.seen is not Seen.RUNNING:
        raise Refused("It does not answer yet. Try again in a minute, or end it.", rule="not-running", status=409)
    request = StartRequest(name=name or "recovered")
    return store.strays.adopt(account, server, request, stray.backend, stray.attempt, stray.condition, now)


async def end(backends: Mapping[str, Backend], stray: Stray) -> None:
    """Ends a stray; its files stay, as after every stop."""
    await backends[stray.backend].stop(stray.attempt, stray.condition.state)
