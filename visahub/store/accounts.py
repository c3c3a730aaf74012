"""Accounts and their identities: one account with one Unix uid for life; called by `flows/enter.py` and the doors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from ..model.account import Account, Identity, Role
from ..model.errors import Refused
from .engine import LOCK_ACCOUNTS, Database
from .tables import LARGEST, accounts, identities

# How many instances an account may keep when its login says nothing: what the model says.
_QUOTA: int = Account.quota


class Accounts:
    """The accounts of the facility."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enter(self, identity: Identity, *, uid_min: int) -> Account:
        """Gives the account of an identity, made at its first login with the next free uid from `uid_min` on.

        Name, mail and roles follow the login; user name and uid never change. Raises Refused ("username-taken") when
        another identity owns the user name.
        """
        now = datetime.now(UTC)
        known = (identities.c.issuer == identity.issuer, identities.c.subject == identity.subject)
        with self._database.write() as connection:
            # Two first logins at once must not take one uid.
            self._database.lock(connection, LOCK_ACCOUNTS)
            account_id = connection.scalar(select(identities.c.account_id).where(*known))
            if account_id is None:
                account_id = _make(connection, identity, uid_min, now)
            else:
                connection.execute(update(accounts).where(accounts.c.id == account_id).values(_follows(identity, now)))
            row = connection.execute(select(accounts).where(accounts.c.id == account_id)).one()
        return _account(row)

    def get(self, account_id: int) -> Account | None:
        if not 0 < account_id <= LARGEST:
            return None
        with self._database.read() as connection:
            row = connection.execute(select(accounts).where(accounts.c.id == account_id)).one_or_none()
        return None if row is None else _account(row)

    def named(self, username: str) -> Account | None:
        with self._database.read() as connection:
            row = connection.execute(select(accounts).where(accounts.c.username == username)).one_or_none()
        return None if row is None else _account(row)

    def all(self) -> list[Account]:
        with self._database.read() as connection:
            return [_account(row) for row in connection.execute(select(accounts).order_by(accounts.c.username))]


def _make(connection: Connection, identity: Identity, uid_min: int, now: datetime) -> int:
    if connection.scalar(select(accounts.c.id).where(accounts.c.username == identity.username)) is not None:
        raise Refused(
            f"The user name {identity.username} belongs to another account. Ask support to link the two logins.",
            rule="username-taken",
            status=409,
        )
    highest = connection.scalar(select(func.max(accounts.c.uid)))
    uid = max(uid_min, (highest or 0) + 1)
    row = {"username": identity.username, "uid": uid, "gid": uid, "created": now, "quota": _QUOTA}
    question = insert(accounts).values(row | _follows(identity, now)).returning(accounts.c.id)
    account_id: int = connection.execute(question).scalar_one()
    connection.execute(
        insert(identities).values(issuer=identity.issuer, subject=identity.subject, account_id=account_id, created=now)
    )
    return account_id


def _follows(identity: Identity, now: datetime) -> dict[str, Any]:
    """What of an account follows each login."""
    values: dict[str, Any] = {
        "display_name": identity.display_name,
        "email": identity.email,
        "roles": sorted(role.value for role in identity.roles),
        "groups": sorted(identity.groups),
        "instruments": sorted(identity.instruments),
        "seen": now,
    }
    if identity.quota is not None:
        values["quota"] = identity.quota
    return values


def _account(row: Row[Any]) -> Account:
    return Account(
        id=row.id,
        username=row.username,
        uid=row.uid,
        gid=row.gid,
        display_name=row.display_name,
        email=row.email,
        roles=frozenset(Role(role) for role in row.roles),
        groups=frozenset(row.groups),
        instruments=frozenset(row.instruments),
        quota=row.quota,
    )
