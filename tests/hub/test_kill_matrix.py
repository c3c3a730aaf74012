"""kill -9 between any two steps of an instance's life, of the Hub, the portal and the proxy (F1).

However it goes: exactly one instance or none, as the step says, nothing doubled, nothing stray, the quota right, and
the person is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.dying import STEPS
from tests.services.hub import RunningHub, running, wait_until
from visahub.model.instance import Instance, Phase
from visahub.portal.hubapi import HubApi
from visahub.store.events import replay

from .conftest import OTHERS, OWN, Asking, choices

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[2]
API = "/services/visahub/api/instances"
START = [step.name for step in STEPS[: [step.name for step in STEPS].index("stop wished")] if step.owner is not HubApi]
STOP = [step.name for step in STEPS if "stop" in step.name]
DELETE = [step.name for step in STEPS if "delet" in step.name]
# A dead proxy is the same at every moment for the Hub; for a start these are the moments that differ.
PROXY_START = ["before the row", "process made", "ready not acknowledged", "ready"]


class House:
    """The Hub, the proxy and the portal, which is a unit of its own here, so that each can be killed alone."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.asking = Asking(hub)
        self.portal: subprocess.Popen[bytes] | None = None

    def start_portal(self) -> None:
        """What a unit of systemd does."""
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "VISAHUB_PORTAL_TOKEN": self.hub.portal_token,
            "JUPYTERHUB_API_URL": self.hub.api_url,
        }
        command = [sys.executable, "-m", "visahub.cli", "portal", "--config", str(self.hub.config_file)]
        with (self.hub.state / "portal.log").open("ab") as log:
            self.portal = subprocess.Popen(
                command, env=environ, cwd=self.hub.state, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill_at(self, step: str, victim: str) -> None:
        """Arms a step; the process that comes to it kills the victim."""
        pids = {"hub": self.hub.pid, "portal": self.portal.pid if self.portal else 0, "proxy": self.hub.proxy_pid}
        order = self.hub.state / "order"
        order.write_text(json.dumps({"step": step, "pid": pids[victim]}))
        order.rename(self.hub.state / "die")

    def revive(self, victim: str) -> None:
        """Waits for the death, and starts what died."""
        wait_until(lambda: not (self.hub.state / "die").exists(), "the step was reached")
        if victim == "hub":
            self.hub.kill()
            self.hub.start()
        elif victim == "proxy":
            self.hub.kill_proxy()
            self.hub.start_proxy()
            # The Hub's next round sets the routes again.
            self.settle()
        else:
            assert self.portal is not None
            self.portal.wait(20)
            self.start_portal()
        wait_until(self.hub.has_portal, "the portal answers")

    def ask(self, method: str, path: str = "", body: Any = None) -> httpx.Response | None:
        """Asks the portal as alice, None when the answer never came."""
        headers = {"Authorization": f"token {self.asking.token('alice')}"}
        with contextlib.suppress(httpx.HTTPError):
            return httpx.request(method, f"{self.hub.url}{API}{path}", headers=headers, json=body, timeout=30)
        return None

    def rows(self) -> list[Instance]:
        account = self.asking.store.accounts.named("alice")
        assert account is not None
        return self.asking.store.instances.of_owner(account.id)

    def settle(self) -> None:
        """Asks for a round, as the portal's clock does."""
        answer = self.hub.api("POST", "/visahub/round", token=self.hub.portal_token, body={})
        # 409: the portal's own round is under way.
        assert answer.status_code in {200, 409}, answer.text
        # Who asks until something holds leaves the machine time for it.
        time.sleep(0.2)

    def started(self) -> Instance:
        answer = self.ask("POST", body=choices())
        assert answer is not None and answer.status_code == 201, answer
        (row,) = self.rows()
        self.hub.wait_ready("alice", row.server_name)
        return row

    def keepers(self) -> list[int]:
        """Gives the keepers of this Hub's instances, by the log that they write."""
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(process / "fd" / "1").startswith(f"{self.hub.run_root}/"):
                        found.append(int(process.name))
        return found

    def run_directories(self) -> list[str]:
        return [path.parent.name for path in self.hub.run_root.glob("*/*/record.json")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    more = "from tests.services import dying\ndying.arm(state)"
    with running(tmp_path_factory.mktemp("hub"), more=more) as hub:
        made = House(hub)
        made.asking.experiments(OWN, OTHERS)
        made.start_portal()
        wait_until(hub.has_portal, "the portal answers", made.portal)
        made.asking.token("alice")
        yield made
        assert made.portal is not None
        made.portal.terminate()
        made.portal.wait(10)
        made.asking.store.close()


@pytest.fixture(autouse=True)
def empty(house: House) -> Iterator[None]:
    """Each test begins and ends with nothing."""
    yield
    (house.hub.state / "die").unlink(missing_ok=True)
    for row in house.rows():
        house.ask("DELETE", f"/{row.id}")
    wait_until(lambda: not house.rows() or house.settle(), "nothing is left")


def victims(steps: list[str], proxy_steps: list[str]) -> list[Any]:
    return [(victim, step) for victim in ("hub", "portal") for step in steps] + [
        ("proxy", step) for step in proxy_steps
    ]


@pytest.mark.parametrize(("victim", "step"), victims(START, PROXY_START))
def test_f1_killed_in_a_start(house: House, victim: str, step: str) -> None:
    house.kill_at(step, victim)
    answer = house.ask("POST", body=choices())
    house.revive(victim)
    if (victim, step) == ("hub", "before the row"):
        # The person is told, and nothing exists.
        assert answer is not None and answer.status_code == 503, answer
        assert "The Hub does not answer" in answer.json()["message"]
        check_nothing(house)
        return
    check_one(house)


@pytest.mark.parametrize("step", ["start not asked", "start answered"])
def test_f1_the_portal_killed_beside_its_question(house: House, step: str) -> None:
    house.kill_at(step, "portal")
    answer = house.ask("POST", body=choices())
    assert answer is None or answer.status_code == 503
    house.revive("portal")
    (check_nothing if step == "start not asked" else check_one)(house)


@pytest.mark.parametrize(("victim", "step"), victims(STOP, STOP[-1:]))
def test_f1_killed_in_a_stop(house: House, victim: str, step: str) -> None:
    row = house.started()
    house.kill_at(step, victim)
    house.ask("POST", f"/{row.id}/stop")
    house.revive(victim)
    wait_for_phase(house, Phase.STOPPED)
    (stopped,) = house.rows()
    assert stopped.attempt == row.attempt
    assert told(house) == ["stopped"]
    check_gone(house)
    # It can be started again, once more with everything of its own.
    answer = house.ask("POST", f"/{row.id}/start")
    assert answer is not None and answer.status_code == 202, answer
    check_one(house)


@pytest.mark.parametrize(("victim", "step"), victims(DELETE, DELETE[-1:]))
def test_f1_killed_in_a_deletion(house: House, victim: str, step: str) -> None:
    row = house.started()
    house.kill_at(step, victim)
    house.ask("DELETE", f"/{row.id}")
    house.revive(victim)
    check_nothing(house)
    gone = house.asking.store.instances.get(row.id)
    assert gone is not None and gone.phase is Phase.GONE


def wait_for_phase(house: House, phase: Phase) -> None:
    end = time.monotonic() + 60
    while [row.phase for row in house.rows()] != [phase]:
        assert time.monotonic() < end, f"{house.rows()}\n{house.hub.tail()}"
        house.settle()
        time.sleep(0.3)


def told(house: House) -> list[str]:
    """Gives the phases as the portal tells them to the person."""
    answer = house.ask("GET")
    assert answer is not None and answer.status_code == 200, answer
    return [each["phase"] for each in answer.json()["instances"]]


def check_one(house: House) -> None:
    """Exactly one instance: one row, one attempt, one process, one keeper, one directory, and its page."""
    wait_for_phase(house, Phase.READY)
    (row,) = house.rows()
    house.hub.wait_ready("alice", row.server_name)
    house.settle()
    wait_until(lambda: len(house.hub.instance_pids()) == len(house.keepers()) == 1, "one process and its keeper run")
    assert house.run_directories() == [row.attempt[:12]]
    events = house.asking.store.instances.events(row.id)
    assert replay(events) is Phase.READY
    assert sum(event.kind == "ready" and event.attempt == row.attempt for event in events) == 1
    assert told(house) == ["ready"]
    assert house.asking.visit(row.server_name)["environ"]["VISAHUB_INSTANCE"] == row.id
    assert servers(house) == [row.server_name]


def check_gone(house: House) -> None:
    """Nothing runs and nothing of it lies about."""
    wait_until(lambda: not house.hub.instance_pids() and not house.keepers(), "no process is left")
    assert house.run_directories() == []


def check_nothing(house: House) -> None:
    """No instance: not in our table, so not in the quota, not in the Hub, and nothing outside."""
    wait_until(lambda: not house.rows() or house.settle(), "no row is left")
    # A record of the Hub alone goes after two rounds.
    wait_until(lambda: not servers(house) or house.settle(), "no record of the Hub is left")
    check_gone(house)
    assert told(house) == []


def servers(house: House) -> list[str]:
    """Gives the named servers that the Hub keeps for alice."""
    return [name for (name,) in house.asking.hub_query("SELECT name FROM spawners WHERE name != ''")]
