"""From a request to a running instance: every rule, every step, and what is left after each kind of failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest

from visahub.flows import end, launch
from visahub.model.account import Role
from visahub.model.errors import Failed, Refused, Unavailable
from visahub.model.instance import Phase, Want
from visahub.model.launch import Launch, Step
from visahub.model.request import StartRequest
from visahub.store.instances import Instances
from visahub.testing.backends import POINTS, FakeBackend, Killed

from .world import MENU, World

# The rules.


def chosen(world: World, who: str = "alice", identity: dict[str, Any] | None = None, **choices: Any) -> launch.Choice:
    raw = {"environment": "python", "hardware": "small", "experiments": ["mine"]} | choices
    account = world.account(who, **identity or {})
    return launch.choose(world.store, MENU, account, StartRequest.read(raw), world.clock.today)


def test_what_is_chosen_is_looked_up_in_its_order(world: World) -> None:
    choice = chosen(world, experiments=["open", "mine"])
    assert [one.id for one in choice.experiments] == ["open", "mine"]
    assert (choice.environment.id, choice.hardware.id) == ("python", "small")


@pytest.mark.parametrize(
    ("choices", "rule", "status"),
    [
        ({"experiments": []}, "no-experiment", 422),
        ({"experiments": ["absent"]}, "unknown-experiment", 422),
        ({"experiments": ["mine", "absent"]}, "unknown-experiment", 422),
        ({"experiments": ["embargoed"]}, "embargo", 403),
        ({"experiments": ["mine", "embargoed"]}, "embargo", 403),
        ({"experiments": ["undated"]}, "no-dates", 403),
        ({"environment": "absent"}, "unknown-environment", 422),
        ({"hardware": "absent"}, "unknown-hardware", 422),
        ({"environment": "p03"}, "restricted", 403),
        ({"hardware": "gpu"}, "restricted", 403),
        ({"environment": "p03", "hardware": "elsewhere"}, "restricted", 403),
    ],
)
def test_a_choice_that_is_refused(world: World, choices: dict[str, Any], rule: str, status: int) -> None:
    with pytest.raises(Refused) as caught:
        chosen(world, **choices)
    assert (caught.value.rule, caught.value.status) == (rule, status)


def test_an_environment_that_cannot_run_there(world: World) -> None:
    with pytest.raises(Refused) as caught:
        chosen(world, identity={"groups": frozenset({"p03"})}, environment="p03", hardware="elsewhere")
    assert caught.value.rule == "environment-not-there"


def test_staff_and_guests_need_no_experiment(world: World) -> None:
    for role in Role:
        assert chosen(world, "bob", {"roles": frozenset({role})}, experiments=[]).experiments == ()


def test_a_chosen_experiment_opens_its_instrument_s_hardware(world: World) -> None:
    assert chosen(world, experiments=["at-p03"], hardware="gpu").hardware.id == "gpu"


def test_access_is_asked_on_the_day(world: World) -> None:
    world.clock.forward(days=365 * 4)
    assert chosen(world, experiments=["embargoed"]).experiments[0].id == "embargoed"


# The admission.


def test_an_admission_commits_the_wish_and_remembers_the_choice(world: World) -> None:
    admission = world.admitted(name="My analysis")
    row = world.row(admission)
    assert (row.want, row.phase, row.backend) == (Want.ON, Phase.STARTING, "fake")
    assert row.attempt == admission.instance.attempt
    assert row.deadline is not None
    assert (row.deadline - world.clock()).total_seconds() == 600
    assert world.store.preferences.get(world.alice.id)["last"] == row.request.as_options()


def test_a_refused_choice_leaves_nothing(world: World) -> None:
    with pytest.raises(Refused):
        world.admitted(experiments=["embargoed"])
    assert world.store.instances.live() == []
    assert world.store.preferences.get(world.alice.id) == {}


def test_a_preference_that_cannot_be_kept_does_not_undo_the_admission(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(world.store.preferences, "put", away)
    assert world.phase(world.admitted()) is Phase.STARTING


def test_the_quota_and_a_second_press_are_refused(world: World) -> None:
    world.admitted("ione")
    with pytest.raises(Refused) as caught:
        world.admitted("ione")
    assert caught.value.rule == "already"
    world.admitted("itwo")
    with pytest.raises(Refused) as caught:
        world.admitted("ithree")
    assert caught.value.rule == "quota"


# The run.


async def test_a_run_saves_every_step_and_gives_the_address(world: World) -> None:
    admission = world.admitted()
    address = await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    row = world.row(admission)
    assert (row.phase, row.want, row.address) == (Phase.READY, Want.ON, address)
    assert row.state == {"resource": "r1"}
    assert row.deadline is None
    steps = [key for kind, key in world.told(admission) if kind == "step"]
    assert steps == ["account", "files", "process", "answers"]
    assert world.told(admission)[-1][0] == "ready"


class Watched(FakeBackend):
    """Looks at the row between two steps."""

    look_at: Callable[[], str]

    async def start(self, launch: Launch) -> AsyncIterator[Step]:
        async for step in super().start(launch):
            yield step
            assert self.look_at() == step.key


async def test_a_step_is_saved_before_the_next_one_begins(world: World) -> None:
    admission = world.admitted()
    backend = Watched(place=world.place, deployment="visahub")
    backend.look_at = lambda: world.told(admission)[-1][1]
    await launch.run(world.store, backend, world.launch(admission), world.clock)
    assert world.phase(admission) is Phase.READY


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    "failure",
    [Failed("The disk is full.", log="No space left"), Refused("No.", rule="r"), Unavailable("Away.")],
    ids=["failed", "refused", "unavailable"],
)
async def test_a_failure_is_cleaned_up_and_told(world: World, point: str, failure: Exception) -> None:
    admission = world.admitted()
    world.place.failures[point] = failure
    with pytest.raises(type(failure)) as caught:
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    assert caught.value is failure
    row = world.row(admission)
    assert world.place.resources == {}
    assert (row.phase, row.want, row.sentence) == (Phase.ERROR, Want.OFF, str(failure))
    assert row.address == ""
    assert row.may_start
    notes = [event.text for event in world.store.instances.events(row.id) if event.kind == "note"]
    assert notes == (["No space left"] if isinstance(failure, Failed) else [])


async def test_a_defect_becomes_a_sentence_with_a_reference(world: World, caplog: pytest.LogCaptureFixture) -> None:
    admission = world.admitted()
    world.place.failures["process"] = KeyError("internal detail")
    with pytest.raises(Failed) as caught:
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    reference = caught.value.sentence.split("reference ")[1].split(")")[0]
    assert "internal detail" not in caught.value.sentence
    assert reference in caplog.text
    assert "internal detail" in caplog.text
    assert world.row(admission).sentence == caught.value.sentence
    assert world.place.resources == {}


class Silent(FakeBackend):
    async def start(self, launch: Launch) -> AsyncIterator[Step]:
        yield Step(key="account", text="Preparing", percent=5)


async def test_a_start_without_an_address_failed(world: World) -> None:
    admission = world.admitted()
    backend = Silent(place=world.place, deployment="visahub")
    with pytest.raises(Failed, match="no address"):
        await launch.run(world.store, backend, world.launch(admission), world.clock)
    assert world.phase(admission) is Phase.ERROR


class Gate(asyncio.Event):
    """Holds up a start, and tells when the start has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.reached.set()
        return await super().wait()


