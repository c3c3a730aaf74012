"""The clock of the host is set in the middle of everything: nothing is ended for that, and nothing waits for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from visahub.flows import launch
from visahub.flows.reconcile import Action, reconcile
from visahub.flows.steady import SteadyClock, follow
from visahub.model.errors import Failed, Unavailable
from visahub.model.instance import Phase, Want

from .world import World

# An evening before a leap day, the hour before summer time, and any day; the change is during the test.
TIMES = [
    datetime(2028, 2, 28, 23, 59, tzinfo=UTC),
    datetime(2028, 2, 29, 23, 59, tzinfo=UTC),
    datetime(2026, 3, 29, 0, 59, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 59, tzinfo=UTC),
]


@dataclass
class Host:
    """A machine whose time of day can be set, while its seconds only pass."""

    day: datetime = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)
    ticks: float = 1000.0
    steady: SteadyClock = field(init=False)

    def __post_init__(self) -> None:
        self.steady = SteadyClock(lambda: self.day, lambda: self.ticks)

    def passes(self, seconds: float) -> None:
        self.day += timedelta(seconds=seconds)
        self.ticks += seconds

    def is_set(self, **by: float) -> None:
        self.day += timedelta(**by)


async def round_(world: World, host: Host) -> list[Action]:
    await follow(world.store, host.steady)
    report = await reconcile(world.store, {"fake": world.backend}, host.steady, grace_seconds=30)
    return [action for _, action in report.done]


async def house(world: World, host: Host) -> tuple[launch.Admission, launch.Admission]:
    """Gives a ready instance, and one in the middle of its start whose machine boots."""
    world.clock = host.steady  # type: ignore[assignment]
    ready = world.admitted("iready")
    await launch.run(world.store, world.backend, world.launch(ready), host.steady)
    return ready, world.admitted("istarting")


@pytest.mark.parametrize("days", [40, -2])
async def test_f16_clock_set_while_a_start_is_under_way(world: World, days: int) -> None:
    host = Host()
    ready, starting = await house(world, host)
    world.place.waits["process"] = asyncio.Event()
    start = asyncio.create_task(launch.run(world.store, world.backend, world.launch(starting), host.steady))
    while not world.place.live():  # noqa: ASYNC110 - the place tells nobody
        await asyncio.sleep(0.01)
    host.passes(60)
    host.is_set(days=days)
    # The start looks every moment whether it is too late, also before the next round.
    await asyncio.sleep(0.1)
    assert not start.done()
    # It is adopted by nobody else and given up by nobody.
    assert set(await round_(world, host)) <= {Action.ADOPT, Action.NOTHING}
    await asyncio.sleep(0.1)
    assert not start.done()
    assert host.steady() == host.day
    deadline = world.row(starting).deadline
    assert deadline is not None and deadline - host.day == timedelta(seconds=600 - 60)
    for _ in range(5):
        host.passes(31)
        await round_(world, host)
        assert world.phase(ready) is Phase.READY
        assert world.row(ready).want is Want.ON
    world.place.waits.pop("process").set()
    await start
    assert world.phase(starting) is Phase.READY
    assert len(world.place.live()) == 2


@pytest.mark.parametrize("days", [40, -2])
async def test_f16_deadlines_hold_after_the_jump(world: World, days: int) -> None:
    """What waits for ever is still given up, after the time that it had left."""
    host = Host()
    _, starting = await house(world, host)
    world.place.waits["process"] = asyncio.Event()
    start = asyncio.create_task(launch.run(world.store, world.backend, world.launch(starting), host.steady))
    while not world.place.live():  # noqa: ASYNC110 - the place tells nobody
        await asyncio.sleep(0.01)
    host.is_set(days=days)
    await round_(world, host)
    host.passes(601)
    with pytest.raises(Failed, match="took longer than 10 minutes"):
        await start
    assert world.phase(starting) is Phase.ERROR


@pytest.mark.parametrize("days", [40, -2])
async def test_f16_ended_and_unwanted_things_are_still_seen(world: World, days: int) -> None:
    host = Host()
    ready, _ = await house(world, host)
    host.is_set(days=days)
    await round_(world, host)
    host.passes(5)
    world.place.vanish(ready.instance.attempt)
    # A row that was written at a time which is now in the future is looked after all the same.
    assert Action.LOST in await round_(world, host)
    assert world.phase(ready) is Phase.STOPPED


async def test_f16_database_away_at_the_jump(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    before = host.day
    host.is_set(days=40)

    def away(*_: object) -> int:
        raise Unavailable("The database does not answer.")

    monkeypatch.setattr(world.store.instances, "shift", away)
    with pytest.raises(Unavailable):
        await follow(world.store, host.steady)
    host.passes(5)
    # Not followed, but not standing still.
    assert host.steady() == before + timedelta(seconds=5)
    monkeypatch.undo()
    assert await follow(world.store, host.steady) == timedelta(days=40)
    assert host.steady() == host.day


@pytest.mark.parametrize("begin", TIMES, ids=lambda time: time.date().isoformat())
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
async def test_f16_leap_day_and_summer_time(world: World, begin: datetime, zone: str) -> None:
    """The host tells its time in a zone of its own."""
    host = Host(begin.astimezone(ZoneInfo(zone)))
    ready, starting = await house(world, host)
    for _ in range(8):
        host.day = (host.day.astimezone(UTC) + timedelta(seconds=31)).astimezone(ZoneInfo(zone))
        host.ticks += 31
        assert set(await round_(world, host)) <= {Action.RETRY}
        assert host.steady.jumped == timedelta(0)
    assert world.phase(ready) is Phase.READY
    assert world.phase(starting) is Phase.STARTING
