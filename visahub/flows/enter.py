"""A login becomes an account with one Unix uid for life; called by `hub/authenticator.py`."""

from __future__ import annotations

from ..model.account import Account, Identity
from ..store.database import Store


def enter(store: Store, identity: Identity, *, uid_min: int) -> Account:
    """Gives the account of somebody who has just logged in, made at the first login.

    Raises Refused when the user name belongs to another identity, Unavailable when the database is away.
    """
    return store.accounts.enter(identity, uid_min=uid_min)
