"""Rows of the instances' table for all who ask at the same moment, by one question; used by polls and by the start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from ..model.instance import Instance
from ..store.database import ask

_Rows = Mapping[str, Instance]


class Together:
    """Gives rows by attempt. A thousand spawners that are polled at once are a thousand callers and one question."""

    def __init__(self, read: Callable[[Iterable[str]], _Rows]) -> None:
        """`read` is `Instances.by_attempts`."""
        self._read = read
        self._wanted: set[str] = set()
        self._next: asyncio.Task[_Rows] | None = None

    async def row(self, attempt: str) -> Instance | None:
        """Gives the row that carries an attempt now, None when none does; the question begins after this call.

        Raises Unavailable when the database does not answer.
        """
        self._wanted.add(attempt)
        if self._next is None:
            self._next = asyncio.create_task(self._ask())
            # Who asked may have gone meanwhile.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        return (await asyncio.shield(self._next)).get(attempt)

    async def _ask(self) -> _Rows:
        # The Hub begins all its polls in one turn of the loop; a few more may have come in the turn after.
        await asyncio.sleep(0)
        wanted, self._wanted, self._next = self._wanted, set(), None
        return await ask(self._read, wanted)
