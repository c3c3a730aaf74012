"""The portal as the Hub starts it: login, the instance's own report, and what happens when one of them is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.services.hub import running, wait_until
from visahub import doctor
from visahub.model.instance import Phase

from .conftest import OTHERS, OWN, Asking

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


def portals(asking: Asking) -> list[int]:
    """Gives the portal's processes."""
    mark = str(asking.hub.config_file).encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if mark in line and b"portal" in line:
                found.append(int(process.name))
    return found


def landed(asking: Asking) -> httpx.Response:
    """Follows a login to where it ends."""
    with closing(asking.hub.login("alice")) as session:
        response = session.get("/hub/")
        for _ in range(10):
            if response.status_code not in {301, 302, 303}:
                break
            response = session.get(response.headers["location"])
    return response


def test_a_login_lands_in_the_portal(asking: Asking) -> None:
    response = landed(asking)
    assert response.status_code == 200
    assert "My instances" in response.text
    assert str(response.url).endswith("/services/visahub/")


def test_an_instance_reports_with_its_own_token(asking: Asking) -> None:
    server = asking.started()
    environ = asking.visit(server)["environ"]
    address = f"{environ['VISAHUB_PORTAL'].rstrip('/')}/api/instances/{environ['VISAHUB_INSTANCE']}/activity"
    response = httpx.post(
        address,
        json={"last_activity": "2026-01-01T00:00:00+00:00"},
        headers={"Authorization": f"token {environ['JUPYTERHUB_API_TOKEN']}"},
        timeout=20,
    )
    assert response.status_code == 204, response.text
    assert asking.row(server).last_activity is not None


def test_the_portals_clock_asks_for_rounds(asking: Asking) -> None:
    server = asking.started()
    for pid in asking.hub.instance_pids():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: asking.row(server).phase in {Phase.STOPPED, Phase.ERROR}, "the end is noticed")


def test_a_killed_hub_leaves_no_second_portal(asking: Asking) -> None:
    asking.hub.kill()
    wait_until(lambda: not portals(asking), "the portal has ended with its Hub")
    asking.hub.start()
    wait_until(asking.hub.has_portal, "the portal answers again")
    assert len(portals(asking)) == 1
    assert landed(asking).status_code == 200


def test_a_portal_that_died_is_seen_by_the_doctor_and_by_whoever_watches(asking: Asking) -> None:
    wait_until(asking.hub.is_settled, "the Hub has finished its start")
    for _ in range(3):
        wait_until(lambda: asking.hub.has_portal() and portals(asking), "the portal answers")
        os.kill(portals(asking)[0], signal.SIGKILL)
        wait_until(lambda: not portals(asking), "it is dead")
        health = httpx.get(f"{asking.hub.url}/services/visahub/health", timeout=20)
        found = {finding.check: finding for finding in doctor.examine(asking.hub.config_file)}["running portal"]
        # The Hub looks now and then, and may have started it again meanwhile.
        if not portals(asking):
            break
    assert health.status_code == 503
    assert found.grade is doctor.Grade.PROBLEM
    assert "The Hub starts it again within half a minute" in found.sentence
