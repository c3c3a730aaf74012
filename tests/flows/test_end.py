"""Stopping and deleting: right in every phase, when called twice, and when the place does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from visahub.flows import end, launch
from visahub.model.errors import Failed, Refused, Unavailable
from visahub.model.instance import Phase, Want
from visahub.testing.backends import FakeBackend, Killed

from .world import World

Flow = Callable[..., Any]


async def started(world: World, server_name: str = "ione") -> launch.Admission:
    admission = world.admitted(server_name)
    await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    return admission


async def test_stop_keeps_the_row(world: World) -> None:
    admission = await started(world)
    await end.stop(world.store, world.backend, admission.instance.id, world.clock)
    row = world.row(admission)
    assert (row.phase, row.want, row.address, row.deadline) == (Phase.STOPPED, Want.OFF, "", None)
    assert [kind for kind, _ in world.told(admission)][-2:] == ["stopping", "stopped"]
    assert world.place.resources == {}


async def test_delete_ends_the_row(world: World) -> None:
    admission = await started(world)
    await end.delete(world.store, world.backend, admission.instance.id, world.clock)
    row = world.row(admission)
    assert (row.phase, row.want) == (Phase.GONE, Want.GONE)
    assert world.store.instances.live() == []
    assert world.place.resources == {}


@pytest.mark.parametrize(("flow", "call"), [(end.stop, "stop"), (end.delete, "delete")])
async def test_twice_is_once(world: World, flow: Flow, call: str) -> None:
    admission = await started(world)
    for _ in range(2):
        await flow(world.store, world.backend, admission.instance.id, world.clock)
        told = world.told(admission)
    assert world.told(admission) == told
    assert world.place.calls[call] == 1


async def test_delete_after_stop_and_stop_after_delete(world: World) -> None:
    admission = await started(world)
    await end.stop(world.store, world.backend, admission.instance.id, world.clock)
    await end.delete(world.store, world.backend, admission.instance.id, world.clock)
    await end.stop(world.store, world.backend, admission.instance.id, world.clock)
    assert world.phase(admission) is Phase.GONE


async def test_the_wish_is_committed_before_the_place_is_asked(world: World) -> None:
    for flow, want, waiting in (
        (end.stop, Want.OFF, Phase.STOPPING),
        (end.delete, Want.GONE, Phase.DELETING),
    ):
        admission = await started(world, f"i{want}")
        world.place.unavailable = {"stop", "delete"}
        with pytest.raises(Unavailable):
            await flow(world.store, world.backend, admission.instance.id, world.clock)
        row = world.row(admission)
        assert (row.want, row.phase) == (want, waiting)
        assert row.deadline is not None
        world.place.unavailable = set()
        await flow(world.store, world.backend, admission.instance.id, world.clock)
        assert world.row(admission).phase in {Phase.STOPPED, Phase.GONE}


@pytest.mark.parametrize(
    ("flow", "point", "after"),
    [
        (end.stop, "stopping", Phase.STOPPED),
        (end.stop, "stopped", Phase.STOPPED),
        (end.delete, "deleting", Phase.GONE),
        (end.delete, "deleted", Phase.GONE),
    ],
)
async def test_a_kill_in_between_is_repeated(world: World, flow: Flow, point: str, after: Phase) -> None:
    admission = await started(world)
    world.place.kills.add(point)
    with pytest.raises(Killed):
        await flow(world.store, world.backend, admission.instance.id, world.clock)
    assert world.phase(admission).is_waiting
    await flow(world.store, world.fresh_backend(), admission.instance.id, world.clock)
    assert world.phase(admission) is after
    assert world.place.resources == {}


class Stubborn(FakeBackend):
    async def stop(self, attempt: str, state: Any) -> None:
        raise Failed("The machine is locked by an administrator.")

    async def delete(self, attempt: str, state: Any) -> None:
        raise Failed("The machine is locked by an administrator.")


@pytest.mark.parametrize("flow", [end.stop, end.delete])
async def test_what_cannot_be_ended_is_an_error_until_it_can(world: World, flow: Flow) -> None:
    admission = await started(world)
    stubborn = Stubborn(place=world.place, deployment="visahub")
    for _ in range(3):
        with pytest.raises(Failed):
            await flow(world.store, stubborn, admission.instance.id, world.clock)
        row = world.row(admission)
        assert (row.phase, row.sentence) == (Phase.ERROR, "The machine is locked by an administrator.")
    await flow(world.store, world.backend, admission.instance.id, world.clock)
    assert world.phase(admission) in {Phase.STOPPED, Phase.GONE}
    assert world.place.resources == {}


async def test_a_failed_deletion_that_is_repeated_writes_no_history(world: World) -> None:
    admission = await started(world)
    stubborn = Stubborn(place=world.place, deployment="visahub")
    counts = []
    for _ in range(3):
        with pytest.raises(Failed):
            await end.delete(world.store, stubborn, admission.instance.id, world.clock)
        counts.append(len(world.told(admission)))
    assert len(set(counts)) == 1


async def test_the_sentence_of_a_failure_survives_a_stop(world: World) -> None:
    admission = world.admitted()
    world.place.failures["process"] = Failed("The home is full.")
    with pytest.raises(Failed):
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    await end.stop(world.store, world.backend, admission.instance.id, world.clock)
    row = world.row(admission)
    assert (row.phase, row.sentence) == (Phase.STOPPED, "The home is full.")


@pytest.mark.parametrize("flow", [end.stop, end.delete])
async def test_an_instance_that_never_was(world: World, flow: Flow) -> None:
    with pytest.raises(Refused) as caught:
        await flow(world.store, world.backend, "nobody", world.clock)
    assert caught.value.status == 404


async def test_a_lost_answer_of_a_stop(world: World) -> None:
    admission = await started(world)
    world.place.lost_stops = 1
    with pytest.raises(Unavailable):
        await end.stop(world.store, world.backend, admission.instance.id, world.clock)
    await end.stop(world.store, world.backend, admission.instance.id, world.clock)
    assert world.phase(admission) is Phase.STOPPED
