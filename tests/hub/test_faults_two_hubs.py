"""Two Hubs on one database: the second one refuses with a sentence, and a killed one is followed at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.services.hub import ROOT, running, wait_until
from visahub.model.instance import Phase

from .conftest import OTHERS, OWN, Asking

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        yield made
        made.store.close()


def second(asking: Asking, change: tuple[str, str] = ("", "")) -> subprocess.CompletedProcess[str]:
    """Starts another Hub with a copy of the configuration, and waits for its end."""
    config = asking.hub.state / "second.py"
    config.write_text(asking.hub.config_file.read_text().replace(*change))
    command = [sys.executable, "-m", "visahub.hub", "-f", str(config)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environ, cwd=asking.hub.state, capture_output=True, text=True, timeout=60)


def test_f22_second_hub_refuses(asking: Asking) -> None:
    server = asking.started()
    refused = second(asking)
    assert refused.returncode != 0
    said = refused.stderr
    assert f"Another Hub works on this database: process {asking.hub.pid} on {os.uname().nodename}" in said
    assert "Stop it first." in said
    assert "Traceback" not in said
    # The first one is not disturbed.
    assert asking.visit(server)["path"] == f"/user/alice/{server}/api"
    assert asking.row(server).phase is Phase.READY
    assert asking.hub.server("alice", server)["ready"]


def test_f22_other_deployment_refuses_also_after_the_end(asking: Asking) -> None:
    asking.started()
    tag = f"t{asking.hub.ports[0]}"
    asking.hub.kill()
    try:
        refused = second(asking, (repr(tag), repr("another")))
        assert refused.returncode != 0
        assert f"belongs to the deployment {tag!r}" in refused.stderr
        assert "Visahub.database_url" in refused.stderr
    finally:
        asking.hub.start()


def test_f22_killed_hub_is_followed_at_once(asking: Asking) -> None:
    server = asking.started()
    before = asking.visit(server)
    for _ in range(2):
        asking.hub.kill()
        # Ends at once when the lease is not given: `start` fails when the process does.
        asking.hub.start()
        lease = asking.store.leases.held()
        assert lease is not None and lease.holder.pid == asking.hub.pid
    asking.hub.wait_ready("alice", server)
    assert asking.visit(server)["pid"] == before["pid"]


def test_f22_stopped_hub_gives_the_database_free(asking: Asking) -> None:
    log = asking.hub.log
    wait_until(lambda: "JupyterHub is now running" in log.read_text().rpartition("Running JupyterHub")[2], "it runs")
    asking.hub.stop()
    assert asking.store.leases.held() is None
    asking.hub.start()
    assert asking.store.leases.held() is not None


def test_f22_hub_that_lost_its_lease_ends(asking: Asking) -> None:
    """It was asleep for minutes, and another machine's Hub took the database: its next beat says so."""
    server = asking.started()
    asking.hub.stop()
    config = asking.hub.config_file
    kept = config.read_text()
    quick = "from visahub.hub import lease\nlease._BEAT_SECONDS = 0.5\n"
    config.write_text(quick + kept)
    try:
        asking.hub.start()
        lease = asking.store.leases.held()
        assert lease is not None
        with asking.store.database.write() as connection:
            connection.exec_driver_sql("UPDATE leases SET host = 'elsewhere', machine = 'elsewhere', pid = 1")
        wait_until(lambda: has_ended(asking.hub.pid), "the Hub has ended")
        assert "Another Hub works on visahub's database by now" in asking.hub.tail(200)
        # What it had started goes on.
        assert asking.visit(server)["path"] == f"/user/alice/{server}/api"
    finally:
        lease = asking.store.leases.held()
        if lease is not None:
            asking.store.leases.release(lease.holder, datetime.now(UTC))
        config.write_text(kept)
        asking.hub.start()


def has_ended(pid: int) -> bool:
    time.sleep(0.1)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
