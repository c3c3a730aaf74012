"""A clock that is moved by hand; tests give it to flows as `clock` instead of the time of day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


class Clock:
    """Tells the same time until it is moved: `clock()` gives now, `clock.forward(seconds=5)` moves it."""

    def __init__(self, now: datetime = START) -> None:
        if now.tzinfo is None:
            raise ValueError("A clock needs an aware time, e.g. datetime(2026, 11, 21, tzinfo=UTC).")
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    @property
    def today(self) -> date:
        return self.now.date()

    def forward(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> datetime:
        """Moves the clock, backwards for negative numbers, and tells the new time."""
        self.now += timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        return self.now
