"""A backend without machines: resources in memory, every fault that a real place can make, no sleeping.

`Place` is what is outside (a cloud, a cluster); it outlives its backends, so that a second `FakeBackend(place=place)`
is the Hub after a restart.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from traitlets import Bool, Instance, Unicode

from ..backends.base import Backend
from ..model.errors import Unavailable
from ..model.instance import State
from ..model.launch import Condition, Launch, Look, Seen, Step
from ..model.offer import Hardware, Offer

# Where a start can be made to fail, wait or crash. "created" lies between the creation and the step that tells its id.
POINTS = ("account", "files", "created", "process", "answers")


class Killed(BaseException):
    """What `Place.kills` raises: the Hub's process is gone. A backend that was killed raises it for ever."""


@dataclass
class Resource:
    """One fake machine. `unseen_looks` counts the looks that will not show it yet."""

    id: str
    deployment: str
    attempt: str
    instance_id: str
    seen: Seen = Seen.STARTING
    unseen_looks: int = 0
    sentence: str = ""

    @property
    def address(self) -> str:
        return f"http://{self.id}.invalid:8888"

    @property
    def is_live(self) -> bool:
        """Tells whether it costs something: STOPPED and FAILED ones do not."""
        return self.seen in {Seen.STARTING, Seen.RUNNING}


@dataclass
class Place:
    """The outside: resources by id, and the faults that the next calls meet. Set the fields as a test needs them.

    Faults by point or method are used up by the first call that meets them, except `unavailable`, which lasts.
    """

    resources: dict[str, Resource] = field(default_factory=dict)
    # Methods that cannot be asked: "offers", "start", "look", "stop", "delete".
    unavailable: set[str] = field(default_factory=set)
    # How many of the next creations happen, but their answer never arrives (start raises Unavailable).
    lost_answers: int = 0
    # How many looks a new resource stays unlisted. A start does not find it either, and would create a second one.
    listing_lag: int = 0
    # What start raises at a point of POINTS: Failed("..."), Refused(...), asyncio.CancelledError(), RuntimeError().
    failures: dict[str, BaseException] = field(default_factory=dict)
    # At which points of POINTS the Hub's process is killed; `stop` and `delete` know "stopping", "stopped", ...
    kills: set[str] = field(default_factory=set)
    # A start waits at a point until its event is set.
    waits: dict[str, asyncio.Event] = field(default_factory=dict)
    # A stop ends the resource, but its answer is lost (stop raises Unavailable).
    lost_stops: int = 0
    # Hardware ids that are full.
    full: set[str] = field(default_factory=set)
    # How often each method was called, "create" among them.
    calls: Counter[str] = field(default_factory=Counter)
    _next: int = 0

    def create(self, launch: Launch) -> Resource:
        """Makes a resource and gives it, whatever the caller is told."""
        self.calls["create"] += 1
        self._next += 1
        made = Resource(f"r{self._next}", launch.deployment, launch.attempt, launch.instance_id)
        made.unseen_looks = self.listing_lag
        self.resources[made.id] = made
        return made

    def of_attempt(self, attempt: str, deployment: str | None = None) -> list[Resource]:
        """Gives all resources of an attempt, listed or not, oldest first."""
        return [
            resource
            for resource in self.resources.values()
            if resource.attempt == attempt and deployment in {None, resource.deployment}
        ]

    def live(self, deployment: str | None = None) -> list[Resource]:
        """Gives what runs, listed or not, of one deployment or of all."""
        return [
            resource
            for resource in self.resources.values()
            if resource.is_live and deployment in {None, resource.deployment}
        ]

    def fail(self, attempt: str, sentence: str = "The machine broke down.") -> None:
        """Lets the resources of an attempt break."""
        for resource in self.of_attempt(attempt):
            resource.seen = Seen.FAILED
            resource.sentence = sentence

    def vanish(self, attempt: str) -> None:
        """Lets the resources of an attempt disappear, as if somebody else had deleted them."""
        for resource in self.of_attempt(attempt):
            del self.resources[resource.id]


