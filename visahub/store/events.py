"""What happened to each instance: only ever added to, so that the events of a row tell how it became what it is."""

from __future__ import annotations

from datetime import datetime
from statistics import median
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from ..model.instance import Event, Instance, Phase
from ..model.launch import Step
from .engine import LOCK_EVENTS, Database
from .tables import LARGEST, events

_USUAL_STARTS = 50
# What an event is called that a move to this phase leaves behind.
KINDS = {
    Phase.STARTING: "starting",
    Phase.READY: "ready",
    Phase.STOPPING: "stopping",
    Phase.STOPPED: "stopped",
    Phase.ERROR: "error",
    Phase.DELETING: "deleting",
    Phase.GONE: "deleted",
}
_PHASES = {kind: phase for phase, kind in KINDS.items()} | {"step": Phase.STARTING}


def replay(history: list[Event]) -> Phase | None:
    """Tells the phase that an instance's events lead to, None when there are none; the row says the same."""
    phases = [_PHASES[event.kind] for event in history if event.kind in _PHASES]
    return phases[-1] if phases else None


def add(
    database: Database,
    connection: Connection,
    instance: Instance,
    now: datetime,
    kind: str,
    *,
    text: str,
    key: str = "",
    step: Step | None = None,
) -> None:
    """Adds an event as the last thing of a transaction, so that ids become visible in their order.

    Somebody who looks for ids higher than the last seen would miss a lower one that is committed later.
    """
    database.lock(connection, LOCK_EVENTS)
    connection.execute(
        insert(events).values(
            instance_id=instance.id,
            attempt=instance.attempt,
            backend=instance.backend,
            at=now,
            kind=kind,
            key=step.key if step else key,
            text=text,
            percent=step.percent if step else None,
        )
    )


def close_step(connection: Connection, attempt: str, now: datetime) -> None:
    """Writes how long the step took that lasts until now."""
    steps = (events.c.attempt == attempt, events.c.kind == "step")
    last = connection.execute(
        select(events.c.id, events.c.at, events.c.seconds).where(*steps).order_by(events.c.id.desc()).limit(1)
    ).one_or_none()
    if last is not None and last.seconds is None:
        seconds = max(0.0, (now - last.at).total_seconds())
        connection.execute(update(events).where(events.c.id == last.id).values(seconds=seconds))


def of_instance(connection: Connection, instance_id: str, after: int) -> list[Event]:
    """Gives an instance's events in order, those after one id."""
    columns = [column for column in events.c if column.name != "backend"]
    question = (
        select(*columns)
        .where(events.c.instance_id == instance_id, events.c.id > max(0, min(after, LARGEST)))
        .order_by(events.c.id)
    )
    return [Event(**row._mapping) for row in connection.execute(question)]


def last_id(connection: Connection) -> int:
    """Gives the highest id of all events."""
    return connection.scalar(select(func.max(events.c.id))) or 0


def attempts_known(connection: Connection, attempts: list[str]) -> set[str]:
    """Gives those attempts that any instance has or once had."""
    return set(connection.scalars(select(events.c.attempt).where(events.c.attempt.in_(attempts)).distinct()))


def usual_seconds(connection: Connection, backend: str) -> dict[str, float]:
    """Gives the median seconds of each step over the last successful starts on a backend, in the order of the steps."""
    started: Any = (
        select(events.c.attempt)
        .where(events.c.backend == backend, events.c.kind == "ready")
        .order_by(events.c.id.desc())
        .limit(_USUAL_STARTS)
    )
    attempts = list(connection.scalars(started))
    question = (
        select(events.c.key, events.c.seconds)
        .where(events.c.attempt.in_(attempts), events.c.kind == "step", events.c.seconds.is_not(None))
        .order_by(events.c.id)
    )
    seconds: dict[str, list[float]] = {}
    for row in connection.execute(question):
        seconds.setdefault(row.key, []).append(row.seconds)
    return {key: round(median(values), 2) for key, values in seconds.items()}
