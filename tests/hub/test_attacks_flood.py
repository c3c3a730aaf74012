"""Attacks by size, number and slowness, and with forged headers and addresses, against Hub and portal (X3, X4)."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.services.hub import running, wait_until
from visahub.hub.authenticator import Throttle
from visahub.hub.limits import MAX_BODY
from visahub.portal.app import MAX_BODY as PORTAL_BODY

from .conftest import OTHERS, OWN, Asking

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

PORTAL = "/services/visahub/"
SOCKETS = 5000
GROWTH_MB = 30


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        made.token("alice")
        yield made
        made.store.close()


DOORS = ["hub", "hub-proxied", "portal", "portal-proxied"]


def door(asking: Asking, name: str) -> tuple[int, str]:
    """Gives the port and the address of an API that takes a body."""
    proxy, _, hub, portal = asking.hub.ports
    port = proxy if "proxied" in name else hub if name == "hub" else portal
    return port, "/hub/api/users/alice/servers/iflood" if name.startswith("hub") else f"{PORTAL}api/instances"


@contextlib.contextmanager
def flat(asking: Asking) -> Iterator[None]:
    """Checks that neither Hub nor portal takes much more memory meanwhile, nor stops to answer others."""
    before = {pid: own_memory(pid) for pid in (asking.hub.pid, portal_pid(asking))}
    most = dict(before)
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.2):
            for pid in before:
                most[pid] = max(most[pid], own_memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
        everybody_is_served(asking)
    finally:
        is_over.set()
        watcher.join()
    grown = {pid: round(most[pid] - before[pid], 1) for pid in before}
    assert max(grown.values()) < GROWTH_MB, grown


def own_memory(pid: int) -> float:
    """Gives the memory that is a process's own (USS), in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(number) for number in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE)) / 1024


def portal_pid(asking: Asking) -> int:
    mark = f"portal\0--config\0{asking.hub.config_file}".encode()
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and mark in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    assert len(found) == 1, found
    return found[0]


