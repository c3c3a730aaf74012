"""A day in a minute: 50 people, 500 instances, a place that errs, and a Hub that is killed every few seconds.

At the end nothing is lost, nothing is there twice and nothing runs that nobody wants. The seed is printed; the same
seed plays the same people and the same faults, as far as the machine's own timing allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import pytest

from tests.services.cluster import Cluster
from tests.services.hub import RunningHub, free_ports, running, wait_until
from visahub.model.account import Identity
from visahub.model.instance import Instance, Phase, Want, new_instance_id
from visahub.store.database import Store
from visahub.store.events import replay

from .conftest import OWN, choices

pytestmark = [pytest.mark.services, pytest.mark.slow]

PEOPLE, EACH = 50, 10
KILLS, KILL_SECONDS = 6, (3.0, 8.0)
# How long somebody pauses, and how much longer after an answer that something is away or too much.
PAUSE_SECONDS, PATIENCE_SECONDS = (0.5, 2.5), (2.0, 6.0)
PORTAL = "/services/visahub"
# A lost start is an error that its user is told; late listings are shorter than the grace time, as its help asks for.
FAULTS = {"lost": 0.02, "silent": 0.05, "late_seconds": 1.5, "boot_seconds": 1.5}
GRACE_SECONDS = 4
OPEN = replace(OWN, public_at=date(2026, 2, 1))
_MORE = """
c.JupyterHub.log_level = "INFO"
c.Visahub.backends = ["tests.services.cluster.ClusterBackend"]
c.ClusterBackend.url = {url!r}
c.Visahub.grace_seconds = {grace}
c.Visahub.start_seconds = 600
c.JupyterHub.concurrent_spawn_limit = 100
c.Visahub.environments = [{{"id": "tiny", "name": "Tiny", "has_desktop": False, "images": {{"cluster": "tiny"}}}}]
c.Visahub.hardware = [
    {{"id": "small", "name": "Small", "backend": "cluster", "place": "There", "cores": 1, "memory_mb": 2048}}
]
"""


@dataclass
class Facility:
    """The Hub, its portal as a unit of its own, the place, and our database."""

    hub: RunningHub
    cluster: Cluster
    store: Store
    portal: subprocess.Popen[bytes]
    # What each server may be wanted to be at the end: a wish that got no answer leaves two possibilities.
    wishes: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(lambda: {"none"}))
    answers: Counter[str] = field(default_factory=Counter)

    def rows(self) -> dict[str, Instance]:
        """Gives every row that ever was, by its server's name."""
        with self.store.database.read() as connection:
            attempts = connection.exec_driver_sql("SELECT attempt FROM instances").scalars().all()
        return {row.server_name: row for row in self.store.instances.by_attempts(attempts).values()}


@pytest.fixture
def facility(tmp_path: Path, seed: int) -> Iterator[Facility]:
    with contextlib.ExitStack() as stack:
        (port,) = free_ports(1)
        cluster = Cluster(tmp_path, port, seed=seed, **FAULTS)
        stack.callback(cluster.close)
        wait_until(cluster.is_up, "the place answers")
        more = _MORE.format(url=cluster.url, grace=GRACE_SECONDS)
        hub = stack.enter_context(running(tmp_path, more=more))
        store = Store(f"sqlite:///{hub.state / 'visahub.sqlite'}")
        stack.callback(store.close)
        store.experiments.replace_source("tests", [OPEN], datetime.now(UTC))
        portal = _portal(hub)
        stack.callback(portal.wait)
        stack.callback(portal.terminate)
        wait_until(hub.has_portal, "the portal answers", portal)
        yield Facility(hub, cluster, store, portal)


@pytest.fixture
def seed() -> int:
    """Gives the seed: VISAHUB_SEED plays a day again."""
    chosen = int(os.environ.get("VISAHUB_SEED") or secrets.randbelow(10**6))
    print(f"VISAHUB_SEED={chosen}")
    return chosen


