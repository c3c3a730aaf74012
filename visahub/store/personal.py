"""What is stored about a person: told, erased, and forgotten when its time is over; called by `flows/privacy.py`."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, literal_column, select, update

from ..model.errors import Refused
from ..model.instance import Phase
from .engine import Database
from .experiments import take_name_out
from .tables import accounts, events, identities, instances, members, preferences

# Rows that one transaction removes at most, so that nobody waits for it.
_AT_ONCE = 500


class Personal:
    """The rows of one account in all tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def export(self, account_id: int) -> dict[str, Any]:
        """Gives everything that the tables hold about an account, as JSON; {} for no account."""
        with self._database.read() as connection:
            account = connection.execute(select(accounts).where(accounts.c.id == account_id)).one_or_none()
            if account is None:
                return {}
            mine = select(identities).where(identities.c.account_id == account_id)
            teams = select(members).where(members.c.username == account.username)
            runs = select(instances).where(instances.c.owner_id == account_id).order_by(instances.c.created)
            said = select(events).where(events.c.instance_id.in_(_ids(account_id))).order_by(events.c.id)
            kept = select(preferences).where(preferences.c.account_id == account_id)
            return {
                "account": _plain(account),
                "identities": [_plain(row) for row in connection.execute(mine)],
                "preferences": [_plain(row) for row in connection.execute(kept)],
                "members": [_plain(row) for row in connection.execute(teams)],
                "instances": [_plain(row) for row in connection.execute(runs)],
                "instance_events": [_plain(row) for row in connection.execute(said)],
            }

    def erase(self, account_id: int, *, is_dry: bool) -> dict[str, int]:
        """Takes a person out of all tables and tells the number of rows, by table; a dry run only counts.

        User name and uid stay, so that neither is ever given again; instances and events stay without words of the
        person. Raises Refused ("instances-exist") while an instance is not deleted, and then changes nothing.
        """
        with self._database.write() as connection:
            if self._database.is_sqlite:
                # What is removed is overwritten in the file, too.
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            account = connection.execute(select(accounts).where(accounts.c.id == account_id).with_for_update()).one()
            _check_nothing_exists(connection, account)
            counts = _counts(connection, account)
            if not is_dry:
                _erase(connection, account)
        if not is_dry and self._database.is_sqlite:
            with self._database.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return counts

    def forget_events(self, before: datetime) -> int:
        """Removes events that are older, at most some hundred of them; those of a living instance's present start stay.

        Tells how many; 0 when there are no more.
        """
        current = select(instances.c.attempt).where(instances.c.phase != literal_column("'gone'"))
        old = select(events.c.id).where(events.c.at < before, events.c.attempt.not_in(current)).limit(_AT_ONCE)
        with self._database.write() as connection:
            return connection.execute(delete(events).where(events.c.id.in_(list(connection.scalars(old))))).rowcount

    def forget_instances(self, before: datetime) -> int:
        """Removes instances that were deleted before then, with their events; tells how many, 0 for no more."""
        old = select(instances.c.id).where(instances.c.phase == Phase.GONE.value, instances.c.changed < before)
        with self._database.write() as connection:
            ids = list(connection.scalars(old.limit(_AT_ONCE)))
            connection.execute(delete(events).where(events.c.instance_id.in_(ids)))
            return connection.execute(delete(instances).where(instances.c.id.in_(ids))).rowcount

    def newest(self) -> datetime | None:
        """Gives the time of the newest event, which no wrong clock of today can have made."""
        with self._database.read() as connection:
            newest: datetime | None = connection.scalar(select(events.c.at).order_by(events.c.id.desc()).limit(1))
        return newest


def _ids(account_id: int) -> Select[Any]:
    return select(instances.c.id).where(instances.c.owner_id == account_id)


def _plain(row: Row[Any]) -> dict[str, Any]:
    return {
        key: value.isoformat() if isinstance(value, datetime | date) else value for key, value in row._mapping.items()
    }


def _check_nothing_exists(connection: Connection, account: Row[Any]) -> None:
    living = (instances.c.owner_id == account.id, instances.c.phase != literal_column("'gone'"))
    names = list(connection.scalars(select(instances.c.id).where(*living)))
    if names:
        raise Refused(
            f"{account.username} still has {len(names)} instance{'' if len(names) == 1 else 's'}, running or stopped "
            f"({', '.join(names[:5])}). Delete them first; nothing was erased.",
            rule="instances-exist",
            status=409,
        )


def _counts(connection: Connection, account: Row[Any]) -> dict[str, int]:
    questions = {
        "identities": select(func.count()).where(identities.c.account_id == account.id),
        "preferences": select(func.count()).where(preferences.c.account_id == account.id),
        "members": select(func.count()).where(members.c.username == account.username),
        "instances": select(func.count()).where(instances.c.owner_id == account.id),
        "instance_events": select(func.count()).where(events.c.instance_id.in_(_ids(account.id))),
    }
    return {name: connection.scalar(question) or 0 for name, question in questions.items()}


def _erase(connection: Connection, account: Row[Any]) -> None:
    empty = {"display_name": "", "email": "", "roles": [], "groups": [], "instruments": [], "quota": 0}
    connection.execute(delete(identities).where(identities.c.account_id == account.id))
    connection.execute(delete(preferences).where(preferences.c.account_id == account.id))
    take_name_out(connection, account.username)
    connection.execute(update(accounts).where(accounts.c.id == account.id).values(empty))
    for row in connection.execute(select(instances).where(instances.c.owner_id == account.id)).all():
        request = {key: value for key, value in row.request.items() if key not in {"name", "notes"}}
        words = {"request": request, "state": {}, "sentence": "", "address": ""}
        connection.execute(update(instances).where(instances.c.id == row.id).values(words))
    # Texts hold the names that the person gave to instances, and ends of logs; kinds, steps and times are kept.
    connection.execute(update(events).where(events.c.instance_id.in_(_ids(account.id))).values(text=""))
