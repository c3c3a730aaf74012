"""The table that is the truth about what runs; every change is one transaction with its event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, literal_column, or_, select, update

from ..model.account import Account
from ..model.errors import Refused
from ..model.instance import Event, Instance, Phase, Want
from ..model.launch import Step
from ..model.request import StartRequest
from . import admission, events
from .engine import Database
from .tables import accounts, instances

_LONGEST_NOTE = 20_000
_CHUNK = 500
# What waits has a deadline, even if nobody named one: nothing may wait for ever.
_WAIT = timedelta(minutes=10)
# What a wish may become: never back from gone, and on only by `admit`.
_WISHES = {Want.ON: {Want.ON, Want.OFF, Want.GONE}, Want.OFF: {Want.OFF, Want.GONE}, Want.GONE: {Want.GONE}}
_WISHED = {Want.OFF: "stop", Want.GONE: "deletion"}
# What `move` may set besides the phase.
_SETTABLE = frozenset({"address", "deadline", "last_activity", "last_input", "ready", "state", "stopped", "want"})


class Instances:
    """The instances and their events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def admit(
        self,
        *,
        account: Account,
        server_name: str,
        request: StartRequest,
        backend: str,
        now: datetime,
        deadline: datetime,
    ) -> Instance:
        """Writes what is wanted, with a fresh attempt, before any backend is asked.

        A stopped instance starts again with its record; a new one counts against the quota, within this transaction.
        Raises Refused ("already", "quota", "pending-approval") and then changes nothing.
        """
        with self._database.write() as connection:
            # On PostgreSQL this orders two starts of one account; SQLite has one writer anyway.
            connection.execute(select(accounts.c.id).where(accounts.c.id == account.id).with_for_update())
            row = connection.execute(_living(account.id, server_name)).one_or_none()
            if row is None:
                made = admission.first(connection, account, server_name, request, backend, now, deadline)
                connection.execute(insert(instances).values(admission.columns(made)))
            else:
                made = admission.again(_instance(row), request, backend, now, deadline)
                _save(connection, made)
            events.add(self._database, connection, made, now, "starting", text="The choice is allowed")
        return made

    def get(self, instance_id: str) -> Instance | None:
        """Gives an instance, a gone one too."""
        return self._first(_all().where(instances.c.id == instance_id))

    def named(self, owner_id: int, server_name: str) -> Instance | None:
        """Gives the living instance behind a Hub server."""
        return self._first(_living(owner_id, server_name))

    def of_owner(self, owner_id: int) -> list[Instance]:
        """Gives an account's instances that are not gone, newest first."""
        mine = instances.c.owner_id == owner_id
        return self._all(_all().where(mine, _alive()).order_by(instances.c.created.desc(), instances.c.id))

    def live(self) -> list[Instance]:
        """Gives every instance that is not gone, oldest first."""
        return self._all(_all().where(_alive()).order_by(instances.c.created, instances.c.id))

    def by_attempts(self, attempts: Iterable[str]) -> dict[str, Instance]:
        """Gives the instances, gone ones too, that carry these attempts now, by attempt."""
        found: dict[str, Instance] = {}
        for some in _chunks(attempts):
            for instance in self._all(_all().where(instances.c.attempt.in_(some))):
                found[instance.attempt] = instance
        return found

    def known_attempts(self, attempts: Iterable[str]) -> set[str]:
        """Gives those attempts that any row has or once had."""
        known: set[str] = set()
        with self._database.read() as connection:
            for some in _chunks(attempts):
                known |= events.attempts_known(connection, some)
        return known

    def step(self, instance_id: str, attempt: str, step: Step, now: datetime) -> None:
        """Saves one step of a start; raises Refused ("superseded") when this start is no longer the wanted one."""
        with self._database.write() as connection:
            old = _locked(connection, instance_id)
            if old.attempt != attempt or old.want is not Want.ON or old.phase is not Phase.STARTING:
                raise _superseded()
            state = old.state if step.state is None else step.state
            _save(connection, replace(old, changed=now, state=state, address=step.address or old.address))
            events.close_step(connection, attempt, now)
            events.add(self._database, connection, old, now, "step", text=step.text, step=step)

    def move(
        self,
        instance_id: str,
        phase: Phase,
        now: datetime,
        *,
        attempt: str | None = None,
        sentence: str = "",
        **columns: Any,
    ) -> Instance:
        """Moves an instance to another phase and leaves an event; a move that changes nothing leaves none.

        Raises Refused for a move that is not allowed ("move"), or, with `attempt`, when the row no longer carries it
        ("superseded"). `columns` are more fields of Instance. A phase that waits gets a deadline, others lose it.
        """
        if not columns.keys() <= _SETTABLE:
            raise TypeError(f"a move cannot set {sorted(columns.keys() - _SETTABLE)}")
        with self._database.write() as connection:
            old = _locked(connection, instance_id)
            if attempt is not None and old.attempt != attempt:
                raise _superseded()
            if "want" in columns and columns["want"] not in _WISHES[old.want]:
                columns["want"] = old.want
            new = old.moved(phase, now, sentence=sentence, **(_usual_columns(old, phase, now) | columns))
            if new == replace(old, changed=now):
                return old
            _save(connection, new)
            events.close_step(connection, old.attempt, now)
            if phase is not old.phase or sentence != old.sentence:
                events.add(self._database, connection, new, now, events.KINDS[phase], text=sentence)
        return new

    def wish(self, instance_id: str, want: Want, now: datetime) -> Instance:
        """Writes what the owner wants, with an event; a weaker wish than the present one changes nothing."""
        with self._database.write() as connection:
            old = _locked(connection, instance_id)
            if want is old.want or want not in _WISHES[old.want]:
                return old
            new = replace(old, want=want, changed=now)
            _save(connection, new)
            events.add(self._database, connection, new, now, "wished", text=_WISHED[want], key=want.value)
        return new

    def remark(self, instance_id: str, attempt: str, sentence: str, now: datetime) -> None:
        """Says something of an attempt that is ready, or takes it back with ''; nothing else of its row changes."""
        with self._database.write() as connection:
            old = _locked(connection, instance_id)
            if old.attempt != attempt or old.phase is not Phase.READY or old.sentence == sentence:
                return
            new = replace(old, sentence=sentence)
            _save(connection, new)
            events.add(self._database, connection, new, now, "remark", text=sentence or "It answers again.")

    def note(self, instance_id: str, text: str, now: datetime) -> None:
        """Keeps a text, such as the last lines of a log, with the events; the end of it when it is long."""
        with self._database.write() as connection:
            instance = _locked(connection, instance_id)
            events.add(self._database, connection, instance, now, "note", text=text[-_LONGEST_NOTE:])

    def touch(
        self, instance_id: str, *, last_activity: datetime | None = None, last_input: datetime | None = None
    ) -> None:
        """Keeps the newer of the known and the given times of work; an absent instance is not an error."""
        given = {instances.c.last_activity: last_activity, instances.c.last_input: last_input}
        with self._database.write() as connection:
            for column, at in given.items():
                if at is not None:
                    older = or_(column.is_(None), column < at)
                    connection.execute(
                        update(instances).where(instances.c.id == instance_id, older).values({column: at})
                    )

    def shift(self, by: timedelta) -> int:
        """Moves the deadline of everything that waits, since the clock was set; tells how many."""
        waiting = [phase.value for phase in Phase if phase.is_waiting]
        due = (instances.c.phase.in_(waiting), instances.c.deadline.is_not(None))
        with self._database.write() as connection:
            rows = [_instance(row) for row in connection.execute(_all().where(*due).with_for_update(of=instances))]
            for row in rows:
                # How long a start may take is told from both.
                times = {name: at + by for name in ("started", "deadline") if (at := getattr(row, name)) is not None}
                connection.execute(update(instances).where(instances.c.id == row.id).values(times))
        return len(rows)

    def rename(self, instance_id: str, name: str, notes: str, now: datetime) -> Instance:
        """Gives an instance another name and other notes, which `StartRequest.read` has checked."""
        with self._database.write() as connection:
            old = _locked(connection, instance_id)
            request = replace(old.request, name=name or old.request.name, notes=notes)
            if request == old.request:
                return old
            new = replace(old, request=request, changed=now)
            _save(connection, new)
            events.add(self._database, connection, new, now, "renamed", text=f"Now called {new.name}")
        return new

    def events(self, instance_id: str, after: int = 0) -> list[Event]:
        """Gives an instance's events in order, those after one id."""
        with self._database.read() as connection:
            return events.of_instance(connection, instance_id, after)

    def last_event(self) -> int:
        """Gives the highest event id: one cheap look tells whether anything happened."""
        with self._database.read() as connection:
            return events.last_id(connection)

    def usual_seconds(self, backend: str) -> dict[str, float]:
        """Gives the median seconds of each step over the last 50 successful starts on a backend."""
        with self._database.read() as connection:
            return events.usual_seconds(connection, backend)

    def counts(self) -> dict[tuple[str, str], int]:
        """Gives the number of instances by backend and phase, gone ones left out."""
        with self._database.read() as connection:
            question = select(instances.c.backend, instances.c.phase, func.count()).where(_alive())
            rows = connection.execute(question.group_by(instances.c.backend, instances.c.phase))
            return {(row[0], row[1]): row[2] for row in rows}

    def _first(self, question: Select[Any]) -> Instance | None:
        with self._database.read() as connection:
            row = connection.execute(question).one_or_none()
        return None if row is None else _instance(row)

    def _all(self, question: Select[Any]) -> list[Instance]:
        with self._database.read() as connection:
            return [_instance(row) for row in connection.execute(question)]


