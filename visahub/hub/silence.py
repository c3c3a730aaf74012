"""Notices ready instances that do not answer, and says so; ends nothing. Asked by the rounds, a few at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from jupyterhub.httpclient import fetch

from ..model.instance import Instance
from ..store.database import Store, ask

log = logging.getLogger("jupyterhub.visahub")

SENTENCE = (
    "It does not answer. It may be busy or its machine may be overloaded: wait a moment, or restart it. Nothing of it "
    "was deleted."
)
_ANSWER_SECONDS = 8.0
# One that answered is asked again after so long; one that did not, in the next round.
_PERIOD_SECONDS = 20.0
# So many are asked in one round at most, those first that were not asked for longest.
_AT_ONCE = 12
# An answer may be late once: the garbage collector of a server with many notebooks takes seconds.
_MISSES = 2


class Silence:
    """Which instances have not answered; in memory, since the next Hub finds it out as fast."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        # By attempt: when it was asked, and how often it has not answered since its last answer.
        self._asked: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def look(self, rows: Iterable[Instance], addresses: Mapping[str, str]) -> None:
        """Begins to ask, unless the last look still waits for answers; `addresses` are by attempt."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look({row.attempt: row for row in rows}, addresses))

    async def _look(self, rows: Mapping[str, Instance], addresses: Mapping[str, str]) -> None:
        for known in (self._asked, self._misses):
            for attempt in known.keys() - addresses.keys():
                del known[attempt]
        due = sorted((attempt for attempt in addresses if self._is_due(rows[attempt])), key=self._last)
        await asyncio.gather(*(self._look_at(rows[attempt], addresses[attempt]) for attempt in due[:_AT_ONCE]))

    def _last(self, attempt: str) -> float:
        return self._asked.get(attempt, float("-inf"))

    def _is_due(self, row: Instance) -> bool:
        is_silent = bool(row.sentence or self._misses.get(row.attempt))
        return is_silent or time.monotonic() - self._last(row.attempt) > _PERIOD_SECONDS

    async def _look_at(self, row: Instance, address: str) -> None:
        self._asked[row.attempt] = time.monotonic()
        if await answers(address):
            self._misses.pop(row.attempt, None)
            sentence = ""
        else:
            misses = self._misses[row.attempt] = self._misses.get(row.attempt, 0) + 1
            if misses < _MISSES:
                return
            sentence = SENTENCE
        if sentence == row.sentence:
            return
        log.warning("%s %s", row.id, "does not answer" if sentence else "answers again")
        try:
            await ask(self._store.instances.remark, row.id, row.attempt, sentence, self._clock())
        except Exception as error:
            # The next round says it.
            log.warning("%s: %s", row.id, error)


async def answers(address: str) -> bool:
    """Tells whether anything answers under an address; what it answers does not matter."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            response = await fetch(address, raise_for_status=False, allow_redirects=False)
            await response.read()
    except Exception as error:
        # aiohttp has many errors, and each of them means no answer.
        log.debug("%s: %r", address, error)
        return False
    return True
