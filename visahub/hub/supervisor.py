"""Looks after the portal from within the Hub: it is the portal's rounds that arm this. Called by `handlers.py`."""

from __future__ import annotations

import asyncio
from typing import Any

from .portal import SERVICE
from .silence import answers

# A portal asks for a round every 5 s; a round itself may take a minute, and is not counted.
_QUIET_SECONDS = 15.0
# After a portal has ended the Hub starts it again; stock looks every 30 s, and the dead one stays a zombie until then.
_POLL_SECONDS = 2


class Supervisor:
    """Leads users to a page that says so while the portal hangs, until its next round.

    A portal that ended needs no help: the proxy notices it, and the Hub starts it again.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def heard(self, handler: Any) -> None:
        """Notes a sign of life: the portal asked for a round, or has just got its answer."""
        service = handler.settings["services"][SERVICE]
        if service.managed and service.spawner is not None and service.spawner.poll_interval > _POLL_SECONDS:
            service.spawner.poll_interval = _POLL_SECONDS
            service.spawner.start_polling()
        self._arm(handler)

    def _arm(self, handler: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._quiet, handler)

    def _quiet(self, handler: Any) -> None:
        self._arm(handler)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(handler))

    async def _look(self, handler: Any) -> None:
        service, proxy = handler.settings["services"][SERVICE], handler.proxy
        if service.server is None or await answers(f"{service.server.url}health"):
            return
        try:
            if service.proxy_spec in await proxy.get_all_routes():
                handler.log.error(
                    "The portal does not answer. Until it does, its visitors are told to wait. "
                    "If it hangs, end it: the Hub or its unit starts it again."
                )
                await proxy.delete_service(service)
        except Exception as error:
            handler.log.warning("The portal does not answer, and the proxy cannot be asked: %s", error)
