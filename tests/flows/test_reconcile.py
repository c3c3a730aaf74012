"""What is decided about each pair of row and resource, and what a round does about it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visahub.flows import end, launch
from visahub.flows.reconcile import Action, Report, decide, reconcile
from visahub.model.errors import Failed, Unavailable
from visahub.model.instance import Instance, Phase, Want, new_attempt
from visahub.model.launch import Condition, Look, Seen
from visahub.model.request import StartRequest
from visahub.testing.backends import FakeBackend, Killed, Resource

from .world import World

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ON, OFF, GONE = Want.ON, Want.OFF, Want.GONE
BOOTS, RUNS = Condition(seen=Seen.STARTING), Condition(seen=Seen.RUNNING)
STOPPED, FAILED = Condition(seen=Seen.STOPPED), Condition(seen=Seen.FAILED)


def row(phase: Phase, want: Want = ON, *, age: float = 60, left: float = 60) -> Instance:
    return Instance(
        id="i",
        owner_id=1,
        owner="alice",
        server_name="i",
        request=StartRequest(name="n"),
        want=want,
        phase=phase,
        attempt="a",
        backend="fake",
        created=NOW - timedelta(hours=1),
        changed=NOW - timedelta(seconds=age),
        deadline=NOW + timedelta(seconds=left) if phase.is_waiting else None,
    )


STARTING, READY, STOPPING = Phase.STARTING, Phase.READY, Phase.STOPPING
TABLE = [
    # What the row says, then what to do when the backend sees: nothing, starting, running, stopped, failed.
    (row(STARTING), "retry adopt adopt give-up give-up"),
    (row(STARTING, left=-1), "give-up give-up give-up give-up give-up"),
    (row(STARTING, OFF), "finish-stop finish-stop finish-stop finish-stop finish-stop"),
    (row(STARTING, GONE), "finish-delete finish-delete finish-delete finish-delete finish-delete"),
    (row(READY), "lost nothing nothing lost lost"),
    (row(READY, OFF), "finish-stop finish-stop finish-stop finish-stop finish-stop"),
    (row(READY, GONE), "finish-delete finish-delete finish-delete finish-delete finish-delete"),
    (row(STOPPING, OFF), "finish-stop finish-stop finish-stop finish-stop finish-stop"),
    (row(STOPPING, OFF, left=-1), "finish-stop finish-stop finish-stop finish-stop finish-stop"),
    (row(STOPPING, GONE), "finish-delete finish-delete finish-delete finish-delete finish-delete"),
    (row(Phase.STOPPED, OFF), "nothing stop-stray stop-stray nothing nothing"),
    (row(Phase.STOPPED, GONE), "finish-delete finish-delete finish-delete finish-delete finish-delete"),
    (row(Phase.ERROR, OFF), "nothing stop-stray stop-stray nothing nothing"),
    (row(Phase.ERROR, ON), "nothing stop-stray stop-stray nothing nothing"),
    (row(Phase.ERROR, GONE), "finish-delete finish-delete finish-delete finish-delete finish-delete"),
    (row(Phase.DELETING, GONE), "finish-delete finish-delete finish-delete finish-delete finish-delete"),
    (row(Phase.GONE, GONE), "nothing finish-delete finish-delete finish-delete finish-delete"),
    (None, "nothing stop-stray stop-stray nothing stop-stray"),
]
SIGHTS = (None, BOOTS, RUNS, STOPPED, FAILED)


@pytest.mark.parametrize(
    ("instance", "seen", "action"),
    [
        (instance, seen, action)
        for instance, actions in TABLE
        for seen, action in zip(SIGHTS, actions.split(), strict=True)
    ],
)
def test_the_table(instance: Instance | None, seen: Condition | None, action: str) -> None:
    assert decide(instance, seen, NOW, 30) == action


@given(
    st.sampled_from([instance for instance, _ in TABLE if instance is not None]),
    st.sampled_from(SIGHTS),
    st.floats(-60, 29.9),
)
def test_nothing_happens_within_the_grace_time(instance: Instance, seen: Condition | None, age: float) -> None:
    young = replace(instance, changed=NOW - timedelta(seconds=age))
    assert decide(young, seen, NOW, 30) is Action.NOTHING


async def round_(world: World, **changes: Any) -> Report:
    """Does a round after the grace time."""
    world.clock.forward(seconds=31)
    backends = {"fake": world.backend} | changes
    return await reconcile(world.store, backends, world.clock, grace_seconds=30)


async def started(world: World, server_name: str = "ione") -> launch.Admission:
    admission = world.admitted(server_name)
    await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    return admission


async def test_what_runs_is_left_alone(world: World) -> None:
    admission = await started(world)
    before = world.row(admission)
    assert await round_(world) == Report()
    assert world.row(admission) == before


async def test_a_start_that_was_killed_before_anything_existed_is_to_be_retried(world: World) -> None:
    admission = world.admitted()
    report = await round_(world)
    assert [one.id for one in report.retry] == [admission.instance.id]
    assert report.done == [(admission.instance.id, Action.RETRY)]
    assert world.phase(admission) is Phase.STARTING


async def test_a_start_that_was_killed_after_the_creation_is_adopted(world: World) -> None:
    admission = world.admitted()
    world.place.kills.add("created")
    with pytest.raises(Killed):
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    world.backend = world.fresh_backend()
    report = await round_(world)
    assert report.done == [(admission.instance.id, Action.ADOPT)]
    assert report.retry == [world.row(admission)]
    await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    assert list(world.place.resources) == ["r1"]
    assert world.phase(admission) is Phase.READY


async def test_what_is_listed_late_is_not_made_twice(world: World) -> None:
    admission = world.admitted()
    world.place.listing_lag = 2
    world.place.kills.add("created")
    with pytest.raises(Killed):
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    world.backend = world.fresh_backend()
    actions = []
    for _ in range(3):
        world.clock.forward(seconds=11)
        report = await reconcile(world.store, {"fake": world.backend}, world.clock, grace_seconds=30)
        actions += [action for _, action in report.done]
    assert actions == [Action.ADOPT]
    await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    assert list(world.place.resources) == ["r1"]


async def test_what_a_lost_answer_made_unseen_is_stopped_once_it_is_listed(world: World) -> None:
    first = world.admitted()
    world.place.listing_lag, world.place.lost_answers = 2, 1
    with pytest.raises(Unavailable):
        await launch.run(world.store, world.backend, world.launch(first), world.clock)
    assert len(world.place.live()) == 1
    world.place.listing_lag = 0
    second = await started(world)
    for _ in range(3):
        await round_(world)
    assert [resource.attempt for resource in world.place.live()] == [second.instance.attempt]
    assert world.phase(second) is Phase.READY


async def test_what_ended_by_itself_is_told(world: World) -> None:
    admission = await started(world)
    world.place.vanish(admission.instance.attempt)
    report = await round_(world)
    assert report.done == [(admission.instance.id, Action.LOST)]
    found = world.row(admission)
    assert (found.phase, found.want, found.address) == (Phase.STOPPED, OFF, "")
    assert found.sentence == "It ended by itself. Start it again; your files are kept."
    assert found.may_start
    assert await round_(world) == Report()


async def test_what_broke_down_is_an_error_with_the_place_s_reason(world: World) -> None:
    admission = await started(world)
    world.place.fail(admission.instance.attempt, "Its node lost power.")
    await round_(world)
    found = world.row(admission)
    assert found.phase is Phase.ERROR
    assert found.sentence == "It broke down. Its node lost power. Start it again; your files are kept."
    assert world.place.resources == {}


async def test_a_start_that_nobody_drives_ends_at_its_deadline(world: World) -> None:
    admission = world.admitted()
    world.place.create(world.launch(admission))
    world.clock.forward(seconds=601)
    report = await round_(world)
    assert report.done == [(admission.instance.id, Action.GIVE_UP)]
    found = world.row(admission)
    assert (found.phase, found.want) == (Phase.ERROR, OFF)
    assert "longer than 10 minutes" in found.sentence
    assert world.place.resources == {}


async def test_a_start_that_failed_unseen_is_given_up(world: World) -> None:
    admission = world.admitted()
    world.place.create(world.launch(admission))
    world.place.fail(admission.instance.attempt, "No valid host was found.")
    await round_(world)
    assert world.row(admission).sentence == (
        "It ended before it was ready. No valid host was found. Start it again; your files are kept."
    )


async def test_could_not_ask_changes_nothing(world: World) -> None:
    ready, waiting = await started(world), world.admitted("itwo")
    world.store.instances.wish(ready.instance.id, OFF, world.clock())
    world.place.vanish(ready.instance.attempt)
    world.place.unavailable = {"look"}
    world.clock.forward(hours=2)
    before = (world.row(ready), world.row(waiting))
    report = await round_(world)
    assert report == Report(unavailable=["fake"])
    assert (world.row(ready), world.row(waiting)) == before
    assert world.place.calls["stop"] == 0


class Broken(FakeBackend):
    async def look(self) -> Look:
        raise KeyError("a defect")


async def test_a_backend_with_a_defect_does_not_hold_up_the_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    admission = await started(world)
    world.place.vanish(admission.instance.attempt)
    report = await round_(world, other=Broken())
    assert report.unavailable == ["other"]
    assert "a defect" in caplog.text
    assert world.phase(admission) is Phase.STOPPED


async def test_rows_of_a_backend_that_is_not_configured_are_left_alone(world: World) -> None:
    admission = await started(world)
    world.clock.forward(seconds=31)
    assert await reconcile(world.store, {}, world.clock) == Report()
    assert world.phase(admission) is Phase.READY


@pytest.mark.parametrize(("flow", "after"), [(end.stop, Phase.STOPPED), (end.delete, Phase.GONE)])
async def test_an_end_that_was_interrupted_is_finished(world: World, flow: Any, after: Phase) -> None:
    admission = await started(world)
    world.place.unavailable = {"stop", "delete"}
    with pytest.raises(Unavailable):
        await flow(world.store, world.backend, admission.instance.id, world.clock)
    waiting = world.phase(admission)
    await round_(world)
    assert world.phase(admission) is waiting
    world.place.unavailable = set()
    await round_(world)
    assert world.phase(admission) is after
    assert world.place.resources == {}
    assert await round_(world) == Report()


async def test_a_wish_alone_is_enough(world: World) -> None:
    for want, after in ((OFF, Phase.STOPPED), (GONE, Phase.GONE)):
        admission = await started(world, f"i{want}")
        world.store.instances.wish(admission.instance.id, want, world.clock())
        await round_(world)
        assert world.phase(admission) is after
    assert world.place.resources == {}


async def test_a_resource_of_an_earlier_attempt_is_stopped(world: World) -> None:
    first = world.admitted()
    world.place.unavailable = {"stop"}
    world.place.failures["process"] = Failed("No.")
    with pytest.raises(Failed):
        await launch.run(world.store, world.backend, world.launch(first), world.clock)
    world.place.unavailable = set()
    second = await started(world)
    report = await round_(world)
    assert report.done == [(first.instance.attempt, Action.STOP_STRAY)]
    assert [resource.attempt for resource in world.place.live()] == [second.instance.attempt]
    assert world.phase(second) is Phase.READY


async def test_a_stray_of_a_stopped_row_is_stopped(world: World) -> None:
    admission = await started(world)
    await end.stop(world.store, world.backend, admission.instance.id, world.clock)
    world.place.create(world.launch(admission))
    await round_(world)
    assert world.place.resources == {}
    assert world.phase(admission) is Phase.STOPPED


async def test_what_is_left_of_a_deleted_instance_is_deleted(world: World) -> None:
    admission = await started(world)
    await end.delete(world.store, world.backend, admission.instance.id, world.clock)
    world.place.create(world.launch(admission)).seen = Seen.STOPPED
    report = await round_(world)
    assert report.done == [(admission.instance.attempt, Action.FINISH_DELETE)]
    assert world.place.resources == {}
    assert world.phase(admission) is Phase.GONE


async def test_what_no_row_ever_knew_is_reported_and_left_alone(world: World) -> None:
    """As after yesterday's copy of the database was put back."""
    unknown = new_attempt()
    world.place.resources["x"] = Resource("x", "visahub", unknown, "i", seen=Seen.RUNNING)
    report = await round_(world)
    assert report == Report(unknown=[unknown])
    assert list(world.place.resources) == ["x"]