def _all() -> Select[Any]:
    owner = accounts.c.username.label("owner")
    return select(instances, owner).join(accounts, accounts.c.id == instances.c.owner_id)


def _alive() -> ColumnElement[bool]:
    # Written out, not as a parameter: only so do both databases take the indexes over the living ones.
    return instances.c.phase != literal_column("'gone'")


def _living(owner_id: int, server_name: str) -> Select[Any]:
    return _all().where(instances.c.owner_id == owner_id, instances.c.server_name == server_name, _alive())


def _locked(connection: Connection, instance_id: str) -> Instance:
    """Gives an instance that nobody else changes until the end of the transaction."""
    question = _all().where(instances.c.id == instance_id).with_for_update(of=instances)
    row = connection.execute(question).one_or_none()
    if row is None:
        raise Refused("There is no such instance. Reload the page.", rule="absent", status=404)
    return _instance(row)


def _instance(row: Row[Any]) -> Instance:
    values: dict[str, Any] = dict(row._mapping)
    values["request"] = _request(values["request"])
    values["want"] = Want(values["want"])
    values["phase"] = Phase(values["phase"])
    return Instance(**values)


def _request(options: dict[str, Any]) -> StartRequest:
    """Reads back what was checked when it was written: a rule that became stricter must not hide what runs."""
    known = {name: value for name, value in options.items() if name in _REQUEST_FIELDS}
    return StartRequest(**known | {"experiments": tuple(known.get("experiments", ()))})


_REQUEST_FIELDS = frozenset(field.name for field in fields(StartRequest))


def _save(connection: Connection, instance: Instance) -> None:
    connection.execute(update(instances).where(instances.c.id == instance.id).values(admission.columns(instance)))


def _usual_columns(old: Instance, phase: Phase, now: datetime) -> dict[str, Any]:
    """What a move to a phase means for the other columns, unless its caller says otherwise."""
    if phase is old.phase:
        return {}
    usual: dict[str, Any] = {"deadline": now + _WAIT if phase.is_waiting else None}
    if phase is Phase.READY:
        usual["ready"] = now
    if phase in {Phase.STOPPED, Phase.ERROR}:
        usual["stopped"] = now
    if phase in {Phase.STOPPED, Phase.ERROR, Phase.GONE}:
        usual["address"] = ""
    return usual


def _superseded() -> Refused:
    return Refused(
        "This start was replaced by another wish for the same instance. Reload the page to see its state.",
        rule="superseded",
        status=409,
    )


def _chunks(attempts: Iterable[str]) -> list[list[str]]:
    every = list(dict.fromkeys(attempts))
    return [every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK)]
