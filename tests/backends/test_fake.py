"""The fake keeps the contract of backends, and breaks as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from visahub.backends.base import Backend
from visahub.model.account import Account
from visahub.model.errors import Failed, Unavailable
from visahub.model.instance import new_attempt
from visahub.model.launch import Launch, Seen
from visahub.model.offer import Environment, Hardware
from visahub.testing.backends import FakeBackend, Killed, Place
from visahub.testing.clock import START, Clock

from .contract import BackendContract, started

HARDWARE = Hardware(id="small", name="Small", backend="fake", place="here", cores=1, memory_mb=512)


@dataclass
class FakeWorld:
    place: Place = field(default_factory=Place)

    def backend(self, deployment: str = "") -> Backend:
        return FakeBackend(place=self.place, deployment=deployment or "test")

    def launch(self) -> Launch:
        return Launch(
            instance_id="i1",
            attempt=new_attempt(),
            deployment="test",
            name="quiet-beamline",
            account=Account(id=1, username="ada", uid=2001, gid=2001),
            experiments=(),
            environment=Environment(id="lab", name="Lab"),
            hardware=HARDWARE,
            resolution="client",
            keyboard="us",
        )

    def failing(self) -> Launch:
        self.place.failures["process"] = Failed("The machine did not start.", log="boom")
        return self.launch()

    def count(self, attempt: str) -> int:
        return len(self.place.of_attempt(attempt))


class TestFakeBackend(BackendContract):
    @pytest.fixture
    def world(self) -> FakeWorld:
        return FakeWorld()


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


@pytest.mark.parametrize("method", ["start", "look", "stop", "delete", "offers"])
async def test_unavailable_changes_nothing(world: FakeWorld, method: str) -> None:
    launch = world.launch()
    backend = world.backend()
    await started(backend, launch)
    world.place.unavailable.add(method)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "start": lambda: started(backend, launch),
        "look": backend.look,
        "stop": lambda: backend.stop(launch.attempt, {}),
        "delete": lambda: backend.delete(launch.attempt, {}),
        "offers": lambda: backend.offers((HARDWARE,)),
    }
    with pytest.raises(Unavailable):
        await calls[method]()
    assert len(world.place.live()) == 1


async def test_a_lost_answer_leaves_one_resource_that_is_adopted(world: FakeWorld) -> None:
    launch = world.launch()
    world.place.lost_answers = 1
    with pytest.raises(Unavailable):
        await started(world.backend(), launch)
    assert (await world.backend().look())[launch.attempt].seen is Seen.STARTING
    await started(world.backend(), launch)
    assert world.count(launch.attempt) == 1


async def test_late_listing_makes_two_of_a_hasty_retry(world: FakeWorld) -> None:
    world.place.listing_lag = 2
    world.place.lost_answers = 1
    launch = world.launch()
    with pytest.raises(Unavailable):
        await started(world.backend(), launch)
    assert launch.attempt not in await world.backend().look()
    await started(world.backend(), launch)
    assert world.count(launch.attempt) == 2


async def test_late_listing_ends(world: FakeWorld) -> None:
    world.place.listing_lag = 2
    launch = world.launch()
    await started(world.backend(), launch)
    shown = [launch.attempt in await world.backend().look() for _ in range(3)]
    assert shown == [False, False, True]


async def test_an_end_does_not_reach_what_is_neither_listed_nor_known(world: FakeWorld) -> None:
    world.place.listing_lag = 1
    launch = world.launch()
    steps = await started(world.backend(), launch)
    await world.backend().stop(launch.attempt, {})
    assert world.count(launch.attempt) == 1
    await world.backend().stop(launch.attempt, steps[2].state or {})
    assert world.count(launch.attempt) == 0


@pytest.mark.parametrize("point", ["account", "files", "created", "process", "answers"])
async def test_a_killed_backend_does_nothing_more(world: FakeWorld, point: str) -> None:
    world.place.kills.add(point)
    launch = world.launch()
    backend = world.backend()
    with pytest.raises(Killed):
        await started(backend, launch)
    before = world.count(launch.attempt)
    with pytest.raises(Killed):
        await backend.stop(launch.attempt, {})
    assert world.count(launch.attempt) == before == (point not in {"account", "files"})


async def test_a_step_waits_for_its_event(world: FakeWorld) -> None:
    event = world.place.waits["process"] = asyncio.Event()
    launch = world.launch()
    task = asyncio.create_task(started(world.backend(), launch))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    event.set()
    assert (await task)[-1].address


async def test_a_stopped_resource_may_stay_listed() -> None:
    world = FakeWorld()
    backend = FakeBackend(place=world.place, deployment="test", keeps_stopped=True)
    launch = world.launch()
    await started(backend, launch)
    await backend.stop(launch.attempt, {})
    assert (await backend.look())[launch.attempt].seen is Seen.STOPPED
    await backend.delete(launch.attempt, {})
    assert await backend.look() == {}


async def test_it_breaks_and_vanishes(world: FakeWorld) -> None:
    launch = world.launch()
    backend = world.backend()
    await started(backend, launch)
    world.place.fail(launch.attempt)
    assert (await backend.look())[launch.attempt].seen is Seen.FAILED
    world.place.vanish(launch.attempt)
    assert await backend.look() == {}


async def test_full_hardware_is_not_free(world: FakeWorld) -> None:
    world.place.full.add("small")
    assert [offer.is_free for offer in await world.backend().offers((HARDWARE,))] == [False]


def test_the_clock_stands_until_it_is_moved() -> None:
    clock = Clock()
    assert clock() == clock() == START
    clock.forward(days=1, seconds=5)
    assert (clock() - START).total_seconds() == 86405
    assert clock.today.isoformat() == "2026-11-22"
    with pytest.raises(ValueError, match="aware"):
        Clock(START.replace(tzinfo=None))
