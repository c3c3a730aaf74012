"""The Hub is killed and started again at every moment of an instance's life: exactly one process, nothing lost."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.services.hub import wait_until
from visahub.model.instance import Phase, Want, new_instance_id
from visahub.model.request import StartRequest

from .conftest import Asking, choices

pytestmark = pytest.mark.services


def restart(asking: Asking) -> None:
    asking.hub.kill()
    asking.hub.start()


def rounds_until(asking: Asking, server: str, phase: Phase) -> None:
    """Asks for rounds, as the portal's clock does, until a row is in a phase."""
    end = time.monotonic() + 60
    while asking.row(server).phase is not phase:
        assert time.monotonic() < end, f"{asking.row(server)}\n{asking.hub.tail()}"
        asking.hub.round()
        time.sleep(0.5)


def test_a_ready_instance_goes_on(asking: Asking) -> None:
    server = asking.started()
    before = asking.visit(server)
    asking.hub.kill()
    # The proxy leads to it while the Hub is away.
    assert asking.visit(server)["pid"] == before["pid"]
    asking.hub.start()
    asking.hub.wait_ready("alice", server)
    assert asking.visit(server)["pid"] == before["pid"]
    assert asking.row(server).phase is Phase.READY
    # Its token is still good, and dies with the attempt.
    token = before["environ"]["JUPYTERHUB_API_TOKEN"]
    assert asking.hub.api("GET", "/user", token=token).status_code == 200
    assert asking.ask("DELETE", server).status_code in {202, 204}
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")
    assert asking.hub.api("GET", "/user", token=token).status_code == 403
    assert asking.hub.instance_pids() == []


def test_an_orderly_restart_leaves_it_alone(asking: Asking) -> None:
    server = asking.started()
    before = asking.visit(server)
    asking.hub.stop()
    asking.hub.start()
    asking.hub.wait_ready("alice", server)
    assert asking.visit(server)["pid"] == before["pid"]


def test_an_orderly_end_of_the_hub_leaves_a_start_to_the_next_one(asking: Asking) -> None:
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    wait_until(asking.hub.instance_pids, "its process runs")
    attempt, pids = asking.row(server).attempt, asking.hub.instance_pids()
    asking.hub.stop()
    assert (asking.row(server).phase, asking.row(server).want) == (Phase.STARTING, Want.ON)
    assert asking.hub.instance_pids() == pids
    asking.hub.start()
    (asking.home() / "slow").unlink()
    asking.hub.wait_ready("alice", server)
    assert asking.row(server).phase is Phase.READY
    assert asking.row(server).attempt == attempt
    asking.hub.round()
    assert asking.visit(server)["path"] == f"/user/alice/{server}/api"


def test_a_start_that_runs_is_adopted(asking: Asking) -> None:
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    wait_until(asking.hub.instance_pids, "its process runs")
    attempt, pids = asking.row(server).attempt, asking.hub.instance_pids()
    asking.hub.kill()
    asking.hub.start()
    asking.hub.round()
    (asking.home() / "slow").unlink()
    asking.hub.wait_ready("alice", server)
    assert asking.row(server).phase is Phase.READY
    assert asking.row(server).attempt == attempt
    assert set(asking.hub.instance_pids()) <= set(pids)
    asking.hub.round()
    token = asking.visit(server)["environ"]["JUPYTERHUB_API_TOKEN"]
    assert asking.hub.api("GET", "/user", token=token).status_code == 200


def test_a_start_that_became_ready_meanwhile_is_adopted(asking: Asking) -> None:
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    wait_until(asking.hub.instance_pids, "its process runs")
    asking.hub.kill()
    (asking.home() / "slow").unlink()
    time.sleep(0.5)
    asking.hub.start()
    asking.hub.wait_ready("alice", server)
    assert asking.row(server).phase is Phase.READY
    asking.hub.round()
    assert asking.visit(server)["path"] == f"/user/alice/{server}/api"


def test_f1_a_start_that_the_hub_had_not_kept_is_found_by_its_name(asking: Asking) -> None:
    """Killed after our commit, before the Hub kept the attempt: a stop must not be confirmed that stops nothing."""
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    wait_until(asking.hub.instance_pids, "its process runs")
    attempt = asking.row(server).attempt
    asking.hub.kill()
    with closing(sqlite3.connect(asking.hub.state / "jupyterhub.sqlite")) as database, database:
        (state,) = database.execute("SELECT state FROM spawners WHERE name = ?", [server]).fetchone()
        kept = {key: value for key, value in json.loads(state).items() if key != "attempt"}
        database.execute("UPDATE spawners SET state = ? WHERE name = ?", [json.dumps(kept), server])
    asking.hub.start()
    (asking.home() / "slow").unlink()
    asking.hub.wait_ready("alice", server)
    assert (asking.row(server).attempt, asking.row(server).phase) == (attempt, Phase.READY)
    asking.hub.round()
    token = asking.visit(server)["environ"]["JUPYTERHUB_API_TOKEN"]
    assert asking.hub.api("GET", "/user", token=token).status_code == 200
    assert asking.ask("DELETE", server).status_code in {202, 204}
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")


