"""What a database that came from a copy lacks: rows of what runs, and the tokens that the Hub's copy lacks."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, insert, select

from ..model.account import Account
from ..model.errors import Refused
from ..model.instance import Instance, Phase, Want
from ..model.launch import Condition
from ..model.request import StartRequest
from . import admission, events
from .engine import Database
from .tables import instances, tokens


class Strays:
    """Keeps what makes it possible to take up again what an older copy does not know."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep_token(self, attempt: str, sealed: str) -> None:
        """Keeps the sealed token of an attempt; those of what no longer runs go."""
        over = [phase.value for phase in (Phase.STOPPED, Phase.ERROR, Phase.GONE)]
        running = select(instances.c.attempt).where(instances.c.phase.not_in(over))
        with self._database.write() as connection:
            connection.execute(delete(tokens).where(tokens.c.attempt.not_in(running) | (tokens.c.attempt == attempt)))
            connection.execute(insert(tokens).values(attempt=attempt, sealed=sealed))

    def token(self, attempt: str) -> str:
        """Gives the sealed token of an attempt, '' when it was never kept."""
        with self._database.read() as connection:
            return connection.scalar(select(tokens.c.sealed).where(tokens.c.attempt == attempt)) or ""

    def adopt(
        self,
        account: Account,
        server_name: str,
        request: StartRequest,
        backend: str,
        attempt: str,
        condition: Condition,
        now: datetime,
    ) -> Instance:
        """Writes the row of something that runs and that no row knows; raises Refused ("known") when one does.

        The quota is not asked: it runs already.
        """
        with self._database.write() as connection:
            if events.attempts_known(connection, [attempt]):
                raise Refused("That attempt belongs to an instance here already.", rule="known", status=409)
            living = (instances.c.owner_id == account.id, instances.c.server_name == server_name)
            if connection.scalar(select(instances.c.id).where(*living, instances.c.phase != Phase.GONE)) is not None:
                raise Refused(
                    f"{account.username} has an instance {server_name} already. Give this one another name.",
                    rule="name-taken",
                    status=409,
                )
            made = Instance(
                id=admission.free_id(connection, server_name),
                owner_id=account.id,
                owner=account.username,
                server_name=server_name,
                request=request,
                want=Want.ON,
                phase=Phase.READY,
                attempt=attempt,
                backend=backend,
                state=condition.state,
                address=condition.address,
                created=now,
                changed=now,
                started=now,
                ready=now,
            )
            connection.execute(insert(instances).values(admission.columns(made)))
            events.add(self._database, connection, made, now, "ready", text="Taken up again by an operator")
        return made
