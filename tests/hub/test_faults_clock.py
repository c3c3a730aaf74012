"""The clock of the Hub's machine is set while instances run and start, in a real Hub."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.services.hub import running, wait_until
from visahub.model.instance import Phase, new_instance_id
from visahub.store.tables import instances, leases

from .conftest import OTHERS, OWN, Asking, choices

pytestmark = pytest.mark.services

# The time of day is that of the machine and as many days more as a file says.
CLOCK = """
import time
from datetime import UTC, datetime, timedelta
from visahub.flows.steady import SteadyClock
from visahub.hub import desk

def wall():
    file = state / "days"
    return datetime.now(UTC) + timedelta(days=float(file.read_text()) if file.exists() else 0)

desk.clock = SteadyClock(wall, time.monotonic)
"""


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), more=CLOCK) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        yield made
        made.store.close()


@pytest.mark.parametrize("days", [40, -2])
def test_f16_nothing_is_ended_by_a_clock_that_was_set(asking: Asking, days: int) -> None:
    ready = asking.started()
    pid = asking.visit(ready)["pid"]
    (asking.home() / "slow").touch()
    starting = new_instance_id()
    assert asking.start(starting, choices()).status_code == 202
    wait_until(lambda: len(asking.hub.instance_pids()) > 1, "its process runs")
    moved = asking.hub.state / "moved"
    try:
        moved.write_text(str(days))
        moved.rename(asking.hub.state / "days")
        time.sleep(2)
        assert asking.row(starting).phase is Phase.STARTING
        jumps = [asking.hub.round()["jumped"] for _ in range(3)]
        assert jumps == [pytest.approx(days * 86400, abs=60), 0, 0]
        assert asking.row(starting).phase is Phase.STARTING
        (asking.home() / "slow").unlink()
        asking.hub.wait_ready("alice", starting)
        asking.hub.round()
        assert asking.row(starting).phase is Phase.READY
        assert asking.row(ready).phase is Phase.READY
        assert asking.visit(ready)["pid"] == pid
    finally:
        (asking.hub.state / "days").unlink()
        asking.hub.round()


def test_f16_clock_that_was_set_while_the_hub_was_away(asking: Asking) -> None:
    """Or a Hub that was away for 40 days: a start under way goes on with the time that it had left."""
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    wait_until(asking.hub.instance_pids, "its process runs")
    asking.hub.kill()
    past = datetime.now(UTC) - timedelta(days=40)
    with asking.store.database.write() as connection:
        connection.execute(leases.update().values(renewed=past))
        connection.execute(instances.update().values(deadline=past + timedelta(seconds=50), started=past))
    asking.hub.start()
    asking.hub.round()
    assert asking.row(server).phase is Phase.STARTING
    (asking.home() / "slow").unlink()
    asking.hub.wait_ready("alice", server)
    assert asking.row(server).phase is Phase.READY
