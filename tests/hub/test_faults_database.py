"""Faults of both databases under a real Hub and portal: pages say so, nobody is logged out, all heals by itself."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import httpx
import pytest

from tests.services.hub import RunningHub, running, wait_until
from visahub.hub.own_database import Rest, arguments
from visahub.model.instance import Phase, new_instance_id

from .conftest import OTHERS, OWN, Asking

pytestmark = pytest.mark.services

PORTAL = "/services/visahub/"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """A Hub that starts its portal, as production does."""
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        # A Hub that has not yet seen its services up would end itself.
        wait_until(hub.is_settled, "the Hub has finished its start")
        yield made
        made.store.close()


@contextmanager
def locked(asking: Asking, name: str) -> Iterator[None]:
    """Somebody else's transaction keeps a file for itself."""
    with closing(sqlite3.connect(asking.hub.state / name, isolation_level=None, timeout=30)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            holder.execute("ROLLBACK")


def enter(hub: RunningHub, username: str) -> httpx.Client:
    """Gives a browser's session that has been in the portal."""
    session = hub.login(username)
    session.follow_redirects = True
    assert "My instances" in session.get(PORTAL).text
    session.follow_redirects = False
    return session


def asked(session: httpx.Client, path: str) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    response = session.get(path)
    return response, time.monotonic() - began


def assert_busy(response: httpx.Response) -> None:
    """Asserts the answer of a database that is away: a sentence, a time to come back, and a session that stays."""
    assert response.status_code == 503, (response.status_code, response.headers, response.text[:500])
    assert response.headers["Retry-After"]
    assert "does not answer" in response.text
    assert "set-cookie" not in response.headers or "Max-Age=0" not in response.headers["set-cookie"]


# Within 1 s on a machine of its own; here other tests run, too. The stock Hub takes 5 s for each.
SECONDS = 4.0


def test_f4_hubs_database_locked(asking: Asking) -> None:
    hub = asking.hub
    server = asking.started()
    with closing(enter(hub, "alice")) as session, closing(hub.login("bob")) as stranger:
        token = asking.token("alice")
        # The Hub writes when somebody was last seen only now and then; here it has to.
        with locked(asking, "jupyterhub.sqlite"):
            until = time.monotonic() + 8
            while time.monotonic() < until:
                for path in ("/hub/home", "/hub/token"):
                    response, seconds = asked(session, path)
                    assert_busy(response)
                    assert seconds < SECONDS
                said = hub.api("GET", "/user", token=token)
                assert_busy(said)
                assert "stay logged in" in said.json()["message"]
                # The portal knows alice for a while, and must not take bob for nobody.
                assert asked(session, PORTAL)[0].status_code in {200, 503}
                assert asked(stranger, "/hub/home")[0].status_code == 503
                assert hub.api("GET", "/user", token=hub.portal_token).status_code in {403, 503}
                # Running instances go on, with their routes.
                assert asking.visit(server)["path"] == f"/user/alice/{server}/api"
                time.sleep(0.5)
        wait_until(lambda: session.get("/hub/home").status_code == 200, "the Hub answers", seconds=5)
        assert hub.api("GET", "/user", token=token).json()["name"] == "alice"
        assert stranger.get("/hub/home").status_code == 200
        assert "My instances" in session.get(PORTAL).text
    assert asking.row(server).phase is Phase.READY
    assert hub.server("alice", server)["ready"]


def test_f4_hub_stays_free_while_many_ask(asking: Asking) -> None:
    """Each question waits for the lock on the one event loop; twenty of them must not add up."""
    with closing(asking.hub.login("alice")) as session, locked(asking, "jupyterhub.sqlite"):
        cookies = dict(session.cookies)
        with ThreadPoolExecutor(20) as people:
            began = time.monotonic()
            asks = [
                people.submit(httpx.get, f"{asking.hub.url}/hub/home", cookies=cookies, timeout=30) for _ in range(20)
            ]
            answers = [ask.result() for ask in asks]
        # The stock Hub takes 100 s.
        assert time.monotonic() - began < 20
        for answer in answers:
            assert_busy(answer)
    wait_until(lambda: asking.hub.is_up() and asking.hub.api("GET", "/users").status_code == 200, "the Hub answers")


def test_f4_portal_does_not_remember_nobody(asking: Asking) -> None:
    """A session that the portal meets for the first time while the Hub is busy is asked for again at once."""
    token = asking.token("bob")
    ask = {"Authorization": f"token {token}"}
    address = f"{asking.hub.url}{PORTAL}api/instances"
    # A token that the portal has never seen.
    fresh = asking.hub.token("bob")
    with locked(asking, "jupyterhub.sqlite"):
        said = httpx.get(address, headers={"Authorization": f"token {fresh}"}, timeout=10)
        assert said.status_code == 503, said.text
        assert said.headers["Retry-After"]
    wait_until(
        lambda: httpx.get(address, headers={"Authorization": f"token {fresh}"}, timeout=10).status_code == 200,
        "the token is known",
        seconds=5,
    )
    assert httpx.get(address, headers=ask, timeout=10).status_code == 200


def test_f4_own_database_locked(asking: Asking) -> None:
    hub = asking.hub
    server = asking.started()
    before = len(asking.store.instances.live())
    with closing(enter(hub, "alice")) as session:
        xsrf = next(c.value or "" for c in session.cookies.jar if c.name == "_xsrf" and c.path == PORTAL)
        with locked(asking, "visahub.sqlite"):
            until = time.monotonic() + 8
            while time.monotonic() < until:
                # In WAL mode who only reads goes on; who reads not is told.
                for path in (PORTAL, f"{PORTAL}new", f"{PORTAL}experiments"):
                    response, seconds = asked(session, path)
                    assert response.status_code in {200, 503}, response.headers
                    assert seconds < SECONDS
                assert asked(session, "/hub/home")[0].status_code == 200
                time.sleep(0.5)
            form = {"experiment": "own", "environment": "tiny", "hardware": "small", "_xsrf": xsrf}
            refused = session.post(f"{PORTAL}instances", data=form | {"server_name": new_instance_id()})
            assert refused.status_code == 503, refused.text
            assert "does not answer" in refused.text
            assert asking.visit(server)["path"] == f"/user/alice/{server}/api"
        assert session.get(PORTAL).status_code == 200
    assert len(asking.store.instances.live()) == before
    assert asking.row(server).phase is Phase.READY
    asking.started()


def test_f4_whoever_logs_in_meanwhile_is_told(asking: Asking) -> None:
    with httpx.Client(base_url=asking.hub.url, timeout=30) as session:
        session.get("/hub/login")
        form = {"username": "carla", "password": "correct horse battery"}
        with locked(asking, "jupyterhub.sqlite"):
            response = session.post("/hub/login", params={"_xsrf": session.cookies["_xsrf"]}, data=form)
            assert_busy(response)
        wait_until(lambda: asking.hub.api("GET", "/users").status_code == 200, "the Hub answers")
        response = session.post("/hub/login", params={"_xsrf": session.cookies["_xsrf"]}, data=form)
        assert response.status_code == 302


def test_a_rest_is_as_long_as_the_question_was() -> None:
    now = 100.0

    def clock() -> float:
        return now

    rest = Rest(clock)
    assert not rest.is_on
    now += 0.5
    rest.after(100.0)
    now += 0.4
    assert rest.is_on
    now += 0.2
    assert not rest.is_on
    # A refused connection takes no time, and the next request asks again.
    rest.after(now)
    assert not rest.is_on


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////x/hub.sqlite", {"connect_args": {"check_same_thread": False, "timeout": 0.5}}),
        ("sqlite:///:memory:", {"pool_pre_ping": True}),
        ("mysql://hub", {"pool_pre_ping": True}),
        (
            "postgresql+psycopg://hub@/hub?options=-csearch_path%3Dhub",
            {"pool_pre_ping": True, "connect_args": {"connect_timeout": 2}},
        ),
        (
            "postgresql+psycopg://hub@/hub",
            {"pool_pre_ping": True, "connect_args": {"connect_timeout": 2, "options": "-c lock_timeout=500"}},
        ),
    ],
)
def test_what_the_hub_is_told_about_its_database(url: str, expected: object) -> None:
    assert arguments(url) == expected
