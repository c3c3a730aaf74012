"""The portal behind a real Hub and proxy, started by the Hub as in production; its instances are real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import pytest

from tests.services.hub import RunningHub, running, wait_until
from visahub.model.experiment import Experiment
from visahub.store.database import Store

pytestmark = [pytest.mark.services, pytest.mark.slow]

PORTAL = "/services/visahub/"
OPEN = Experiment(
    id="xfel/1",
    proposal="p1",
    title="Open data of a test",
    instrument="P03",
    start=date(2020, 1, 1),
    end=date(2020, 1, 3),
    public_at=date(2021, 1, 1),
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as one:
        store = Store(f"sqlite:///{one.state / 'visahub.sqlite'}")
        store.experiments.replace_source("tests", [OPEN], datetime.now(UTC))
        store.close()
        wait_until(lambda: httpx.get(f"{one.url}{PORTAL}health").status_code == 200, "the portal answers")
        yield one


def enter(hub: RunningHub, username: str) -> httpx.Client:
    """Logs in at the Hub and goes on to the portal, as the browser is led."""
    session = hub.login(username)
    session.follow_redirects = True
    page = session.get(PORTAL)
    assert page.status_code == 200, page.text
    assert "My instances" in page.text
    return session


def xsrf(session: httpx.Client) -> str:
    return next(c.value or "" for c in session.cookies.jar if c.name == "_xsrf" and c.path == PORTAL)


def post(session: httpx.Client, path: str, **data: str) -> httpx.Response:
    return session.post(PORTAL + path, data={"_xsrf": xsrf(session)} | data, follow_redirects=False)


def choices(server: str, **changes: str) -> dict[str, str]:
    usual = {"experiment": "xfel/1", "environment": "tiny", "hardware": "small", "name": "real-one"}
    return {"server_name": server} | usual | changes


def phase(session: httpx.Client, instance: str) -> str:
    headers = {"X-XSRFToken": xsrf(session)}
    answer = session.get(f"{PORTAL}api/instances/{instance}", headers=headers)
    return answer.json()["phase"] if answer.status_code == 200 else "absent"


def test_whole_life(hub: RunningHub) -> None:
    with closing(enter(hub, "alice")) as alice:
        assert "You have no instance yet" in alice.get(PORTAL).text
        assert "Open data of a test" in alice.get(f"{PORTAL}new?experiment=xfel/1").text
        for _ in range(2):
            started = post(alice, "instances", **choices("ireal00001"))
            assert started.status_code == 303, started.text
            assert started.headers["location"] == f"{PORTAL}instances/ireal00001/progress"
        wait_until(lambda: phase(alice, "ireal00001") == "ready", "the instance is ready")
        page = alice.get(PORTAL).text
        assert page.count('<article class="vh-instance"') == 1
        wait_until(lambda: alice.get("/user/alice/ireal00001/api").status_code == 200, "the proxy leads there")
        assert post(alice, "instances/ireal00001/stop").status_code == 303
        wait_until(lambda: phase(alice, "ireal00001") == "stopped", "it has stopped")
        assert "Its files are kept" in alice.get(PORTAL).text
        assert post(alice, "instances/ireal00001/start").status_code == 303
        wait_until(lambda: phase(alice, "ireal00001") == "ready", "it runs again")
        assert post(alice, "instances/ireal00001/restart").status_code == 303
        wait_until(lambda: phase(alice, "ireal00001") == "ready", "it runs once more")
        assert post(alice, "instances/ireal00001/delete").status_code == 303
        wait_until(lambda: phase(alice, "ireal00001") == "absent", "it is gone")
    wait_until(lambda: hub.server("alice", "ireal00001") is None, "the Hub has forgotten it")


def test_refusal_of_the_rules_comes_back_with_the_form(hub: RunningHub) -> None:
    with closing(enter(hub, "bob")) as bob:
        refused = post(bob, "instances", **choices("ireal00002", hardware="large"))
        assert refused.status_code == 403
        assert "Only for staff. Ask your local contact." in refused.text
        assert 'value="real-one"' in refused.text


def test_events_of_a_start_are_streamed(hub: RunningHub) -> None:
    with closing(enter(hub, "carla")) as carla:
        assert post(carla, "instances", **choices("ireal00003")).status_code == 303
        said = ""
        address = f"{PORTAL}instances/ireal00003/events"
        with carla.stream("GET", address, params={"_xsrf": xsrf(carla)}, timeout=60) as stream:
            for text in stream.iter_text():
                said += text
        assert "event: progress" in said
        assert 'event: ready\ndata: {"address": "/user/carla/ireal00003/"}' in said
        assert carla.get("/user/carla/ireal00003/api").status_code == 200
        post(carla, "instances/ireal00003/delete")


def test_token_of_a_person_serves_the_api(hub: RunningHub) -> None:
    hub.login("alice").close()
    headers = {"Authorization": f"token {hub.token('alice')}"}
    with httpx.Client(base_url=hub.url + PORTAL, headers=headers, timeout=60) as client:
        body = {"experiments": ["xfel/1"], "environment": "tiny", "hardware": "small"}
        made = client.post("api/instances", json=body)
        assert made.status_code == 201, made.text
        path = f"api/instances/{made.json()['id']}"
        wait_until(lambda: client.get(path).json()["phase"] == "ready", "it is ready")
        assert client.delete(path).status_code == 204
        wait_until(lambda: client.get(path).status_code == 404, "it is gone")


def test_metrics_for_whom_the_hub_allows_it(hub: RunningHub) -> None:
    answer = httpx.get(f"{hub.url}{PORTAL}metrics", headers={"Authorization": f"token {hub.admin_token}"})
    assert answer.status_code == 200
    assert 'visahub_rounds_total{outcome="done"}' in answer.text


def test_no_secret_in_the_log(hub: RunningHub) -> None:
    with closing(enter(hub, "alice")) as alice:
        token = xsrf(alice)
        alice.get(f"{PORTAL}experiments", params={"_xsrf": token, "token": "sesame-open"})
    log = hub.log.read_text()
    assert token not in log
    assert "sesame-open" not in log


def test_portal_dies_with_a_killed_hub_and_comes_back(hub: RunningHub) -> None:
    before = portal_pid(hub)
    hub.kill()
    wait_until(lambda: has_ended(before), "the portal has ended with its Hub")
    hub.start()
    wait_until(lambda: httpx.get(f"{hub.url}{PORTAL}health").status_code == 200, "the portal is back")
    assert portal_pid(hub) != before
    with closing(enter(hub, "bob")):
        pass


def test_portal_ends_in_order(hub: RunningHub) -> None:
    pid = portal_pid(hub)
    with closing(enter(hub, "bob")) as bob, bob.stream("GET", f"{PORTAL}events", params={"_xsrf": xsrf(bob)}) as stream:
        assert stream.status_code == 200
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: has_ended(pid), "the portal has ended", seconds=15)
        assert time.monotonic() - began < 10
    # The Hub would start it again after half a minute; the other tests need not wait for that.
    hub.stop()
    hub.start()
    wait_until(lambda: httpx.get(f"{hub.url}{PORTAL}health").status_code == 200, "the portal is back")


def portal_pid(hub: RunningHub) -> int:
    """Finds the portal of this Hub by its command."""
    mark = f"portal\0--config\0{hub.config_file}".encode()
    found = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and mark in _command(p)]
    assert len(found) == 1, found
    return found[0]


def has_ended(pid: int) -> bool:
    """Tells whether a process has ended, also when nobody has asked yet how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
