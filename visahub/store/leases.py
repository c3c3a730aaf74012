"""The row that says which Hub works on this database; taken and renewed by `hub/lease.py`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, literal_column, select, update

from ..model.errors import Refused
from ..model.lease import Holder, Lease, refusal
from .engine import LOCK_LEASES, Database
from .tables import instances, leases

_HUB = "hub"


class Leases:
    """One row at most."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, mine: Holder, now: datetime, is_alive: Callable[[Holder], bool]) -> Lease | None:
        """Makes a Hub the one that works here and gives the lease before it, None when there was none.

        `is_alive` is asked only about processes of the same machine. Raises Refused ("two-hubs") with the reason.
        """
        with self._database.write() as connection:
            self._database.lock(connection, LOCK_LEASES)
            old = _now_held(connection)
            now = self._time(connection, now)
            is_here = old is not None and not old.holder.is_free and old.holder.machine == mine.machine
            alive = old is not None and is_here and is_alive(old.holder)
            living = connection.scalar(
                select(func.count()).select_from(instances).where(instances.c.phase != literal_column("'gone'"))
            )
            sentence = refusal(old, mine, now, is_alive=alive, has_instances=bool(living))
            if sentence:
                raise Refused(sentence, rule="two-hubs", status=409)
            connection.execute(delete(leases))
            connection.execute(insert(leases).values(name=_HUB, taken=now, renewed=now, **_columns(mine)))
        return old

    def renew(self, mine: Holder, now: datetime) -> bool:
        """Says that a Hub goes on; False when another one works here now."""
        with self._database.write() as connection:
            renewed = self._time(connection, now)
            return connection.execute(update(leases).where(_is(mine)).values(renewed=renewed)).rowcount == 1

    def release(self, mine: Holder, now: datetime) -> None:
        """Gives the database free; right when somebody else has it. The row still tells whose it is, and until when."""
        with self._database.write() as connection:
            now = self._time(connection, now)
            connection.execute(update(leases).where(_is(mine)).values(pid=0, born="", renewed=now))

    def held(self) -> Lease | None:
        """Gives the lease as it is, of a dead Hub too; None when it was given free."""
        with self._database.read() as connection:
            lease = _now_held(connection)
        return None if lease is None or lease.holder.is_free else lease

    def _time(self, connection: Connection, now: datetime) -> datetime:
        """Gives the server's time: two machines that share a database may disagree about the time of day."""
        if self._database.is_sqlite:
            return now
        at: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return at


def _now_held(connection: Connection) -> Lease | None:
    row: Row[Any] | None = connection.execute(select(leases)).one_or_none()
    if row is None:
        return None
    holder = Holder(deployment=row.deployment, host=row.host, machine=row.machine, pid=row.pid, born=row.born)
    return Lease(holder=holder, taken=row.taken, renewed=row.renewed)


def _columns(holder: Holder) -> dict[str, Any]:
    return {name: getattr(holder, name) for name in ("deployment", "host", "machine", "pid", "born")}


def _is(holder: Holder) -> ColumnElement[bool]:
    return and_(*(leases.c[name] == value for name, value in _columns(holder).items()))
