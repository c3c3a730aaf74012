"""What runs and no row knows: found, given back, ended; and what belongs to another deployment is none of it."""

from __future__ import annotations

import pytest

from visahub.flows import launch, strays
from visahub.flows.reconcile import Report, reconcile
from visahub.model.errors import Refused, Unavailable
from visahub.model.instance import Phase, Want
from visahub.model.launch import Seen
from visahub.testing.backends import FakeBackend, Resource

from .world import DEPLOYMENT, World


def backends(world: World) -> dict[str, FakeBackend]:
    return {"fake": world.backend}


def unknown(world: World, attempt: str = "unknown", deployment: str = DEPLOYMENT) -> Resource:
    """Something that runs outside."""
    made = Resource(f"r-{attempt}", deployment, attempt, f"i{attempt}", Seen.RUNNING)
    world.place.resources[made.id] = made
    return made


async def started(world: World) -> launch.Admission:
    admission = world.admitted()
    await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    return admission


async def round_(world: World) -> Report:
    world.clock.forward(seconds=31)
    return await reconcile(world.store, backends(world), world.clock, grace_seconds=30)


async def test_f23_found_and_given_back(world: World) -> None:
    await started(world)
    unknown(world)
    (stray,) = await strays.find(world.store, backends(world))
    assert (stray.backend, stray.attempt) == ("fake", "unknown")
    assert (await round_(world)).unknown == ["unknown"]
    row = strays.adopt(world.store, stray, "alice", "itwo", "found again", world.clock())
    assert (row.phase, row.want, row.attempt, row.name) == (Phase.READY, Want.ON, "unknown", "found again")
    assert row.address == stray.condition.address
    assert world.store.instances.get(row.id) == row
    assert await strays.find(world.store, backends(world)) == []
    report = await round_(world)
    assert report.unknown == [] and report.done == []
    assert len(world.place.live()) == 2


async def test_f23_only_once_and_for_somebody_known(world: World) -> None:
    first = await started(world)
    unknown(world)
    (stray,) = await strays.find(world.store, backends(world))
    with pytest.raises(Refused, match="log in once"):
        strays.adopt(world.store, stray, "nobody", "itwo", "", world.clock())
    with pytest.raises(Refused, match="Give this one another name"):
        strays.adopt(world.store, stray, "alice", first.instance.server_name, "", world.clock())
    strays.adopt(world.store, stray, "alice", "itwo", "", world.clock())
    with pytest.raises(Refused, match="already"):
        strays.adopt(world.store, stray, "alice", "ithree", "", world.clock())
    with pytest.raises(Refused, match="visahub strays list"):
        await strays.one(world.store, backends(world), "unknown")


async def test_f23_ended_alone(world: World) -> None:
    first = await started(world)
    unknown(world)
    stray = await strays.one(world.store, backends(world), "unknown")
    await strays.end(backends(world), stray)
    assert [one.attempt for one in world.place.live()] == [first.instance.attempt]
    assert world.phase(first) is Phase.READY


async def test_f23_place_that_cannot_be_asked(world: World) -> None:
    unknown(world)
    world.place.unavailable.add("look")
    with pytest.raises(Unavailable):
        await strays.find(world.store, backends(world))


async def test_f22_two_deployments_in_one_place(world: World) -> None:
    """Two tags in one project: neither ends, lists or adopts what the other one runs, wanted there or not."""
    mine = await started(world)
    theirs = [unknown(world, f"theirs{number}", "another") for number in range(3)]
    assert await strays.find(world.store, backends(world)) == []
    for _ in range(3):
        assert await round_(world) == Report()
    # The other one's rounds, with a database that knows nothing of ours.
    other = FakeBackend(place=world.place, deployment="another")
    assert set(await other.look()) == {one.attempt for one in theirs}
    await other.stop(mine.instance.attempt, {"resource": next(iter(world.place.resources))})
    assert len(world.place.live()) == 4
    assert world.phase(mine) is Phase.READY
