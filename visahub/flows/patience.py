"""Waiting that survives a short outage of the database and a cancellation; used by the flows that change what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..model.errors import Unavailable
from ..store.database import ask

_R = TypeVar("_R")

# A restart of PostgreSQL or a long writer on SQLite takes seconds; a start of minutes must not fail for that.
PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)


async def patiently(function: Callable[..., _R], *args: Any, **kwargs: Any) -> _R:
    """Asks the store, again after pauses when it does not answer; raises Unavailable when it still does not.

    Only for questions and changes that may happen twice.
    """
    for pause in PAUSES_SECONDS:
        try:
            return await ask(function, *args, **kwargs)
        except Unavailable:
            await asyncio.sleep(pause)
    return await ask(function, *args, **kwargs)


async def undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Finishes a piece of work even when cancelled meanwhile, and only then passes the cancellation on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and task.exception() is not None:
            cancelled.__context__ = task.exception()
        raise cancelled
    task.result()
