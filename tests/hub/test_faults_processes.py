"""Faults of processes: the Hub, the proxy, the portal, an instance killed, stopped, or without files or memory.

The names begin with the fault's id. Times that the table of faults names are multiplied for a machine under load.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.services.hub import running, wait_until
from tests.services.memory import kill_for_memory
from visahub.model.instance import Phase, Want

from .conftest import OTHERS, OWN, Asking

pytestmark = pytest.mark.services

# How many times slower than an idle one a loaded machine may be.
SLACK = 4
PORTAL = "/services/visahub/"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


@pytest.fixture
def session(asking: Asking) -> Iterator[httpx.Client]:
    """A browser of alice's that has the portal open."""
    with closing(asking.hub.login("alice")) as client:
        client.follow_redirects = True
        wait_until(lambda: is_shown(client), "the portal shows the instances")
        yield client


def is_shown(client: httpx.Client, seconds: float = 10) -> bool:
    """Tells whether the session gets its page, without logging in again."""
    with contextlib.suppress(httpx.HTTPError):
        answer = client.get(PORTAL, timeout=seconds)
        return answer.status_code == 200 and "My instances" in answer.text and "password" not in answer.text
    return False


def answers(asking: Asking, server: str) -> bool:
    with contextlib.suppress(httpx.HTTPError, AssertionError):
        return bool(asking.visit(server)["pid"])
    return False


def portals(asking: Asking) -> list[int]:
    """Gives the portal's processes, zombies left out."""
    mark = str(asking.hub.config_file).encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes()
                if mark in line and b"portal" in line:
                    found.append(int(process.name))
    return found


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Lets a process neither run nor end for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def limited(pid: int, limit: int, value: int) -> Iterator[None]:
    """Lowers a limit of a running process for a while."""
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (value, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, limit, before)


# F2, F3: killed and started again


def test_f2_a_killed_hub_comes_back_with_one_portal(asking: Asking, session: httpx.Client) -> None:
    server = asking.started()
    before = asking.visit(server)["pid"]
    (old,) = portals(asking)
    asking.hub.kill()
    asking.hub.start()
    began = time.monotonic()
    wait_until(lambda: is_shown(session), "the same session gets its page")
    took = time.monotonic() - began
    assert took < 5 * SLACK, f"{took:.1f} s"
    (new,) = portals(asking)
    assert new != old
    asking.hub.wait_ready("alice", server)
    assert asking.visit(server)["pid"] == before


def test_f3_a_restarted_proxy_gets_its_routes_back_by_itself(asking: Asking, session: httpx.Client) -> None:
    server = asking.started()
    asking.hub.kill_proxy()
    asking.hub.start_proxy()
    began = time.monotonic()
    wait_until(lambda: answers(asking, server) and is_shown(session), "the routes are back")
    took = time.monotonic() - began
    assert took < 10 * SLACK, f"{took:.1f} s"


# F9: no file descriptors left


@pytest.mark.parametrize("victim", ["hub", "portal"])
def test_f9_sixty_half_open_connections_at_48_descriptors(asking: Asking, session: httpx.Client, victim: str) -> None:
    server = asking.started()
    port = asking.hub.ports[2] if victim == "hub" else asking.hub.ports[3]
    pid = asking.hub.pid if victim == "hub" else portals(asking)[0]
    lines = len(asking.hub.log.read_text().splitlines())
    with limited(pid, resource.RLIMIT_NOFILE, 48), contextlib.ExitStack() as stack:
        for _ in range(60):
            half_open = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            half_open.sendall(b"GET /hub/ HTTP/1.1\r\nHost: ")
        time.sleep(5)
        assert answers(asking, server), "the instance goes on"
        # They hold what there is: nobody else gets in.
        said = asking.hub.log.read_text().splitlines()[lines:]
        assert [line for line in said if "No file descriptors are left" in line], "\n".join(said[-20:])
    wait_until(lambda: asking.hub.is_up() and is_shown(session), "both answer again")
    said = asking.hub.log.read_text().splitlines()[lines:]
    assert len(said) < 1000, "\n".join(said[:40])
    assert sum("Too many open files" in line for line in said) < 100
    assert asking.row(server).phase is Phase.READY
    assert answers(asking, server)


# F10, F11: stopped, neither running nor ended


def test_f10_a_portal_that_hangs(asking: Asking, session: httpx.Client) -> None:
    server = asking.started()
    (pid,) = portals(asking)
    with stopped(pid):
        began = time.monotonic()
        assert asking.hub.is_up()
        assert answers(asking, server)
        wait_until(lambda: told_to_wait(session), "a browser gets an answer")
        assert time.monotonic() - began < 40 * SLACK
        other = asking.started("bob", experiments=["others"])
        assert asking.row(other, "bob").phase is Phase.READY
        assert portals(asking) == [pid]
    wait_until(lambda: is_shown(session), "the portal is back, and its visitor is logged in")
    assert asking.row(server).phase is Phase.READY


