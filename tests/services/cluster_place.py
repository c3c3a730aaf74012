"""The process behind `cluster.py`: machines that are rows of a table, with the faults of a cloud.

It answers below `/place` what a cloud's API would, and below `/user/NAME/SERVER/` in the place of every machine that
runs. `python -m tests.services.cluster_place PORT '{"seed": 1, "lost": 0.05, ...}'`
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from tornado.web import Application, HTTPError, RequestHandler

VERSION = "6.1.1"


@dataclass
class Machine:
    """One machine. `listed` and `booted` are times of the monotonic clock."""

    id: str
    deployment: str
    attempt: str
    instance: str
    prefix: str
    listed: float = 0.0
    booted: float = 0.0

    @property
    def seen(self) -> str:
        return "running" if time.monotonic() >= self.booted else "starting"


class Faults:
    """What goes wrong: shares from 0 to 1 and longest times in seconds, all drawn from one seed."""

    def __init__(
        self, seed: float = 0, lost: float = 0, silent: float = 0, late_seconds: float = 0, boot_seconds: float = 0
    ) -> None:
        self.dice = random.Random(seed)
        self.lost, self.silent, self.late_seconds, self.boot_seconds = lost, silent, late_seconds, boot_seconds

    def heal(self) -> None:
        self.lost = self.silent = self.late_seconds = 0


class Place:
    """All machines, and what a test wants to know of them at the end."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.machines: dict[str, Machine] = {}
        self.by_prefix: Counter[str] = Counter()
        self.made = 0
        self.looks = 0
        # Attempts that ever had two machines at once; attempts whose creation was not answered.
        self.doubled: list[str] = []
        self.unanswered: list[str] = []

    def create(self, asked: dict[str, str]) -> Machine:
        now, faults = time.monotonic(), self.faults
        if any(machine.attempt == asked["attempt"] for machine in self.machines.values()):
            self.doubled.append(asked["attempt"])
        self.made += 1
        machine = Machine(id=f"m{self.made}", **asked)
        machine.listed = now + faults.dice.uniform(0, faults.late_seconds)
        machine.booted = now + faults.dice.uniform(0, faults.boot_seconds)
        self.machines[machine.id] = machine
        self.by_prefix[machine.prefix] += 1
        return machine

    def end(self, asked: dict[str, str]) -> None:
        """Ends what a cloud would find: what is listed under the attempt, and what is named by its id."""
        now = time.monotonic()
        for machine in list(self.machines.values()):
            is_found = machine.id == asked["id"] or machine.listed <= now
            if (machine.deployment, machine.attempt) == (asked["deployment"], asked["attempt"]) and is_found:
                del self.machines[machine.id]
                self.by_prefix[machine.prefix] -= 1

    def listed(self, deployment: str) -> dict[str, Any]:
        now = time.monotonic()
        return {
            machine.attempt: {"id": machine.id, "seen": machine.seen}
            for machine in self.machines.values()
            if machine.deployment == deployment and machine.listed <= now
        }


class Answer(RequestHandler):
    """A handler that knows the place and sometimes does not answer."""

    def initialize(self, place: Place) -> None:
        self.place = place

    def prepare(self) -> None:
        if self.request.method != "GET":
            self.asked = json.loads(self.request.body or b"{}")

    def maybe_silent(self) -> None:
        if self.place.faults.dice.random() < self.place.faults.silent:
            raise HTTPError(503)

    def maybe_lost(self) -> bool:
        """Drops the connection instead of answering."""
        if self.place.faults.dice.random() >= self.place.faults.lost:
            return False
        self.request.connection.close()  # type: ignore[union-attr]
        return True


class Everything(Answer):
    def get(self) -> None:
        place = self.place
        machines = [{**asdict(machine), "seen": machine.seen} for machine in place.machines.values()]
        told = {"doubled": place.doubled, "unanswered": place.unanswered, "made": place.made, "looks": place.looks}
        self.write({"machines": machines, **told})


class Heal(Answer):
    def post(self) -> None:
        self.place.faults.heal()


class Resources(Answer):
    def post(self) -> None:
        machine = self.place.create(self.asked)
        if self.maybe_lost():
            self.place.unanswered.append(machine.attempt)
        else:
            self.write({"id": machine.id})


class Resource(Answer):
    async def get(self, key: str) -> None:
        """Answers when the machine has booted: hundreds that ask again and again would be a load of their own."""
        machine = self.place.machines.get(key)
        if machine is not None:
            await asyncio.sleep(machine.booted - time.monotonic())
        machine = self.place.machines.get(key)
        self.write({"seen": machine.seen if machine else "gone"})


class Listed(Answer):
    def get(self, deployment: str) -> None:
        self.place.looks += 1
        self.maybe_silent()
        self.write(self.place.listed(deployment))


class ListedOne(Answer):
    """What a start asks before it creates."""

    def get(self, deployment: str, attempt: str) -> None:
        self.write(self.place.listed(deployment).get(attempt, {}))


class End(Answer):
    def post(self) -> None:
        self.maybe_silent()
        self.place.end(self.asked)
        if not self.maybe_lost():
            self.write({})


class Instance(Answer):
    """What answers in a machine: the Hub asks it, and so do people."""

    def get(self, prefix: str) -> None:
        self.set_header("X-JupyterHub-Version", VERSION)
        if not self.place.by_prefix[prefix]:
            raise HTTPError(404)
        self.write({"prefix": prefix})


def make_app(place: Place) -> Application:
    routes = {
        r"/place": Everything,
        r"/place/heal": Heal,
        r"/place/resources": Resources,
        r"/place/resources/(\w+)": Resource,
        r"/place/listed/([\w-]+)": Listed,
        r"/place/listed/([\w-]+)/(\w+)": ListedOne,
        r"/place/end": End,
        r"(/user/[^/]+/[^/]+/).*": Instance,
    }
    return Application(
        [(path, kind, {"place": place}) for path, kind in routes.items()], log_function=lambda handler: None
    )


async def main(port: int, faults: dict[str, float]) -> None:
    make_app(Place(Faults(**faults))).listen(port, address="127.0.0.1")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
