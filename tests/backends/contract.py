"""What every backend and its fake must keep: the tests of `test_local.py`, `test_fake.py` and of facilities' own.

A test class inherits `BackendContract` and gives a fixture `world`, an object with these four methods.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

import pytest

from visahub.backends.base import Backend
from visahub.model.errors import Unavailable, VisahubError
from visahub.model.instance import new_attempt
from visahub.model.launch import Launch, Seen, Step
from visahub.model.offer import Hardware

KEYS = ["account", "files", "process", "answers"]


class World(Protocol):
    """One outside, and what a test needs to know of it."""

    def backend(self, deployment: str = "") -> Backend:
        """Makes a new backend on the same outside: the Hub after a restart, or another deployment's."""

    def launch(self) -> Launch:
        """Gives a launch that succeeds, with a new attempt."""

    def failing(self) -> Launch:
        """Gives a launch whose server ends before it answers."""

    def count(self, attempt: str) -> int:
        """Counts what exists outside of an attempt, however it is listed."""


async def started(backend: Backend, launch: Launch) -> list[Step]:
    """Runs a start to its end."""
    return [step async for step in backend.start(launch)]


async def cut(backend: Backend, launch: Launch, steps: int) -> None:
    """Begins a start and lets it go after some steps, as a Hub does that is killed."""
    stream: AsyncIterator[Step] = backend.start(launch)
    async with aclosing(stream) as given:  # type: ignore[type-var]
        async for _ in given:
            steps -= 1
            if not steps:
                return


class BackendContract:
    """Inherited by each backend's tests."""

    @pytest.fixture
    def world(self) -> Any:
        raise NotImplementedError

    async def test_a_start_tells_its_steps_and_at_last_the_address(self, world: World) -> None:
        steps = await started(world.backend(), world.launch())
        assert [step.key for step in steps] == KEYS
        assert [step.percent for step in steps] == sorted({step.percent for step in steps})
        assert all(step.text for step in steps)
        assert [bool(step.address) for step in steps] == [False, False, False, True]
        states = [step.state for step in steps if step.state is not None]
        assert states, "nothing to find it by"
        assert json.loads(json.dumps(states)) == states

    async def test_what_runs_is_seen_also_after_a_restart(self, world: World) -> None:
        launch = world.launch()
        address = (await started(world.backend(), launch))[-1].address
        for backend in (world.backend(), world.backend()):
            seen = (await backend.look())[launch.attempt]
            assert (seen.seen, seen.address) == (Seen.RUNNING, address)

    async def test_a_second_start_of_an_attempt_adopts(self, world: World) -> None:
        launch = world.launch()
        first = await started(world.backend(), launch)
        before = world.count(launch.attempt)
        second = await started(world.backend(), launch)
        assert second[-1].address == first[-1].address
        assert [step.key for step in second] == KEYS
        assert world.count(launch.attempt) == before

    async def test_two_attempts_are_two(self, world: World) -> None:
        backend = world.backend()
        one, two = world.launch(), world.launch()
        first, second = await asyncio.gather(started(backend, one), started(backend, two))
        assert first[-1].address != second[-1].address
        await backend.stop(one.attempt, {})
        assert (await backend.look())[two.attempt].seen is Seen.RUNNING

    @pytest.mark.parametrize("method", ["stop", "delete"])
    async def test_an_end_ends(self, world: World, method: str) -> None:
        launch = world.launch()
        steps = await started(world.backend(), launch)
        state = next(step.state for step in reversed(steps) if step.state is not None)
        backend = world.backend()
        await getattr(backend, method)(launch.attempt, state)
        assert launch.attempt not in await backend.look()
        assert world.count(launch.attempt) == 0
        await getattr(backend, method)(launch.attempt, state)

    @pytest.mark.parametrize("method", ["stop", "delete"])
    async def test_an_end_of_nothing_is_right(self, world: World, method: str) -> None:
        await getattr(world.backend(), method)(new_attempt(), {})

    async def test_an_end_needs_no_state(self, world: World) -> None:
        launch = world.launch()
        await started(world.backend(), launch)
        await world.backend().stop(launch.attempt, {})
        assert world.count(launch.attempt) == 0

    @pytest.mark.parametrize("steps", [1, 2, 3])
    async def test_half_built_ends_or_goes_on(self, world: World, steps: int) -> None:
        launch = world.launch()
        await cut(world.backend(), launch, steps)
        again = await started(world.backend(), launch)
        assert again[-1].address
        await world.backend().stop(launch.attempt, {})
        launch = world.launch()
        await cut(world.backend(), launch, steps)
        await world.backend().stop(launch.attempt, {})
        assert world.count(launch.attempt) == 0

    @pytest.mark.parametrize("milliseconds", [0, 5, 20, 45, 70, 110, 160])
    async def test_cancelled_at_any_time_then_stopped(self, world: World, milliseconds: int) -> None:
        launch = world.launch()
        backend = world.backend()
        task = asyncio.create_task(started(backend, launch))
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await backend.stop(launch.attempt, {})
        assert world.count(launch.attempt) == 0
        assert launch.attempt not in await backend.look()

    async def test_stopped_by_another_while_it_starts(self, world: World) -> None:
        launch = world.launch()
        task = asyncio.create_task(started(world.backend(), launch))
        await asyncio.sleep(0.05)
        await world.backend().stop(launch.attempt, {})
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(outcome, list | VisahubError)
        await world.backend().stop(launch.attempt, {})
        assert world.count(launch.attempt) == 0

    async def test_a_failing_start_says_so_and_leaves_nothing_after_a_stop(self, world: World) -> None:
        launch = world.failing()
        backend = world.backend()
        with pytest.raises(VisahubError) as raised:
            await started(backend, launch)
        assert not isinstance(raised.value, Unavailable)
        assert raised.value.sentence.endswith(".")
        await backend.stop(launch.attempt, {})
        assert world.count(launch.attempt) == 0

    async def test_another_deployment_is_untouched(self, world: World) -> None:
        launch = replace(world.launch(), deployment="theirs")
        theirs, ours = world.backend("theirs"), world.backend()
        await started(theirs, launch)
        assert launch.attempt not in await ours.look()
        await ours.stop(launch.attempt, {})
        await ours.delete(launch.attempt, {})
        assert (await theirs.look())[launch.attempt].seen is Seen.RUNNING
        await theirs.delete(launch.attempt, {})
        assert world.count(launch.attempt) == 0

    async def test_offers_are_for_its_own_hardware_only(self, world: World) -> None:
        mine = world.launch().hardware
        other = Hardware(id="other", name="Other", backend="elsewhere", place="there", cores=1, memory_mb=1)
        offers = await world.backend().offers((mine, other))
        assert [offer.hardware for offer in offers] == [mine]
        assert offers[0].sentence

    async def test_remarks_are_sentences(self, world: World) -> None:
        assert all(remark.endswith(".") for remark in world.backend().remarks())