class FakeBackend(Backend):
    """Keeps every promise of `Backend` on a `Place`, and breaks where the place is told to."""

    id = Unicode("fake", help="The backend's id, as `Hardware.backend` names it.").tag(config=True)
    place: Instance[Place] = Instance(Place, help="What is outside; share it to fake a restart of the Hub.")
    keeps_stopped = Bool(False, help="Whether a stopped resource stays listed as stopped, like a virtual machine.")
    is_killed = Bool(False, help="Set by `Place.kills`: the process that this backend belonged to is gone.")

    def _place_default(self) -> Place:
        return Place()

    async def offers(self, hardware: tuple[Hardware, ...]) -> list[Offer]:
        self._ask("offers")
        return [self._offer(item) for item in hardware if item.backend == self.id]

    def _offer(self, hardware: Hardware) -> Offer:
        if hardware.id in self.place.full:
            return Offer(hardware=hardware, is_free=False, sentence="full: choose another hardware, or try again later")
        return Offer(hardware=hardware, is_free=True, sentence="free now, ready in about 2 s")

    async def start(self, launch: Launch) -> AsyncIterator[Step]:
        self._ask("start")
        yield Step(key="account", text="Preparing your account", percent=5)
        await self._pass("account")
        yield Step(key="files", text="Preparing your files", percent=20)
        await self._pass("files")
        resource = self._adopted(launch) or await self._created(launch)
        yield Step(key="process", text="Starting JupyterLab", percent=40, state={"resource": resource.id})
        await self._pass("process")
        resource.seen = Seen.RUNNING
        yield Step(key="answers", text="JupyterLab answers", percent=95, address=resource.address)
        await self._pass("answers")

    def _adopted(self, launch: Launch) -> Resource | None:
        for resource in self.place.of_attempt(launch.attempt, self.deployment):
            if resource.is_live and not resource.unseen_looks:
                return resource
        return None

    async def _created(self, launch: Launch) -> Resource:
        self._ask("create")
        resource = self.place.create(launch)
        if self.place.lost_answers:
            self.place.lost_answers -= 1
            raise Unavailable("The place did not answer whether the instance was created. Wait a little.")
        await self._pass("created")
        return resource

    async def look(self) -> Look:
        self._ask("look")
        listed: dict[str, Condition] = {}
        for resource in self.place.resources.values():
            if resource.deployment != self.deployment:
                continue
            if resource.unseen_looks:
                resource.unseen_looks -= 1
                continue
            if resource.attempt in listed and not resource.is_live:
                continue
            listed[resource.attempt] = _condition(resource)
        return listed

    async def stop(self, attempt: str, state: State) -> None:
        self._ask("stop")
        await self._pass("stopping")
        for resource in self._reached(attempt, state):
            if self.keeps_stopped:
                resource.seen = Seen.STOPPED
            else:
                del self.place.resources[resource.id]
        if self.place.lost_stops:
            self.place.lost_stops -= 1
            raise Unavailable("The place did not answer whether the instance was stopped. Try again in a few seconds.")
        await self._pass("stopped")

    async def delete(self, attempt: str, state: State) -> None:
        self._ask("delete")
        await self._pass("deleting")
        for resource in self._reached(attempt, state):
            del self.place.resources[resource.id]
        await self._pass("deleted")

    def _reached(self, attempt: str, state: State) -> list[Resource]:
        """Gives what an end can find: what is listed, and what the state names, even when not listed yet."""
        return [
            resource
            for resource in self.place.of_attempt(attempt, self.deployment)
            if not resource.unseen_looks or resource.id == state.get("resource")
        ]

    def _ask(self, method: str) -> None:
        """Counts a call; meets `unavailable` and an earlier kill."""
        if self.is_killed:
            raise Killed(f"{method} was called by a process that had been killed")
        self.place.calls[method] += 1
        if method in self.place.unavailable:
            raise Unavailable(f"The place cannot be asked ({method}). Nothing was changed; try again in a few seconds.")

    async def _pass(self, point: str) -> None:
        """Meets what a test planted at a point: first the wait, then the kill, then the failure."""
        event = self.place.waits.get(point)
        if event is not None:
            await event.wait()
        if point in self.place.kills:
            self.place.kills.discard(point)
            self.is_killed = True
        if self.is_killed:
            raise Killed(f"killed at {point}")
        failure = self.place.failures.pop(point, None)
        if failure is not None:
            raise failure


def _condition(resource: Resource) -> Condition:
    return Condition(
        seen=resource.seen,
        state={"resource": resource.id},
        address=resource.address if resource.seen is Seen.RUNNING else "",
        sentence=resource.sentence,
    )
