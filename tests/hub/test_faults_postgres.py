"""Hub and portal with PostgreSQL for both databases: the whole life of an instance, and servers that crash."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import httpx
import psycopg
import pytest

from tests.services.hub import RunningHub, running, wait_until
from tests.services.postgres import Cluster, why_not
from visahub.model.instance import Phase
from visahub.store.database import Store

from .conftest import OTHERS, OWN, Asking

pytestmark = [pytest.mark.services, pytest.mark.slow]

PORTAL = "/services/visahub/"


@dataclass
class Servers:
    """One PostgreSQL for the Hub and one for visahub, so that each can crash alone."""

    hubs: Cluster
    ours: Cluster
    hubs_name: str
    ours_name: str

    @property
    def hubs_url(self) -> str:
        return self.hubs.url(self.hubs_name)

    @property
    def ours_url(self) -> str:
        return self.ours.url(self.ours_name)

    @property
    def lines(self) -> str:
        return f"c.JupyterHub.db_url = {self.hubs_url!r}\nc.Visahub.database_url = {self.ours_url!r}"


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    if reason := why_not():
        pytest.skip(reason)
    with Cluster() as hubs, Cluster() as ours:
        made = Servers(hubs, ours, hubs.database(), ours.database())
        store = Store(made.ours_url)
        store.upgrade()
        store.close()
        yield made


@pytest.fixture(scope="module")
def asking(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True, more=servers.lines) as hub:
        made = Asking(hub, servers.ours_url)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


@contextmanager
def crashed(cluster: Cluster) -> Iterator[None]:
    """The server is stopped as by `pg_ctl stop -m immediate`, then started."""
    cluster.stop(signal.SIGQUIT)
    try:
        yield
    finally:
        cluster.start()


def enter(hub: RunningHub, username: str) -> httpx.Client:
    session = hub.login(username)
    session.follow_redirects = True
    assert "My instances" in session.get(PORTAL).text
    session.follow_redirects = False
    return session


def xsrf(session: httpx.Client) -> str:
    return next(c.value or "" for c in session.cookies.jar if c.name == "_xsrf" and c.path == PORTAL)


def post(session: httpx.Client, path: str, **data: str) -> httpx.Response:
    return session.post(PORTAL + path, data={"_xsrf": xsrf(session)} | data)


def assert_away(response: httpx.Response) -> None:
    assert response.status_code == 503, (response.status_code, response.text[:500])
    assert response.headers["Retry-After"]
    assert "does not answer" in response.text


def test_whole_life_with_postgres_for_both(asking: Asking) -> None:
    with closing(enter(asking.hub, "alice")) as alice:
        form = {"experiment": "own", "environment": "tiny", "hardware": "small", "name": "in-postgres"}
        assert post(alice, "instances", server_name="ipostgres1", **form).status_code == 303
        wait_until(lambda: asking.row("ipostgres1").phase is Phase.READY, "it is ready")
        asking.hub.wait_ready("alice", "ipostgres1")
        assert asking.visit("ipostgres1")["path"] == "/user/alice/ipostgres1/api"
        assert "in-postgres" in alice.get(PORTAL).text
        assert post(alice, "instances/ipostgres1/stop").status_code == 303
        wait_until(lambda: asking.row("ipostgres1").phase is Phase.STOPPED, "it has stopped")
        wait_until(lambda: not asking.hub.instance_pids(), "its processes have ended")
        assert post(alice, "instances/ipostgres1/delete").status_code == 303
        wait_until(lambda: asking.row("ipostgres1") is None, "it is gone")


def test_f5_hubs_postgres_stopped_immediately(asking: Asking, servers: Servers) -> None:
    server = asking.started()
    pid = asking.visit(server)["pid"]
    token = asking.token("alice")
    with closing(enter(asking.hub, "alice")) as session:
        with crashed(servers.hubs):
            assert_away(session.get("/hub/home"))
            assert_away(asking.hub.api("GET", "/user", token=token))
            assert asking.visit(server)["pid"] == pid
        # At once: the very next requests, although every pooled connection is dead.
        assert session.get("/hub/home").status_code == 200
        assert asking.hub.api("GET", "/user", token=token).status_code == 200
        assert "My instances" in session.get(PORTAL).text
    assert asking.row(server).phase is Phase.READY
    asking.started()


def test_f5_hubs_postgres_crashed_between_two_requests(asking: Asking, servers: Servers) -> None:
    token = asking.token("alice")
    assert asking.hub.api("GET", "/user", token=token).status_code == 200
    with crashed(servers.hubs):
        pass
    assert asking.hub.api("GET", "/user", token=token).status_code == 200


def test_f5_own_postgres_stopped_immediately(asking: Asking, servers: Servers) -> None:
    server = asking.started()
    pid = asking.visit(server)["pid"]
    with closing(enter(asking.hub, "alice")) as session:
        with crashed(servers.ours):
            assert_away(session.get(PORTAL))
            assert_away(session.get(f"{PORTAL}experiments"))
            assert session.get("/hub/home").status_code == 200
            assert asking.visit(server)["pid"] == pid
        assert "My instances" in session.get(PORTAL).text
        assert session.get(f"{PORTAL}experiments").status_code == 200
    assert asking.row(server).phase is Phase.READY
    asking.started()


def test_f4_tables_of_the_hub_locked(asking: Asking, servers: Servers) -> None:
    """What BEGIN EXCLUSIVE is to a file."""
    token = asking.token("alice")
    with closing(enter(asking.hub, "alice")) as session:
        with psycopg.connect(servers.hubs.address(servers.hubs_name)) as holder:
            holder.execute("LOCK TABLE users, api_tokens IN ACCESS EXCLUSIVE MODE")
            for _ in range(5):
                began = time.monotonic()
                assert_away(session.get("/hub/home"))
                assert_away(asking.hub.api("GET", "/user", token=token))
                assert time.monotonic() - began < 4
            holder.rollback()
        wait_until(lambda: session.get("/hub/home").status_code == 200, "the Hub answers", seconds=5)
        assert asking.hub.api("GET", "/user", token=token).status_code == 200


def test_f4_own_tables_locked(asking: Asking, servers: Servers) -> None:
    with closing(enter(asking.hub, "alice")) as session:
        with psycopg.connect(servers.ours.address(servers.ours_name)) as holder:
            holder.execute("LOCK TABLE accounts, instances IN ACCESS EXCLUSIVE MODE")
            for _ in range(3):
                began = time.monotonic()
                assert_away(session.get(PORTAL))
                assert time.monotonic() - began < 4
            assert session.get("/hub/home").status_code == 200
            holder.rollback()
        assert "My instances" in session.get(PORTAL).text
