"""How often somebody may ask: one bucket of tokens for each account, in memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..model.errors import Refused


class Buckets:
    """Allows `burst` questions at once and `per_second` on average, for each key on its own."""

    def __init__(
        self, burst: float = 30, per_second: float = 5, clock: Callable[[], float] = time.monotonic, most: int = 10_000
    ) -> None:
        self._burst, self._per_second, self._clock, self._most = burst, per_second, clock, most
        self._left: dict[int, tuple[float, float]] = {}

    def take(self, key: int) -> None:
        """Takes one token; raises Refused (status 429) when none is left."""
        now = self._clock()
        left, at = self._left.get(key, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        if left < 1:
            raise Refused("You search very often just now. Wait a few seconds and try again.", rule="rate", status=429)
        # A full bucket is the same as none; so the table stays as small as the number of those who search now.
        if len(self._left) >= self._most:
            self._left.clear()
        self._left[key] = (left - 1, now)