async def test_another_deployment_s_resources_are_not_touched(world: World) -> None:
    world.place.resources["x"] = Resource("x", "another", new_attempt(), "i", seen=Seen.RUNNING)
    assert await round_(world) == Report()
    assert list(world.place.resources) == ["x"]


class Slow(FakeBackend):
    async def stop(self, attempt: str, state: Any) -> None:
        if state == {"resource": "r1"}:
            await asyncio.sleep(3600)
        await super().stop(attempt, state)


async def test_one_that_hangs_does_not_hold_up_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visahub.flows.reconcile._ACT_SECONDS", 0.3)
    one, two = await started(world, "ione"), await started(world, "itwo")
    for admission in (one, two):
        world.store.instances.wish(admission.instance.id, OFF, world.clock())
    world.backend = Slow(place=world.place, deployment="visahub")
    await round_(world)
    assert (world.phase(one), world.phase(two)) == (Phase.STOPPING, Phase.STOPPED)


async def test_a_round_does_not_disturb_a_start_under_way(world: World) -> None:
    admission = world.admitted()
    world.place.waits["process"] = asyncio.Event()
    task = asyncio.create_task(launch.run(world.store, world.backend, world.launch(admission), world.clock))
    while not world.place.resources:  # noqa: ASYNC110 - the fake place has no event for it
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    # The Hub knows which starts it drives, and starts only others again.
    report = await round_(world)
    assert report.done == [(admission.instance.id, Action.ADOPT)]
    world.place.waits["process"].set()
    assert await task == world.row(admission).address
    assert world.phase(admission) is Phase.READY


async def test_a_database_that_is_away_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    admission = await started(world)
    world.place.vanish(admission.instance.attempt)

    def away() -> None:
        raise Unavailable("The database does not answer.")

    monkeypatch.setattr(world.store.instances, "live", away)
    with pytest.raises(Unavailable):
        await round_(world)
    assert world.place.calls["stop"] == 0
