"""Who was let in stays in while the Hub cannot be asked: work goes on through its restart. Called by the extension.

An instance asks the Hub about each login every few seconds, so that a revoked one is out soon. JupyterHub's own class
answers 500 to everybody as soon as the Hub does not answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.web import HTTPError

Model = dict[str, Any]
# For how long a login that the Hub has confirmed is believed without it: a restart, not a day.
PATIENCE_SECONDS = 300.0
# A Hub that hangs must not hold each request of somebody who is known.
_ANSWER_SECONDS = 3.0
_SILENCE_SECONDS = 2.0
_MOST = 1000


class Patience:
    """Stands in the place of `HubOAuth._check_hub_authorization`; `check` is the one that it was."""

    def __init__(self, check: Callable[..., Awaitable[Model | None]], clock: Callable[[], float] = time.monotonic):
        self._check, self._clock = check, clock
        self._known: OrderedDict[str, tuple[float, Model]] = OrderedDict()
        self._silent_until = float("-inf")

    async def __call__(
        self, url: str, api_token: str, cache_key: str | None = None, use_cache: bool = True
    ) -> Model | None:
        """Gives who it is, None for a login that is not good; raises 503 when that cannot be told."""
        known = self._known_before(cache_key or "")
        if known is not None and self._clock() < self._silent_until:
            return known
        try:
            async with asyncio.timeout(_ANSWER_SECONDS if known is not None else None):
                model = await self._check(url, api_token, cache_key, use_cache)
        except (HTTPError, TimeoutError) as error:
            self._silent_until = self._clock() + _SILENCE_SECONDS
            if known is not None:
                return known
            raise HTTPError(
                503,
                "The Hub does not answer, so nobody new can be let in. Nothing was lost; try again in a few seconds.",
            ) from error
        self._remember(cache_key or "", model)
        return model

    def _known_before(self, key: str) -> Model | None:
        at, model = self._known.get(key, (float("-inf"), None))
        return model if self._clock() - at <= PATIENCE_SECONDS else None

    def _remember(self, key: str, model: Model | None) -> None:
        self._known.pop(key, None)
        if model is None or not key:
            return
        self._known[key] = (self._clock(), model)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