def _portal(hub: RunningHub) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "JUPYTERHUB_API_URL": hub.api_url}
    environ["VISAHUB_PORTAL_TOKEN"] = hub.portal_token
    command = [sys.executable, "-m", "visahub.cli", "portal", "--config", str(hub.config_file)]
    with (hub.state / "portal.log").open("ab") as log:
        return subprocess.Popen(command, env=environ, cwd=hub.state, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Person:
    """Somebody who starts, stops, starts again, deletes and reloads, through every door."""

    def __init__(self, facility: Facility, client: httpx.AsyncClient, name: str, dice: random.Random) -> None:
        self.facility, self.client, self.name, self.dice = facility, client, name, dice
        self.token = ""
        self.is_refused = False
        self.servers: list[str] = []
        self.deleted: set[str] = set()

    def enter(self) -> None:
        """What a first login leaves; the login page itself would take longer than all of the day."""
        hub, identity = self.facility.hub, Identity(issuer="day", subject=self.name, username=self.name, quota=EACH)
        self.facility.store.accounts.enter(identity, uid_min=20000)
        assert hub.api("POST", f"/users/{self.name}").status_code == 201
        self.token = hub.token(self.name)

    async def live(self, is_over: asyncio.Event) -> None:
        """Goes on until the day is over, at least until all instances of one's own have been started once."""
        while not is_over.is_set() or len(self.servers) < EACH:
            await asyncio.sleep(self.dice.uniform(*PAUSE_SECONDS))
            if self.is_refused:
                self.is_refused = False
                await asyncio.sleep(self.dice.uniform(*PATIENCE_SECONDS))
            if len(self.servers) < EACH and self.dice.random() < 0.7:
                await self.start_new()
            else:
                acts = [self.reload, self.look, self.watch, self.stop, self.stop, self.start_again, self.start_again]
                acts.append(self.delete)
                await self.dice.choice(acts)()

    async def start_new(self) -> None:
        server = new_instance_id()
        if self.dice.random() < 0.5:
            if await self._start(server):
                self.servers.append(server)
            return
        answer = await self._ask("POST", f"{PORTAL}/api/instances", choices())
        if answer is not None and answer.status_code == 201:
            server = answer.json()["server_name"]
            self.servers.append(server)
            self.facility.wishes[self.name, server] = {"on"}
        elif answer is None or answer.status_code >= 500:
            # Was it kept? The page of instances tells.
            await self.reload()

    async def start_again(self) -> None:
        if self.servers:
            await self._start(self.dice.choice(self.servers))

    async def _start(self, server: str) -> bool:
        body = {"display_name": "", "user_options": choices()}
        return await self._wish("on", server, "POST", f"/hub/api/users/{self.name}/servers/{server}", body)

    async def stop(self) -> None:
        if self.servers:
            server = self.dice.choice(self.servers)
            if self.dice.random() < 0.5:
                await self._wish("off", server, "DELETE", f"/hub/api/users/{self.name}/servers/{server}")
            else:
                await self._wish("off", server, "POST", f"{PORTAL}/api/instances/{server}/stop", {})

    async def delete(self) -> None:
        """Only late in the day, so that its number of instances is reached."""
        if len(self.servers) == EACH and self.dice.random() < 0.3:
            server = self.dice.choice(self.servers)
            self.servers.remove(server)
            self.deleted.add(server)
            await self._wish("gone", server, "DELETE", f"{PORTAL}/api/instances/{server}")

    async def reload(self) -> None:
        answer = await self._ask("GET", f"{PORTAL}/api/instances")
        if answer is not None and answer.status_code == 200:
            for told in answer.json()["instances"]:
                server = told["server_name"]
                if server not in self.deleted.union(self.servers):
                    # Started although its answer was lost.
                    self.servers.append(server)
                    self.facility.wishes[self.name, server] |= {"on", told["want"]}

    async def look(self) -> None:
        await self._ask("GET", f"{PORTAL}/")

    async def watch(self) -> None:
        """Looks at the live page for a moment, and goes away."""
        with contextlib.suppress(httpx.HTTPError):
            async with self.client.stream("GET", f"{PORTAL}/events", headers=self._headers(), timeout=2) as stream:
                self.facility.answers[f"stream {stream.status_code}"] += 1
                async for _ in stream.aiter_lines():
                    break

    async def _wish(self, want: str, server: str, method: str, path: str, body: object = None) -> bool:
        """Asks for something; remembers what may be so from now on. Tells whether the wish is kept."""
        key, wishes = (self.name, server), self.facility.wishes
        answer = await self._ask(method, path, body)
        # The Hub's own 202 to a start comes after a second, also when it has not yet asked whether it is allowed.
        is_unsure = answer is not None and answer.status_code == 202 and want == "on"
        if answer is None or answer.status_code >= 500 or is_unsure:
            wishes[key] = wishes[key] | {want}
            return is_unsure and await self._is_kept(server)
        if answer.status_code < 300:
            wishes[key] = {want}
            return True
        return False

    async def _is_kept(self, server: str) -> bool:
        """Looks, as the Hub's documentation says after a 202."""
        answer = await self._ask("GET", f"{PORTAL}/api/instances/{server}")
        if answer is None or answer.status_code != 200 or answer.json()["want"] != "on":
            return False
        self.facility.wishes[self.name, server] = {"on"}
        return True

    async def _ask(self, method: str, path: str, body: object = None) -> httpx.Response | None:
        try:
            answer = await self.client.request(method, path, json=body, headers=self._headers())
        except httpx.HTTPError as error:
            self.facility.answers[f"{method} {type(error).__name__}"] += 1
            self.is_refused = True
            return None
        self.facility.answers[f"{method} {answer.status_code}"] += 1
        self.is_refused = answer.status_code in {429, 500, 502, 503, 504}
        return answer

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"}


async def kill_again_and_again(facility: Facility, dice: random.Random) -> None:
    """Kills the Hub every few seconds, wherever it is in its work."""
    hub = facility.hub
    for _ in range(KILLS):
        await asyncio.sleep(dice.uniform(*KILL_SECONDS))
        hub.kill()
        await asyncio.to_thread(hub.start)


async def play(facility: Facility, seed: int) -> None:
    """Lets everybody live while the Hub dies again and again."""
    dice = random.Random(seed)
    limits = httpx.Limits(max_connections=PEOPLE * 2)
    async with httpx.AsyncClient(base_url=facility.hub.url, limits=limits, timeout=60) as client:
        people = [Person(facility, client, f"person{n:02}", random.Random(f"{seed}-{n}")) for n in range(PEOPLE)]
        for person in people:
            await asyncio.to_thread(person.enter)
        is_over = asyncio.Event()
        lives = [asyncio.create_task(person.live(is_over)) for person in people]
        await kill_again_and_again(facility, dice)
        is_over.set()
        await asyncio.gather(*lives)


def unsettled(facility: Facility) -> list[str]:
    """Says of each row and each machine what is not yet as wanted."""
    rest = {
        Want.ON: {Phase.READY},
        Want.OFF: {Phase.STOPPED, Phase.ERROR},
        Want.GONE: {Phase.GONE},
    }
    rows = facility.rows().values()
    found = [f"{row.id}: {row.want}, {row.phase}" for row in rows if row.phase not in rest[row.want]]
    wanted = {row.attempt for row in rows if row.phase is Phase.READY}
    there = Counter(machine["attempt"] for machine in facility.cluster.told()["machines"])
    found += [f"lost: {attempt}" for attempt in wanted - set(there)]
    found += [f"stray: {attempt}" for attempt in set(there) - wanted]
    return found + [f"doubled: {attempt}" for attempt, count in there.items() if count > 1]


@pytest.mark.timeout(900)
def test_a_day_in_a_minute(facility: Facility, seed: int) -> None:
    began = time.monotonic()
    asyncio.run(play(facility, seed))
    print(f"played {time.monotonic() - began:.0f} s: {dict(facility.answers)}")
    facility.cluster.heal()
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not unsettled(facility), "everything is as wanted", seconds=240)
    rows, told = facility.rows(), facility.cluster.told()
    phases = Counter(row.phase.value for row in rows.values())
    print(f"settled after {time.monotonic() - began:.0f} s: {dict(phases)}, {told['made']} machines")
    assert unsettled(facility) == []
    assert told["doubled"] == []
    check_wishes(facility, rows, told["unanswered"])
    assert len(rows) >= PEOPLE * EACH
    check_the_hub_agrees(facility, rows)
    check_events(facility, rows)


