"""The one clock of visahub: a round of reconciliation every few seconds, the sources every few minutes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..flows.mirror import mirror
from ..flows.privacy import Retention, forget
from ..model.errors import Refused, VisahubError
from ..sources.base import Source
from ..store.database import Store
from .health import Health
from .hubapi import HubApi
from .metrics import FORGOTTEN, MIRROR_SECONDS, MIRRORED, MIRRORS, ROUNDS

log = logging.getLogger(__name__)

ROUND_SECONDS = 5.0
# What is too old is looked for once a day, a little after the portal's start.
FORGET_SECONDS = 24 * 3600.0


class Clock:
    """Owns the loop: `start` begins it, `close` cancels it and waits for its end."""

    def __init__(
        self,
        hub: HubApi,
        store: Store,
        sources: Sequence[Source],
        mirror_minutes: float,
        now: Callable[[], datetime],
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._hub, self._store, self._sources, self._now = hub, store, sources, now
        self._mirror_seconds, self._round_seconds = mirror_minutes * 60, round_seconds
        self.keep = Retention()
        self._warned: tuple[list[str], list[str]] = ([], [])
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._forever(self._hub_round, self._round_seconds)),
            asyncio.create_task(self._forever(self._mirror_all, self._mirror_seconds)),
            asyncio.create_task(self._forever(self._forget, FORGET_SECONDS)),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _forever(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            began = time.monotonic()
            await work()
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))

    async def _hub_round(self) -> None:
        try:
            told = await self._hub.round()
            self._warn(told)
        except VisahubError as error:
            ROUNDS.labels("failed").inc()
            is_stranger = isinstance(error, Refused) and error.status in {401, 403}
            Health.round = "refused" if is_stranger else "failed"
            log.warning("The round was not done: %s", error)
        except Exception:
            ROUNDS.labels("failed").inc()
            Health.round = "failed"
            log.exception("The round failed")
        else:
            ROUNDS.labels("done").inc()
            Health.round = "done"

    async def _mirror_all(self) -> None:
        for source in self._sources:
            try:
                with MIRROR_SECONDS.labels(source.id).time():
                    changes = await asyncio.to_thread(mirror, self._store, source, self._now())
            except VisahubError as error:
                MIRRORS.labels(source.id, "failed").inc()
                log.warning("%s: the catalogue was not read: %s", source.id, error)
            except Exception:
                MIRRORS.labels(source.id, "failed").inc()
                log.exception("%s: reading the catalogue failed", source.id)
            else:
                MIRRORS.labels(source.id, "done").inc()
                MIRRORED.labels(source.id).set_to_current_time()
                log.info("%s: %s", source.id, changes)

    async def _forget(self) -> None:
        """Removes what is older than the retention says; what fails today is done tomorrow."""
        try:
            done = await asyncio.to_thread(forget, self._store, self.keep, self._now())
        except VisahubError as error:
            log.warning("What is too old was not removed: %s", error)
        except Exception:
            log.exception("Removing what is too old failed")
        else:
            for what, number in done.items():
                FORGOTTEN.labels(what).inc(number)
            if any(done.values()):
                log.info("Removed because of their age: %(events)s events, %(instances)s instances", done)

    def _warn(self, told: Mapping[str, Any]) -> None:
        """Says in the log what an operator should look at, once while it stays the same."""
        unknown, unavailable = told.get("unknown", []), told.get("unavailable", [])
        if (unknown, unavailable) == self._warned:
            return
        self._warned = (unknown, unavailable)
        if unknown:
            log.warning(
                "What runs under our tag and no row ever knew is left alone: %s. Is the database a copy from "
                "yesterday, or does another visahub use this tag?",
                ", ".join(unknown),
            )
        if unavailable:
            log.warning("Cannot be asked what runs there, so nothing of it is changed: %s", ", ".join(unavailable))
