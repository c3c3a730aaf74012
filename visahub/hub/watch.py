"""One look per backend and interval, shared by all polls of the Hub; never raises."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..backends.base import Backend
from ..model.errors import Unavailable
from ..model.launch import Condition, Look
from . import metrics

log = logging.getLogger("jupyterhub.visahub")

_FRESH_SECONDS = 5
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """What a look said about one attempt: `known` is False when the backend could not be asked."""

    known: bool
    condition: Condition | None = None


@dataclass(frozen=True)
class _Glance:
    began: datetime
    look: Look | None


class Watch:
    """Answers "what does the backend see of this attempt?" for any number of callers with one question."""

    def __init__(self, backends: Mapping[str, Backend], clock: Callable[[], datetime]) -> None:
        self._backends = backends
        self._clock = clock
        self._glances: dict[str, _Glance] = {}
        self._running: dict[str, asyncio.Task[_Glance]] = {}

    async def see(self, backend_id: str, attempt: str, *, since: datetime) -> Answer:
        """Tells what is seen of an attempt. A look that began before `since` does not count: it may have missed it."""
        if backend_id not in self._backends:
            return Answer(False)
        glance = self._glances.get(backend_id)
        oldest = max(since, self._clock() - timedelta(seconds=_FRESH_SECONDS))
        if glance is None or glance.began < oldest:
            glance = await self._glance(backend_id)
        if glance.look is None or glance.began < since:
            return Answer(False)
        return Answer(True, glance.look.get(attempt))

    async def _glance(self, backend_id: str) -> _Glance:
        task = self._running.get(backend_id)
        if task is None or task.done():
            task = self._running[backend_id] = asyncio.create_task(self._look(backend_id))
        # A caller that gives up must not end the look of the others.
        return await asyncio.shield(task)

    async def _look(self, backend_id: str) -> _Glance:
        began, since = self._clock(), time.monotonic()
        look: Look | None = None
        try:
            look = await asyncio.wait_for(self._backends[backend_id].look(), _PATIENCE_SECONDS)
        except (Unavailable, TimeoutError) as error:
            log.warning("%s cannot be asked what runs: %s", backend_id, error)
        except Exception:
            log.exception("Looking at %s failed", backend_id)
        metrics.looked(backend_id, time.monotonic() - since, is_answered=look is not None)
        glance = self._glances[backend_id] = _Glance(began, look)
        return glance