def test_a_start_whose_process_died_meanwhile_ends_or_is_retried(asking: Asking) -> None:
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    wait_until(asking.hub.instance_pids, "its process runs")
    asking.hub.kill()
    for pid in asking.hub.instance_pids():
        os.kill(pid, 9)
    (asking.home() / "slow").unlink()
    asking.hub.start()
    asking.hub.wait_ready("alice", server)
    asking.hub.round()
    assert asking.visit(server)["path"] == f"/user/alice/{server}/api"
    assert asking.row(server).phase is Phase.READY


def test_a_start_that_the_hub_never_knew_is_made_up_for(asking: Asking) -> None:
    """Killed after our commit, before the Hub's: the row is all there is."""
    server = new_instance_id()
    asking.token("alice")
    now = datetime.now(UTC)
    asking.store.instances.admit(
        account=asking.store.accounts.named("alice"),
        server_name=server,
        request=StartRequest.read(choices()),
        backend="local",
        now=now - timedelta(seconds=5),
        deadline=now + timedelta(seconds=60),
    )
    rounds_until(asking, server, Phase.READY)
    asking.hub.wait_ready("alice", server)
    assert asking.visit(server)["path"] == f"/user/alice/{server}/api"


def test_a_stop_that_was_interrupted_is_finished(asking: Asking) -> None:
    server = asking.started()
    row = asking.row(server)
    asking.hub.kill()
    asking.store.instances.wish(row.id, Want.OFF, row.changed)
    asking.store.instances.move(row.id, Phase.STOPPING, row.changed)
    asking.hub.start()
    rounds_until(asking, server, Phase.STOPPED)
    wait_until(lambda: not asking.hub.instance_pids(), "its process has ended")


@pytest.mark.parametrize("want", [Want.OFF, Want.GONE])
def test_a_stop_whose_wish_was_written_before_waits_for_no_round(asking: Asking, want: Want) -> None:
    """The portal writes the wish and then asks the Hub, so that a Hub that is away finds it later."""
    server = asking.started()
    row = asking.row(server)
    asking.store.instances.wish(row.id, want, datetime.now(UTC))
    assert asking.ask("DELETE", server).status_code in {202, 204}
    wait_until(lambda: not asking.hub.instance_pids(), "its process has ended")


def test_what_ended_while_the_hub_was_away_is_told(asking: Asking) -> None:
    server = asking.started()
    asking.hub.kill()
    for pid in asking.hub.instance_pids():
        os.kill(pid, 9)
    asking.hub.start()
    asking.hub.round()
    wait_until(lambda: asking.row(server).phase in {Phase.STOPPED, Phase.ERROR}, "it is known to have ended")
    assert "ended by itself" in asking.row(server).sentence
    wait_until(lambda: not asking.hub.server("alice", server)["ready"], "the Hub knows, too")
    wait_until(lambda: asking.ask("POST", server).status_code in {201, 202}, "it can be started again")


def test_a_place_that_is_away_at_the_restart_loses_nothing(asking: Asking) -> None:
    server = asking.started()
    before = asking.visit(server)
    asking.hub.kill()
    away = asking.hub.state / "away"
    away.touch()
    try:
        asking.hub.start()
        asking.hub.wait_ready("alice", server)
        asking.hub.round()
        assert asking.visit(server)["pid"] == before["pid"]
        assert asking.row(server).phase is Phase.READY
    finally:
        away.unlink()
    asking.hub.round()
    assert asking.row(server).phase is Phase.READY


def test_a_restarted_proxy_gets_its_routes_back_within_a_round(asking: Asking) -> None:
    server = asking.started()
    asking.hub.kill_proxy()
    asking.hub.start_proxy()
    assert httpx.get(f"{asking.hub.url}/user/alice/{server}/api", timeout=10).status_code != 200
    done = asking.hub.round()
    assert done["routes"] >= 1
    assert asking.visit(server)["path"] == f"/user/alice/{server}/api"
    assert asking.hub.round()["routes"] == 0