async def running(world: World, admission: launch.Admission, point: str) -> asyncio.Task[str]:
    """Runs a start up to a point, where it stays."""
    gate = world.place.waits[point] = Gate()
    task = asyncio.create_task(launch.run(world.store, world.backend, world.launch(admission), world.clock))
    await gate.reached.wait()
    return task


@pytest.mark.parametrize("point", POINTS)
async def test_a_start_that_the_end_of_the_process_cancels_is_left_to_the_next(world: World, point: str) -> None:
    admission = world.admitted()
    task = await running(world, admission, point)
    made = dict(world.place.resources)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.place.resources == made
    row = world.row(admission)
    assert (row.phase, row.want, row.attempt) == (Phase.STARTING, Want.ON, admission.instance.attempt)
    # The next process starts the same attempt and adopts what is there.
    del world.place.waits[point]
    address = await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    assert world.row(admission).address == address
    assert len(world.place.resources) == 1


class Slow(FakeBackend):
    """Takes its time to stop."""

    stopped = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.begun = asyncio.Event()

    async def stop(self, attempt: str, state: Any) -> None:
        self.begun.set()
        await asyncio.sleep(0.2)
        await super().stop(attempt, state)
        self.stopped = True


async def test_a_cancellation_does_not_interrupt_the_clean_up(world: World) -> None:
    admission = world.admitted()
    world.backend = backend = Slow(place=world.place, deployment="visahub")
    world.place.failures["process"] = Failed("The machine broke down.")
    task = asyncio.create_task(launch.run(world.store, world.backend, world.launch(admission), world.clock))
    await backend.begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.03)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.stopped
    assert world.place.resources == {}
    assert world.phase(admission) is Phase.ERROR


@pytest.mark.parametrize("point", POINTS)
async def test_a_wish_to_stop_ends_a_start(world: World, point: str) -> None:
    admission = world.admitted()
    task = await running(world, admission, point)
    world.store.instances.wish(admission.instance.id, Want.OFF, world.clock())
    with pytest.raises(Refused) as caught:
        await task
    assert caught.value.rule == "superseded"
    row = world.row(admission)
    assert (row.phase, row.want, row.sentence) == (Phase.STOPPED, Want.OFF, "")
    assert world.place.resources == {}


