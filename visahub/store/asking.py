"""Asking the store from an event loop: in a thread, for a limited time; used through `store.database`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache, partial
from typing import Any, TypeVar

from ..model.errors import Unavailable

R = TypeVar("R")

AWAY = "The database of visahub does not answer. Nothing was changed; try again in a few seconds."
UNSURE = "The database of visahub stopped answering during a change. Reload the page to see whether it was kept."
_THREADS = 8


class Call:
    """One call and whether its caller still waits; it settles who is first, the caller's leaving or the commit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_given_up = False
        self._has_changed = False

    def give_up(self) -> bool:
        """Leaves the call; tells whether it changes nothing from now on and has changed nothing."""
        with self._lock:
            self._is_given_up = True
            return not self._has_changed

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Surrounds a commit; raises Unavailable before it when the caller has left."""
        with self._lock:
            if self._is_given_up:
                raise Unavailable(UNSURE if self._has_changed else AWAY)
            before, self._has_changed = self._has_changed, True
        try:
            yield
        except Exception:
            with self._lock:
                self._has_changed = before
            raise


_CALL: ContextVar[Call | None] = ContextVar("visahub_store_call", default=None)


def current_call() -> Call:
    """Gives the call of this thread; outside of `ask` one that is never left."""
    return _CALL.get() or Call()


@cache
def _threads() -> ThreadPoolExecutor:
    # Of its own: a slow database must not use up the threads that everything else of the Hub needs.
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="visahub-store")


_observers: list[Callable[[float, str], None]] = []


def observe(observer: Callable[[float, str], None]) -> None:
    """Lets somebody know how long each question took, in seconds, and whether it was "answered" or "late"."""
    _observers.append(observer)


async def ask(function: Callable[..., R], *args: Any, seconds: float = 1.0, **kwargs: Any) -> R:
    """Runs a store call in a thread and gives up with Unavailable after `seconds`.

    An abandoned call goes on in its thread until the database answers, but commits nothing any more: a commit that
    was under way is waited for as long again. A cancellation leaves the call in the same way.
    """
    began, outcome = time.monotonic(), "late"
    try:
        answer = await _asked(function, *args, seconds=seconds, **kwargs)
        outcome = "answered"
    except Exception as error:
        outcome = "late" if isinstance(error, Unavailable) else "answered"
        raise
    finally:
        for observer in _observers:
            observer(time.monotonic() - began, outcome)
    return answer


async def _asked(function: Callable[..., R], *args: Any, seconds: float, **kwargs: Any) -> R:
    call = Call()
    context = copy_context()
    context.run(_CALL.set, call)
    work = partial(context.run, partial(function, *args, **kwargs))
    future = asyncio.get_running_loop().run_in_executor(_threads(), work)
    try:
        await asyncio.wait({future}, timeout=seconds)
        if future.done():
            return future.result()
        sentence = AWAY
        if not call.give_up():
            sentence = UNSURE
            await asyncio.wait({future}, timeout=seconds)
            if future.done():
                return future.result()
    except asyncio.CancelledError:
        call.give_up()
        future.cancel()
        raise
    future.cancel()
    raise Unavailable(sentence)
