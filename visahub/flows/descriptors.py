"""A server that has no file descriptors left goes on and says so briefly; called by the Hub and by the portal."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import Any

log = logging.getLogger("visahub")

_ERRORS = {errno.EMFILE, errno.ENFILE}
_SAY_SECONDS = 60.0
# The waiting connection wakes the loop again at once: without a pause it would write thousands of lines in a second.
_PAUSE_SECONDS = 0.05


class Shortage:
    """An exception handler for an event loop."""

    def __init__(self) -> None:
        self._said = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _ERRORS):
            loop.default_exception_handler(context)
            return
        if time.monotonic() - self._said > _SAY_SECONDS:
            self._said = time.monotonic()
            log.error(
                "No file descriptors are left (%s), so new connections wait. Look for who opens so many, or raise the "
                "limit (LimitNOFILE of the unit, ulimit -n).",
                error.strerror,
            )
        # Not asyncio.sleep: it is the loop itself that has to be slow. Connections that are open go on in between.
        time.sleep(_PAUSE_SECONDS)


def expect_shortage() -> None:
    """Lets the running event loop survive a shortage without filling its log."""
    asyncio.get_running_loop().set_exception_handler(Shortage())