def everybody_is_served(asking: Asking) -> None:
    headers = {"Authorization": f"token {asking.token('alice')}"}
    proxy, _, hub, portal = asking.hub.ports
    for port in (proxy, portal):
        answer = httpx.get(f"http://127.0.0.1:{port}{PORTAL}api/instances", headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
    for port in (proxy, hub):
        answer = httpx.get(f"http://127.0.0.1:{port}/hub/api/user", headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text


def pieces(total: int) -> Iterator[bytes]:
    piece = b"x" * (1 << 20)
    for _ in range(total >> 20):
        yield piece


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("token", ["mine", ""])
def test_x3_a_body_of_100_mb_is_too_large(asking: Asking, name: str, token: str) -> None:
    port, path = door(asking, name)
    headers = {"Authorization": f"token {asking.token('alice')}"} if token else {}
    with flat(asking), httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        told = client.post(path, content=pieces(100 << 20), headers={"Content-Length": str(100 << 20)})
        assert told.status_code == 413
        assert told.json()["message"].startswith("This is too large: at most")
        # One that does not say how long it is, is cut off.
        with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            assert client.post(path, content=pieces(100 << 20)).status_code in {400, 413, 503}


@pytest.mark.parametrize("name", DOORS)
def test_x3_deep_json_is_refused(asking: Asking, name: str) -> None:
    port, path = door(asking, name)
    headers = {"Authorization": f"token {asking.token('alice')}", "Content-Type": "application/json"}
    most = (MAX_BODY if name.startswith("hub") else PORTAL_BODY) // 2 - 100
    with flat(asking), httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        for depth in (10**6, most, 900):
            for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
                fits = min(depth, most * 2 // (len(opening) + len(closing)) - 10) if depth != 10**6 else depth
                answer = client.post(path, content=b'{"notes":' + opening * fits + b"1" + closing * fits + b"}")
                assert answer.status_code in ({413} if depth == 10**6 else {400, 422}), (depth, answer.text[:300])


@pytest.mark.parametrize("name", ["hub", "portal", "proxy"])
def test_x3_5000_slow_sockets_hold_nobody_up(asking: Asking, name: str) -> None:
    """Each sends the first half of its headers, and one in ten a part of a body."""
    proxy, _, hub, portal = asking.hub.ports
    port = {"hub": hub, "portal": portal, "proxy": proxy}[name]
    path = "/hub/login" if name == "hub" else f"{PORTAL}instances"
    slow = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Slow: ".encode()
    half = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nhalf".encode()
    with flat(asking), contextlib.ExitStack() as stack:
        for number in range(SOCKETS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            with contextlib.suppress(ConnectionError):
                connection.sendall(half if number % 10 == 0 else slow)
        everybody_is_served(asking)
    assert asking.hub.log.stat().st_size < 20_000_000


EVIL = "evil.example"
VECTORS = [
    f"//{EVIL}",
    f"/\\{EVIL}",
    f"\\\\{EVIL}",
    f"///{EVIL}",
    f"http:{EVIL}",
    f"https:///{EVIL}",
    f"http://{EVIL}/",
    f"\t//{EVIL}",
    f"javascript:alert('{EVIL}')",
    f"%2F%2F{EVIL}",
    f"/%2F{EVIL}",
    f"HOST//{EVIL}",
    f"HOST@{EVIL}",
    f"/hub/home\r\nLocation: http://{EVIL}/",
]


def stays(asking: Asking, answer: httpx.Response) -> None:
    """Checks that a browser would stay on the own host, whatever it reads in the address."""
    location = answer.headers.get("location", "")
    assert "evil" not in answer.headers.get("set-cookie", "").lower()
    # As browsers read it: control characters are dropped, and a backslash is a slash.
    read = re.sub(r"[\t\r\n]", "", location).replace("\\", "/").strip()
    target = urlsplit(read)
    assert target.scheme in {"", "http"}, location
    if target.scheme or read.startswith("//"):
        assert target.netloc == urlsplit(asking.hub.url).netloc, location


@pytest.mark.parametrize("vector", VECTORS)
def test_x4_next_stays_on_the_own_host(asking: Asking, vector: str) -> None:
    vector = vector.replace("HOST", asking.hub.url)
    with httpx.Client(base_url=asking.hub.url, timeout=60) as fresh:
        fresh.get("/hub/login")
        params = {"_xsrf": fresh.cookies["_xsrf"], "next": vector}
        data = {"username": "alice", "password": "correct horse battery"}
        answer = fresh.post("/hub/login", params=params, data=data)
        # A line break makes the Hub itself fail, as it should not; nobody is led away by it.
        assert answer.status_code == (500 if "\r" in vector else 302), answer.text
        stays(asking, answer)
    with contextlib.closing(asking.hub.login("alice")) as session:
        session.follow_redirects = True
        assert "My instances" in session.get(PORTAL).text
        session.follow_redirects = False
        asked = quote(vector, safe="")
        raw = re.sub(r"\s", "", vector)
        for address in (
            f"/hub/login?next={asked}",
            f"/hub/logout?next={asked}",
            f"/hub/spawn/alice/i1?next={asked}",
            f"/hub/spawn-pending/alice/i1?next={asked}",
            f"/hub/user-redirect/{raw}",
            f"/hub/{raw}",
            f"{PORTAL}{raw}",
            f"{PORTAL}?next={asked}",
            f"{PORTAL}oauth_callback?next={asked}&state=x&code=y",
            f"/user/alice/i1/{raw}",
        ):
            if address.startswith("/hub/logout"):
                continue
            stays(asking, session.get(address))
        stays(asking, session.get(f"/hub/logout?next={asked}"))


@pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Scheme"])
def test_x4_forged_headers_lead_nowhere_else(asking: Asking, header: str) -> None:
    value = {"X-Forwarded-Proto": "javascript", "X-Scheme": "https", "X-Forwarded-Port": "6666"}.get(header, EVIL)
    with httpx.Client(base_url=asking.hub.url, headers={header: value}, timeout=60) as fresh:
        for address in ("/", "/hub/", "/hub/login", "/hub/home", PORTAL, f"{PORTAL}new", "/user/alice/", "/user/alice"):
            answer = fresh.get(address)
            assert EVIL not in str(answer.headers), answer.headers
            assert EVIL not in answer.text
            stays(asking, answer)
    with contextlib.closing(asking.hub.login("alice")) as session:
        session.headers[header] = value
        answer = session.get(PORTAL)
        for _ in range(6):
            stays(asking, answer)
            if answer.status_code != 302:
                break
            assert EVIL not in answer.headers["location"]
            answer = session.get(answer.headers["location"])
        assert answer.status_code in {200, 403}, answer.text
        assert EVIL not in answer.text


def test_x4_nobody_chooses_the_address_that_is_counted(asking: Asking) -> None:
    """The proxy passes forged addresses on; the login's throttle and the log count who is there."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=asking.hub.url, transport=transport, timeout=60) as guesser:
        guesser.get("/hub/login")
        statuses = []
        for number in range(Throttle.most_by_address + 1):
            forged = {"X-Real-Ip": f"203.0.113.{number}", "X-Forwarded-For": f"203.0.113.{number}"}
            data = {"username": f"nobody-{number}", "password": "wrong"}
            params = {"_xsrf": guesser.cookies["_xsrf"]}
            statuses.append(guesser.post("/hub/login", params=params, data=data, headers=forged).status_code)
    assert statuses[-1] == 429, statuses
    assert set(statuses[:-1]) <= {200, 403}, statuses
    log = asking.hub.log.read_text(errors="replace")
    assert "203.0.113." not in log
    assert "127.0.0.2" in log
    # Others are not held up.
    asking.hub.login("alice").close()
