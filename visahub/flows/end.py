"""An instance is stopped or deleted: the wish first, then the place, then what is; called by `hub/spawner.py`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from ..backends.base import Backend
from ..model.errors import Failed, Refused
from ..model.instance import Instance, Phase, Want
from ..store.database import Store
from .patience import patiently

Clock = Callable[[], datetime]

# When a page says that it takes longer than usual. Nothing gives up then: the reconciliation repeats it until done.
END_SECONDS = 120


async def stop(store: Store, backend: Backend, instance_id: str, clock: Clock) -> None:
    """Stops an instance and keeps its row and files; right in every phase and when called twice.

    The wish is committed first: when the place cannot be asked, Unavailable is raised and the reconciliation goes on.
    Raises Failed when the place says that it cannot; the row then says so, too.
    """
    row = await patiently(store.instances.wish, instance_id, Want.OFF, clock())
    if row.phase in {Phase.STOPPED, Phase.DELETING, Phase.GONE}:
        return
    await finish_stop(store, backend, row, clock)


async def delete(store: Store, backend: Backend, instance_id: str, clock: Clock) -> None:
    """Deletes an instance for ever; right in every phase and when called twice. Raises as `stop` does."""
    row = await patiently(store.instances.wish, instance_id, Want.GONE, clock())
    if row.phase is not Phase.GONE:
        await finish_delete(store, backend, row, clock)


async def finish_stop(store: Store, backend: Backend, row: Instance, clock: Clock) -> None:
    """Stops what a row points to and moves it to stopped; the sentence of an earlier failure stays to be read."""
    sentence = row.sentence if row.phase is Phase.ERROR else ""
    if not await _begin(store, row, Phase.STOPPING, sentence, clock):
        return
    try:
        await backend.stop(row.attempt, row.state)
    except Failed as error:
        await _say(store, row, error, clock)
        raise
    with suppress(Refused):
        await patiently(
            store.instances.move, row.id, Phase.STOPPED, clock(), attempt=row.attempt, sentence=sentence, address=""
        )


async def finish_delete(store: Store, backend: Backend, row: Instance, clock: Clock) -> None:
    """Deletes what a row points to and moves it to gone; an error stays one until the deletion worked."""
    if row.phase is not Phase.ERROR and not await _begin(store, row, Phase.DELETING, "", clock):
        return
    try:
        await backend.delete(row.attempt, row.state)
    except Failed as error:
        await _say(store, row, error, clock)
        raise
    with suppress(Refused):
        await patiently(store.instances.move, row.id, Phase.GONE, clock(), attempt=row.attempt, address="")


async def _begin(store: Store, row: Instance, phase: Phase, sentence: str, clock: Clock) -> bool:
    """Moves a row to a waiting phase; False when somebody else has ended it or started it again meanwhile."""
    if row.phase is phase:
        return True
    now = clock()
    deadline = now + timedelta(seconds=END_SECONDS)
    try:
        await patiently(
            store.instances.move, row.id, phase, now, attempt=row.attempt, sentence=sentence, deadline=deadline
        )
    except Refused:
        return False
    return True


async def _say(store: Store, row: Instance, error: Failed, clock: Clock) -> None:
    """Keeps the backend's sentence with the row; said twice, it leaves one event."""
    with suppress(Refused):
        await patiently(
            store.instances.move, row.id, Phase.ERROR, clock(), attempt=row.attempt, sentence=error.sentence
        )
