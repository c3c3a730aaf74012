"""What decides whether a start is admitted, and as which row; used by `instances.py` within its transaction."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from ..model.account import Account
from ..model.errors import Refused
from ..model.instance import Instance, Phase, Want, friendly_name, new_attempt, new_instance_id
from ..model.request import StartRequest
from .tables import instances

# A Hub server's name that is fit to be an id in addresses, paths and tags.
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def first(
    connection: Connection,
    account: Account,
    server_name: str,
    request: StartRequest,
    backend: str,
    now: datetime,
    deadline: datetime,
) -> Instance:
    """Gives the row of a new instance; raises Refused when the account may not have one more."""
    _check_quota(connection, account)
    return Instance(
        id=free_id(connection, server_name),
        owner_id=account.id,
        owner=account.username,
        server_name=server_name,
        request=request if request.name else replace(request, name=friendly_name()),
        want=Want.ON,
        phase=Phase.STARTING,
        attempt=new_attempt(),
        backend=backend,
        created=now,
        changed=now,
        deadline=deadline,
        started=now,
    )


def again(old: Instance, request: StartRequest, backend: str, now: datetime, deadline: datetime) -> Instance:
    """Gives the row of an instance that starts again under a fresh attempt; raises Refused while it is not ended."""
    if not old.may_start:
        raise Refused(
            f"{old.name} already runs or is on its way. Open it from “My instances”.", rule="already", status=409
        )
    return old.moved(
        Phase.STARTING,
        now,
        want=Want.ON,
        attempt=new_attempt(),
        request=request if request.name else replace(request, name=old.request.name or friendly_name()),
        backend=backend,
        state={},
        address="",
        sentence="",
        deadline=deadline,
        started=now,
        ready=None,
        stopped=None,
    )


def _check_quota(connection: Connection, account: Account) -> None:
    if account.quota < 0:
        return
    if account.quota == 0:
        raise Refused(
            "Your account waits for approval, so it cannot start instances yet. Ask the user office.",
            rule="pending-approval",
        )
    wanted = (instances.c.owner_id == account.id, instances.c.want != Want.GONE, instances.c.phase != Phase.GONE)
    used = connection.scalar(select(func.count()).select_from(instances).where(*wanted)) or 0
    if used >= account.quota:
        raise Refused(
            f"You keep {used} of {account.quota} instances, running or stopped. Delete one that you no longer need, "
            "or ask support for more.",
            rule="quota",
            status=409,
        )


_INSTANCE_FIELDS = tuple(field.name for field in fields(Instance) if field.name != "owner")


def columns(instance: Instance) -> dict[str, Any]:
    """Gives an instance as its row holds it."""
    values = {name: getattr(instance, name) for name in _INSTANCE_FIELDS}
    return values | {"request": instance.request.as_options(), "state": dict(instance.state)}


def free_id(connection: Connection, server_name: str) -> str:
    """Gives the Hub server's name as id when it can be one and no row has ever had it."""
    if _ID.fullmatch(server_name):
        taken = connection.scalar(select(instances.c.id).where(instances.c.id == server_name))
        if taken is None:
            return server_name
    return new_instance_id()