def told_to_wait(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        answer = client.get(PORTAL, timeout=2)
        return answer.status_code == 503 and "comes back by itself" in answer.text
    return False


def test_f11_an_instance_that_hangs(asking: Asking, session: httpx.Client) -> None:
    server = asking.started()
    row, pids = asking.row(server), asking.hub.instance_pids()
    details = f"{PORTAL}instances/{row.id}"
    with stopped(asking.visit(server)["pid"]):
        wait_until(lambda: "It does not answer" in session.get(PORTAL).text, "the card says so")
        assert "It does not answer" in session.get(details).text
        told = asking.row(server)
        assert (told.phase, told.want, told.attempt, told.address) == (Phase.READY, Want.ON, row.attempt, row.address)
        # The Hub itself would end it at its next restart, since it does not answer.
        asking.hub.kill()
        asking.hub.start()
        asking.hub.wait_ready("alice", server)
        wait_until(asking.hub.has_portal, "the portal answers")
        assert "It does not answer" in session.get(details).text
        assert asking.hub.instance_pids() == pids
    wait_until(lambda: "It does not answer" not in session.get(PORTAL).text, "the card says that it is ready")
    assert "It answers again" in session.get(details).text
    assert answers(asking, server)
    assert (asking.row(server).phase, asking.row(server).attempt) == (Phase.READY, row.attempt)


# A portal that ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_f2_a_portal_that_ended_comes_back_at_once(asking: Asking, session: httpx.Client, number: int) -> None:
    """The stock Hub looks after its services every 30 s, and a dead one stays a zombie until then."""
    server = asking.started()
    wait_until(asking.hub.is_settled, "the Hub has finished its start")
    (old,) = portals(asking)
    os.kill(old, number)
    began = time.monotonic()
    wait_until(lambda: not Path(f"/proc/{old}").exists(), "the Hub has taken leave of it")
    wait_until(lambda: is_shown(session), "the portal is back")
    took = time.monotonic() - began
    assert took < 5 * SLACK, f"{took:.1f} s"
    assert len(portals(asking)) == 1
    assert answers(asking, server)


# F18: no memory left


def test_f18_a_hub_that_the_kernel_kills_for_its_memory(asking: Asking, session: httpx.Client) -> None:
    server = asking.started()
    before = asking.visit(server)["pid"]
    kill_for_memory(asking.hub.pid, lambda: asking.hub.api("GET", "/users/alice"))
    assert asking.visit(server)["pid"] == before
    # Who looks meanwhile is told.
    answer = session.get(PORTAL, timeout=20)
    assert answer.status_code in {502, 503}, answer.text
    asking.hub.kill()
    asking.hub.start()
    wait_until(lambda: is_shown(session), "the same session gets its page")
    asking.hub.wait_ready("alice", server)
    assert asking.visit(server)["pid"] == before
    assert asking.row(server).phase is Phase.READY


def test_f18_a_portal_that_the_kernel_kills_for_its_memory(asking: Asking, session: httpx.Client) -> None:
    server = asking.started()
    wait_until(asking.hub.is_settled, "the Hub has finished its start")
    (old,) = portals(asking)
    kill_for_memory(old, lambda: session.get(PORTAL, timeout=5))
    wait_until(lambda: is_shown(session), "the portal is back, and its visitor is logged in")
    assert portals(asking) != [old]
    assert answers(asking, server)


@pytest.mark.parametrize("victim", ["hub", "portal"])
def test_f18_no_more_address_space(asking: Asking, session: httpx.Client, victim: str) -> None:
    """With RLIMIT_AS an allocation fails instead: answers fail, or the process ends, and nothing else."""
    server = asking.started()
    before = asking.visit(server)["pid"]
    wait_until(asking.hub.is_settled, "the Hub has finished its start")
    pid = asking.hub.pid if victim == "hub" else portals(asking)[0]
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    with limited(pid, resource.RLIMIT_AS, size):
        for _ in range(20):
            with contextlib.suppress(httpx.HTTPError):
                session.get(PORTAL, timeout=5)
                asking.hub.api("GET", "/users/alice")
        assert asking.visit(server)["pid"] == before
    if victim == "hub" and not asking.hub.is_up():
        asking.hub.kill()
        asking.hub.start()
    wait_until(lambda: is_shown(session), "the same session gets its page")
    asking.hub.wait_ready("alice", server)
    assert asking.visit(server)["pid"] == before
    assert asking.row(server).phase is Phase.READY