def check_wishes(facility: Facility, rows: dict[str, Instance], unanswered: list[str]) -> None:
    """What each person was told last is what is; a start ended by itself only when the place gave no answer."""
    for (owner, server), wishes in facility.wishes.items():
        row = rows.get(server)
        if row is None:
            assert "none" in wishes, (owner, server, wishes)
            continue
        if row.phase is Phase.ERROR and "on" in wishes:
            assert row.attempt in unanswered, row
            assert row.sentence
        else:
            assert row.want.value in wishes, (row, wishes)


def check_the_hub_agrees(facility: Facility, rows: dict[str, Instance]) -> None:
    """The Hub leads to each ready instance and to no other, as soon as its polls and a round have been there."""
    hub = facility.hub
    ready = {name for name, row in rows.items() if row.phase is Phase.READY}

    def known() -> set[str]:
        users = hub.api("GET", "/users?limit=200").json()
        return {name for user in users for name, server in user["servers"].items() if server["ready"]}

    def unreachable() -> list[str]:
        with httpx.Client(base_url=hub.url, timeout=60) as client:
            return [name for name in ready if client.get(f"/user/{rows[name].owner}/{name}/api").status_code != 200]

    with contextlib.suppress(AssertionError):
        wait_until(lambda: known() == ready, "the Hub knows what runs", seconds=120)
    assert known() == ready
    wait_until(lambda: not unreachable(), "everything can be reached", seconds=120)


def check_events(facility: Facility, rows: dict[str, Instance]) -> None:
    for row in rows.values():
        assert replay(facility.store.instances.events(row.id)) is row.phase, row
