"""One look for all polls; "could not ask" is an answer of its own."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from visahub.hub.watch import Watch
from visahub.model.errors import Unavailable
from visahub.model.launch import Condition, Look, Seen
from visahub.testing.backends import FakeBackend
from visahub.testing.clock import Clock

LONG_AGO = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


class CountingBackend(FakeBackend):
    """Answers slowly, and counts."""

    looks = 0
    error: BaseException | None = None

    async def look(self) -> Look:
        type(self).looks += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        return {"there": Condition(seen=Seen.RUNNING)}


def watched() -> tuple[Watch, CountingBackend, Clock]:
    CountingBackend.looks = 0
    backend, clock = CountingBackend(), Clock()
    return Watch({"fake": backend}, clock), backend, clock


async def test_many_polls_are_one_look() -> None:
    watch, backend, _ = watched()
    answers = await asyncio.gather(*(watch.see("fake", "there", since=LONG_AGO) for _ in range(300)))
    assert backend.looks == 1
    assert all(answer.known and answer.condition is not None for answer in answers)
    assert (await watch.see("fake", "elsewhere", since=LONG_AGO)).condition is None
    assert backend.looks == 1


async def test_a_look_ages() -> None:
    watch, backend, clock = watched()
    await watch.see("fake", "there", since=LONG_AGO)
    clock.forward(seconds=6)
    await watch.see("fake", "there", since=LONG_AGO)
    assert backend.looks == 2


async def test_a_look_from_before_does_not_count() -> None:
    watch, backend, clock = watched()
    await watch.see("fake", "there", since=LONG_AGO)
    answer = await watch.see("fake", "there", since=clock() + timedelta(seconds=1))
    assert backend.looks == 2
    assert not answer.known


async def test_what_cannot_be_asked_is_unknown_and_not_gone() -> None:
    for error in (Unavailable("away"), RuntimeError("defect"), OSError()):
        watch, backend, _ = watched()
        backend.error = error
        answer = await watch.see("fake", "there", since=LONG_AGO)
        assert not answer.known
    assert not (await watch.see("unconfigured", "there", since=LONG_AGO)).known


async def test_a_caller_that_gives_up_does_not_end_the_look() -> None:
    watch, backend, _ = watched()
    first = asyncio.create_task(watch.see("fake", "there", since=LONG_AGO))
    await asyncio.sleep(0)
    first.cancel()
    assert (await watch.see("fake", "there", since=LONG_AGO)).known
    assert backend.looks == 1
