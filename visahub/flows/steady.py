"""The time by which deadlines are judged: it refuses jumps until a round has moved every deadline along; for `hub/`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from ..model.jumps import Reading, jump
from ..store.database import Store, ask

log = logging.getLogger(__name__)


class SteadyClock:
    """Tells the time of day, except that a clock which is set by more than an hour is not followed at once.

    Otherwise a host whose clock is wrong after a restart, by 40 days say, would end every start that is under way.
    """

    def __init__(self, wall: Callable[[], datetime], ticks: Callable[[], float]) -> None:
        self._wall, self._ticks = wall, ticks
        self._last = self._read()

    def __call__(self) -> datetime:
        reading = self._read()
        if not jump(self._last, reading):
            self._last = reading
            return reading.at
        return self._last.at + timedelta(seconds=reading.ticks - self._last.ticks)

    @property
    def jumped(self) -> timedelta:
        """How far the time of day is from what this clock tells; zero as long as it is followed."""
        return jump(self._last, self._read())

    def accept(self) -> None:
        """Follows the time of day from now on, wherever it is."""
        self._last = self._read()

    def _read(self) -> Reading:
        return Reading(self._wall(), self._ticks())


async def follow(store: Store, clock: SteadyClock) -> timedelta:
    """Follows a clock that was set, after whatever waits got as much time as it had left; tells how far it was set.

    Raises Unavailable, and follows later, when the database is away.
    """
    jumped = clock.jumped
    if jumped:
        moved = await ask(store.instances.shift, jumped)
        clock.accept()
        log.warning(
            "The clock of this machine was set by %s; %s deadlines move along and nothing is late", jumped, moved
        )
    return jumped
