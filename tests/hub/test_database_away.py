"""Our database is away: starts are refused with a sentence, nobody is logged out, what runs goes on."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.services.hub import wait_until
from visahub.model.instance import Phase, new_instance_id

from .conftest import Asking, choices

pytestmark = pytest.mark.services


@pytest.fixture
def lock(asking: Asking) -> Iterator[sqlite3.Connection]:
    """A writer that never finishes holds the file."""
    with closing(sqlite3.connect(asking.hub.state / "visahub.sqlite", isolation_level=None)) as held:
        yield held


def test_a_locked_database(asking: Asking, lock: sqlite3.Connection) -> None:
    server = asking.started()
    pid = asking.visit(server)["pid"]
    with closing(asking.hub.login("alice")) as session:
        lock.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        response = asking.start(new_instance_id(), choices())
        assert response.status_code == 503, response.text
        assert response.headers["Retry-After"]
        assert "does not answer" in response.json()["message"]
        assert time.monotonic() - began < 8
        # The Hub itself goes on meanwhile.
        assert session.get("/hub/home").status_code == 200
        assert asking.hub.api("GET", "/user", token=asking.token("alice")).status_code == 200
        assert asking.visit(server)["pid"] == pid
        lock.execute("ROLLBACK")
        assert session.get("/hub/home").status_code == 200
    assert asking.hub.server("alice", server)["ready"]
    asking.hub.round()
    assert asking.row(server).phase is Phase.READY
    assert len(asking.store.instances.live()) == 1
    asking.started()


def test_a_round_without_the_database_says_so(asking: Asking, lock: sqlite3.Connection) -> None:
    server = asking.started()
    lock.execute("BEGIN EXCLUSIVE")
    response = asking.hub.api("POST", "/visahub/round", token=asking.hub.portal_token, body={})
    lock.execute("ROLLBACK")
    assert response.status_code in {200, 503}
    assert asking.row(server).phase is Phase.READY


def test_a_stop_without_the_database_ends_later(asking: Asking, lock: sqlite3.Connection) -> None:
    server = asking.started()
    lock.execute("BEGIN EXCLUSIVE")
    response = asking.ask("DELETE", server)
    assert response.status_code in {202, 204, 503}, response.text
    lock.execute("ROLLBACK")
    wait_until(lambda: asking.ask("DELETE", server).status_code in {202, 204}, "it can be stopped again")
    wait_until(lambda: asking.hub.round() and asking.row(server).phase is Phase.STOPPED, "it has stopped")


def test_logins_wait_for_the_database(asking: Asking, lock: sqlite3.Connection) -> None:
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(AssertionError, match="does not answer"):
        asking.hub.login("bob")
    lock.execute("ROLLBACK")
    asking.hub.login("bob").close()
