"""What is stored about a person is told and erased, and what is old is forgotten; called by `portal/` and `cli.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..model.account import Account
from ..model.errors import Refused
from ..store.database import Store

_MONTH = timedelta(days=30.5)
# A clock that is this far ahead of all that ever happened is wrong, or nothing happens here: both can wait.
_AHEAD = timedelta(days=31)
ELSEWHERE = (
    "The Hub's own database: user name, logins and tokens (the page Access tokens shows them).",
    "Home directories: files, notebooks and the logs of instances.",
    "The catalogue of experiments, at its source: proposals and teams.",
    "Access logs of the Hub, the portal and the proxy: user name, address and time of each request, for 30 days unless "
    "this facility says otherwise.",
)


@dataclass(frozen=True)
class Retention:
    """For how many months what is kept. A month is 30.5 days."""

    events_months: int = 12
    instances_months: int = 12


def export(store: Store, account: Account, now: datetime) -> dict[str, Any]:
    """Gives all that visahub stores about an account, and says what is stored elsewhere."""
    told = store.personal.export(account.id)
    return {"made": now.isoformat(), "username": account.username, **told, "elsewhere": list(ELSEWHERE)}


def erase(store: Store, username: str, *, is_dry: bool) -> dict[str, int]:
    """Erases a person and tells the number of rows by table; a dry run only counts.

    Raises Refused when there is no such account or while it has instances.
    """
    account = store.accounts.named(username)
    if account is None:
        raise Refused(f"There is no account {username!a}. Nothing was erased.", rule="no-account", status=404)
    return store.personal.erase(account.id, is_dry=is_dry)


def forget(store: Store, retention: Retention, now: datetime) -> dict[str, int]:
    """Removes what is older than the retention says and tells how much, in short transactions.

    Time is not believed when it is more than a month ahead of the newest event.
    """
    newest = store.personal.newest()
    if newest is None:
        return {}
    now = min(now, newest + _AHEAD)
    done = {"events": 0, "instances": 0}
    while some := store.personal.forget_instances(now - retention.instances_months * _MONTH):
        done["instances"] += some
    while some := store.personal.forget_events(now - retention.events_months * _MONTH):
        done["events"] += some
    return done