async def test_a_wish_to_delete_ends_a_start(world: World) -> None:
    admission = world.admitted()
    task = await running(world, admission, "process")
    world.store.instances.wish(admission.instance.id, Want.GONE, world.clock())
    with pytest.raises(Refused):
        await task
    assert world.phase(admission) is Phase.GONE
    assert world.place.resources == {}
    assert world.place.calls["delete"] == 1


async def test_stop_and_delete_during_a_start_leave_nothing(world: World) -> None:
    for flow, phase in ((end.stop, Phase.STOPPED), (end.delete, Phase.GONE)):
        admission = world.admitted()
        task = await running(world, admission, "process")
        await flow(world.store, world.backend, admission.instance.id, world.clock)
        with pytest.raises(Refused):
            await task
        assert world.phase(admission) is phase
        assert world.place.resources == {}


async def test_a_start_gives_up_at_its_deadline(world: World) -> None:
    admission = world.admitted()
    task = await running(world, admission, "process")
    world.clock.forward(seconds=601)
    with pytest.raises(Failed, match="took longer than 10 minutes"):
        await task
    assert world.phase(admission) is Phase.ERROR
    assert world.place.resources == {}


async def test_a_killed_process_does_nothing_more(world: World) -> None:
    admission = world.admitted()
    world.place.kills.add("created")
    with pytest.raises(Killed):
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    row = world.row(admission)
    assert (row.phase, row.want, row.state) == (Phase.STARTING, Want.ON, {})
    assert len(world.place.live()) == 1
    address = await launch.run(world.store, world.fresh_backend(), world.launch(admission), world.clock)
    assert address == "http://r1.invalid:8888"
    assert list(world.place.resources) == ["r1"]
    assert world.phase(admission) is Phase.READY


async def test_what_a_lost_answer_made_is_stopped(world: World) -> None:
    admission = world.admitted()
    world.place.lost_answers = 1
    with pytest.raises(Unavailable):
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    assert world.phase(admission) is Phase.ERROR
    assert world.place.resources == {}


async def test_a_place_that_cannot_be_asked_to_stop_is_left_to_the_rounds(world: World) -> None:
    admission = world.admitted()
    world.place.failures["process"] = Failed("The process ended.")
    world.place.unavailable = {"stop"}
    with pytest.raises(Failed):
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    assert world.phase(admission) is Phase.ERROR
    assert len(world.place.live()) == 1


async def test_an_older_start_leaves_the_newer_one_alone(world: World) -> None:
    admission = world.admitted()
    task = await running(world, admission, "process")
    world.place.waits.clear()
    # As when the reconciliation gave the first start up, and its owner pressed again before the first noticed.
    world.store.instances.move(admission.instance.id, Phase.ERROR, world.clock(), sentence="Too late.")
    again = world.admitted()
    assert again.instance.attempt != admission.instance.attempt
    with pytest.raises(Refused):
        await task
    assert world.phase(again) is Phase.STARTING
    await launch.run(world.store, world.backend, world.launch(again), world.clock)
    assert [resource.attempt for resource in world.place.live()] == [again.instance.attempt]


class Flaky:
    """Lets every second call of a store method fail, before or after it did its work."""

    def __init__(self, real: Callable[..., object], *, works: bool) -> None:
        self._real, self._works, self._calls = real, works, 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        self._calls += 1
        if self._calls % 2 == 0:
            return self._real(*args, **kwargs)
        if self._works:
            self._real(*args, **kwargs)
        raise Unavailable("The database does not answer.")


@pytest.mark.parametrize("works", [False, True], ids=["nothing happens", "the answer is lost"])
async def test_a_hiccup_of_the_database_does_not_end_a_start(
    world: World, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    admission = world.admitted()
    for name in ("step", "move"):
        monkeypatch.setattr(world.store.instances, name, Flaky(getattr(world.store.instances, name), works=works))
    await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    assert world.phase(admission) is Phase.READY


async def test_a_database_that_stays_away_ends_a_start_without_leaving_a_machine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = world.admitted()

    def away(*_args: object, **_kwargs: object) -> None:
        raise Unavailable("The database does not answer.")

    for name in ("step", "move", "get", "note"):
        monkeypatch.setattr(Instances, name, away)
    with pytest.raises(Unavailable):
        await launch.run(world.store, world.backend, world.launch(admission), world.clock)
    assert world.place.resources == {}
    monkeypatch.undo()
    # The row still says that it is wanted: the next round starts it again, or its deadline ends it.
    assert world.phase(admission) is Phase.STARTING


async def test_a_restart_after_a_failure(world: World) -> None:
    first = world.admitted()
    world.place.failures["files"] = Failed("The home cannot be mounted.")
    with pytest.raises(Failed):
        await launch.run(world.store, world.backend, world.launch(first), world.clock)
    second = world.admitted()
    assert second.instance.id == first.instance.id
    await launch.run(world.store, world.backend, world.launch(second), world.clock)
    row = world.row(second)
    assert (row.phase, row.want, row.sentence) == (Phase.READY, Want.ON, "")
