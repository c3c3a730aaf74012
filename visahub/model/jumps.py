"""A clock that was set: how far, told by a second one that nobody sets. Used by `flows/steady.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

# Less is a correction or drift, and harmless: deadlines are minutes and starts are watched for hours.
LARGEST = timedelta(hours=1)


@dataclass(frozen=True)
class Reading:
    """Two clocks read at one moment: the time of day, which may be set, and seconds that only ever pass."""

    at: datetime
    ticks: float


def jump(before: Reading, after: Reading) -> timedelta:
    """Gives how far the time of day was set between two readings; zero for an hour or less."""
    return counted(after.at - before.at - timedelta(seconds=after.ticks - before.ticks))


def counted(gap: timedelta) -> timedelta:
    """Gives a gap between two rounds when it is one that no deadline was made for, else zero.

    It may be a clock that was set, or a time in which nobody looked: either way nothing is late because of it.
    """
    return gap if abs(gap) > LARGEST else timedelta(0)
