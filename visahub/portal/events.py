"""Live pages: one look at the database for all listeners, and the streams (server-sent events) that it wakes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tornado.iostream import StreamClosedError

from ..model.errors import Refused, Unavailable
from ..store.database import Store, ask
from .base import Handler
from .cards import cards

log = logging.getLogger(__name__)

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 15.0
# A stream ends after this long; the browser comes again at once and its login is checked anew.
LIFETIME_SECONDS = 300.0
MOST_STREAMS = 8


class Watch:
    """Looks for new events while somebody listens, and wakes the listeners."""

    def __init__(self, store: Store, poll_seconds: float = POLL_SECONDS) -> None:
        self._store, self._poll_seconds = store, poll_seconds
        self._listeners: Counter[int] = Counter()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last = -1
        self.version = 0
        self.is_closing = False

    @property
    def listeners(self) -> int:
        return self._listeners.total()

    @contextmanager
    def listening(self, account_id: int) -> Iterator[None]:
        """Counts a listener; raises Refused (status 429) when the account has too many streams open."""
        if self._listeners[account_id] >= MOST_STREAMS:
            raise Refused(
                "Too many of these pages are open at once. Close some of them; this one does not move by itself.",
                rule="streams",
                status=429,
            )
        self._listeners[account_id] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._listeners[account_id] -= 1
            if not self._listeners[account_id]:
                del self._listeners[account_id]

    async def wait(self, seen: int, seconds: float) -> bool:
        """Waits until there is something newer than `version` was; tells whether there is after so many seconds."""
        if self.version == seen:
            try:
                await asyncio.wait_for(self._changed.wait(), timeout=seconds)
            except TimeoutError:
                return False
        return True

    async def close(self) -> None:
        """Ends the look and all streams."""
        self.is_closing = True
        self._wake()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while self.listeners:
            try:
                last = await ask(self._store.instances.last_event)
            except Unavailable:
                last = self._last
            except Exception:
                # A defect here must not leave every open page silent.
                log.exception("Looking for new events failed")
                last = self._last
            if last != self._last:
                self._last = last
                self._wake()
            await asyncio.sleep(self._poll_seconds)

    def _wake(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()


class Stream(Handler):
    """A stream of events: `news` gives what is new, again and again, until the browser goes away."""

    is_json = True

    async def get(self, *path: str) -> None:
        self.is_gone = False
        await self.open(*path)
        with self.portal.watch.listening(self.me.id):
            self.set_header("Content-Type", "text/event-stream; charset=utf-8")
            # Proxies like nginx must not collect what is said.
            self.set_header("X-Accel-Buffering", "no")
            try:
                await self._say("retry: 2000\n\n")
                await self._go_on()
            except (StreamClosedError, TimeoutError):
                log.debug("%s: the listener has gone", self.request.path)

    async def _go_on(self) -> None:
        end = time.monotonic() + LIFETIME_SECONDS
        while not self.is_gone and not self.portal.watch.is_closing and time.monotonic() < end:
            # What happens from here on is newer, also while the news are being read.
            seen = self.portal.watch.version
            try:
                text = "".join(_message(kind, data) for kind, data in await self.news())
            except Unavailable:
                text = ""
            if text:
                await self._say(text)
            if self.is_finished():
                return
            if not await self.portal.watch.wait(seen, HEARTBEAT_SECONDS):
                await self._say(": still here\n\n")

    async def _say(self, text: str) -> None:
        self.write(text)
        # Who does not read is cut off; otherwise what was not read would pile up in memory.
        await asyncio.wait_for(self.flush(), timeout=20)

    def on_connection_close(self) -> None:
        self.is_gone = True

    async def open(self, *path: str) -> None:
        """Prepares the stream; raises Refused before anything is sent."""

    async def news(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Gives what is new since the last call, as kinds and JSON objects."""
        raise NotImplementedError

    def is_finished(self) -> bool:
        """Tells whether there will be nothing new any more."""
        return False


def _message(kind: str, data: Mapping[str, Any]) -> str:
    # JSON has no line breaks of its own, so one "data:" line is enough.
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


class CardStream(Stream):
    """GET events: the cards of my instances that have changed, as HTML; an empty one has gone."""

    async def open(self, *path: str) -> None:
        self.sent: dict[str, str] = {}
        self.is_first = True

    async def news(self) -> list[tuple[str, Mapping[str, Any]]]:
        mine = await ask(self.portal.store.instances.of_owner, self.me.id)
        shown = await cards(self.portal, self.me, mine)
        texts = {card.instance.id: self.text_of("_card.html", card=card) for card in shown}
        changed = {key: text for key, text in texts.items() if self.sent.get(key) != text}
        gone = [key for key in self.sent if key not in texts]
        self.sent = texts
        first, self.is_first = self.is_first, False
        news: list[tuple[str, Mapping[str, Any]]] = [
            ("card", {"id": key, "html": text}) for key, text in reversed(changed.items())
        ]
        news += [("card", {"id": key, "html": ""}) for key in gone]
        # The page may be older than the stream: at the beginning it is told which cards there are.
        return [("all", {"ids": list(texts)}), *news] if first else news
