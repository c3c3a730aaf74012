"""A hostile page with a visitor who is logged in: nothing changes (X2), and what it reads is nobody's (X19)."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Request, expect
from tornado.web import RequestHandler

from tests.services.hub import USER_PASSWORD, RunningHub, running, wait_until
from visahub.model.experiment import Experiment
from visahub.portal.app import ROUTES
from visahub.store.database import Store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PORTAL = "/services/visahub/"
LAB = "ilabattack"
OPEN = Experiment(
    id="xfel/1",
    proposal="p1",
    title="Open data of a test",
    instrument="P03",
    start=date(2020, 1, 1),
    end=date(2020, 1, 3),
    public_at=date(2021, 1, 1),
)
CHOICES = {"experiments": ["xfel/1"], "environment": "tiny", "hardware": "small"}
_OPTIONS = "opt-experiments=xfel/1&opt-environment=tiny&opt-hardware=small"


class Empty(BaseHTTPRequestHandler):
    """The other origin: empty pages, whose scripts come from the test."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>evil</title><body></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def evil() -> Iterator[int]:
    """The port of another origin; `evil.localhost` is another site, 127.0.0.1 gets the same cookies as the Hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A Hub with portal where Alice has a JupyterLab and Bob a tiny server."""
    with running(tmp_path_factory.mktemp("attacks"), with_portal=True) as one:
        store = Store(f"sqlite:///{one.state / 'visahub.sqlite'}")
        store.experiments.replace_source("tests", [OPEN], datetime.now(UTC))
        store.close()
        wait_until(one.has_portal, "the portal answers")
        for name, server, environment in (("alice", LAB, "lab"), ("bob", "ihostile", "tiny")):
            one.login(name).close()
            started = one.start_server(name, server, CHOICES | {"environment": environment}, token=one.token(name))
            assert started.status_code in {201, 202}, started.text
            one.wait_ready(name, server)
        yield one


@pytest.fixture(scope="module")
def context(browser: Browser, hub: RunningHub) -> Iterator[BrowserContext]:
    """Alice's browser: logged in at the Hub, the portal and her JupyterLab a moment ago."""
    made = browser.new_context(base_url=hub.url)
    page = made.new_page()
    page.goto("/")
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password", exact=True).fill(USER_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="My instances", level=1)).to_be_visible()
    page.goto(f"/user/alice/{LAB}/lab")
    page.wait_for_url(re.compile(f"/user/alice/{LAB}/lab"))
    page.close()
    yield made
    made.close()


def state(hub: RunningHub) -> dict[str, list[Any]]:
    """Gives all that a forged request could change, of both databases and of the home."""
    ours = "accounts:username,roles,quota instances:id,want,phase,attempt,request,last_input preferences:*"
    theirs = "spawners:name,user_options,display_name users:name,admin shares:* share_codes:* groups:name services:name"
    found = {}
    for file, tables in (("visahub", ours), ("jupyterhub", theirs)):
        with closing(sqlite3.connect(hub.state / f"{file}.sqlite", timeout=10)) as database:
            for name, _, columns in (table.partition(":") for table in tables.split()):
                found[name] = sorted(database.execute(f"SELECT {columns} FROM {name}").fetchall(), key=repr)
            if file == "visahub":
                found["events"] = database.execute("SELECT count(*) FROM instance_events").fetchall()
            else:
                # Logins make tokens of their own; those of people are the Hub's.
                query = "SELECT note FROM api_tokens WHERE client_id = 'jupyterhub'"
                found["tokens"] = sorted(database.execute(query).fetchall(), key=repr)
    # The desktop, which opening its page starts as a click does, makes folders of its own.
    names = {path.name for path in (hub.state / "homes" / "alice").iterdir()}
    found["home"] = sorted(name for name in names if re.match("start|evil|[Uu]ntitled", name))
    return found


# Every page, every change: those of the portal come from its table of routes.


def portal_addresses(method: str) -> list[str]:
    """Gives the portal's addresses that do something with a method."""
    name = method.lower()
    with_it = [path for path, handler in ROUTES if getattr(handler, name) is not getattr(RequestHandler, name)]
    filled = [path.replace(r"([A-Za-z0-9._-]{1,64})", LAB).replace("(.{1,600})", "xfel/1") for path in with_it]
    return [PORTAL + path for path in filled]


HUB_PAGES = [
    "/hub/home",
    "/hub/token",
    f"/hub/spawn/alice/ievilspawn?{_OPTIONS}",
    f"/hub/spawn/alice/ievilspawn?{_OPTIONS.replace('opt-', '')}",
    f"/hub/spawn?{_OPTIONS}",
    f"/hub/spawn/alice/istopped?{_OPTIONS}",
    "/hub/spawn-pending/alice/ievilspawn",
    "/hub/user/alice/ievilspawn/lab",
    "/hub/accept-share?code=evil",
    "/hub/api/users/alice",
    f"/user/alice/{LAB}/api/contents",
    f"/user/alice/{LAB}/files/start-p1.ipynb",
    f"/user/alice/{LAB}/desktop/",
]
POSTS = [
    "/hub/spawn/alice/ievilform",
    "/hub/api/users/alice/servers/ievilform",
    f"/hub/api/users/alice/servers/{LAB}",
    "/hub/api/users/alice/tokens",
    f"/hub/api/share-codes/alice/{LAB}",
    "/hub/api/users/alice/activity",
    "/hub/api/visahub/round",
    "/hub/api/shutdown",
    "/hub/token",
    f"/user/alice/{LAB}/api/contents/",
    f"/user/alice/{LAB}/api/kernels",
    f"/user/alice/{LAB}/api/terminals",
    f"/user/alice/{LAB}/api/shutdown",
    f"/user/alice/{LAB}/desktop/start",
    f"/user/alice/{LAB}/desktop/keyboard",
]
FIELDS = {
    "experiment": "xfel/1",
    "environment": "tiny",
    "hardware": "small",
    "server_name": "ievilform",
    "name": "evil",
    "notes": "evil",
}
_FORM = """([address, fields, enctype]) => {
  const form = document.createElement("form");
  Object.assign(form, { action: address, method: "POST", enctype });
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement("input");
    Object.assign(input, { type: "hidden", name, value });
    form.append(input);
  }
  document.body.append(form);
  setTimeout(() => form.submit());
}"""
_FETCH = """async ([reads, posts]) => {
  const got = [];
  const ask = async (address, mode, method) => {
    try {
      const body = method === "GET" ? undefined : '{"experiments":["xfel/1"],"environment":"tiny","hardware":"small"}';
      const answer = await fetch(address, { mode, method, body, credentials: "include" });
      got.push([address, mode, method, answer.status, (await answer.text())]);
    } catch { got.push([address, mode, method, 0, ""]); }
  };
  for (const mode of ["cors", "no-cors"]) {
    await Promise.all(reads.map((address) => ask(address, mode, "GET")));
    for (const address of posts) await ask(address, mode, "POST");
  }
  for (const method of ["DELETE", "PUT", "PATCH"]) for (const address of posts) await ask(address, "cors", method);
  return got;
}"""
_IMAGES = """(addresses) => Promise.all(addresses.map((address) => new Promise((done) => {
  const image = new Image();
  image.onload = () => done("loaded");
  image.onerror = () => done("refused");
  image.src = address;
})))"""
_SOCKETS = """(addresses) => Promise.all(addresses.map((address) => new Promise((done) => {
  const socket = new WebSocket(address);
  socket.onopen = () => done("open");
  socket.onclose = () => done("closed");
})))"""
_FRAMES = """(addresses) => Promise.all(addresses.map((address) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.onload = () => { try { done(frame.contentDocument.body.innerText); } catch { done("refused"); } };
  frame.src = address;
  document.body.append(frame);
})))"""
SOCKETS = [f"/user/alice/{LAB}/{path}" for path in ("visahub/desktop/socket", "api/events/subscribe", "desktop/x")]
SOCKETS += [f"/user/alice/{LAB}/api/kernels/0/channels", f"/user/alice/{LAB}/terminals/websocket/1"]
SOCKETS += [f"{PORTAL}events", "/hub/api/users/alice/servers/x/progress"]


@pytest.mark.parametrize("host", ["evil.localhost", "127.0.0.1"])
def test_x2_another_origin_changes_nothing(context: BrowserContext, hub: RunningHub, evil: int, host: str) -> None:
    origin = f"http://{host}:{evil}/"
    before = state(hub)

    # A stream never arrives: it is fetched below.
    pages = [
        hub.url + path for path in HUB_PAGES + portal_addresses("GET") if not path.endswith(("callback", "events"))
    ]
    page = context.new_page()
    # As a link does.
    script = "(address) => { setTimeout(() => { location.href = address; }); }"
    assert [one for one in pages if not visit(page, hub, origin, script, one)] == []
    assert state(hub) == before

    posts = [hub.url + path for path in POSTS + portal_addresses("POST")]
    for enctype in ("application/x-www-form-urlencoded", "text/plain"):
        assert [one for one in posts if not visit(page, hub, origin, _FORM, [one, FIELDS, enctype])] == []
    assert state(hub) == before

    page.goto(origin)
    got = page.evaluate(_FETCH, [pages, posts])
    assert {text for *_, text in got} == {""}, "another origin reads nothing"
    page.evaluate(_IMAGES, pages)
    sockets = [f"{hub.url}{path}".replace("http:", "ws:") for path in SOCKETS]
    assert set(page.evaluate(_SOCKETS, sockets)) == {"closed"}
    assert set(page.evaluate(_FRAMES, [hub.url + PORTAL, f"{hub.url}/hub/home"])) == {"refused"}
    assert state(hub) == before
    page.goto(hub.url + PORTAL)
    expect(page.get_by_role("heading", name="My instances", level=1)).to_be_visible()


def visit(page: Page, hub: RunningHub, origin: str, script: str, argument: Any) -> bool:
    """Opens a page of the other origin that goes on to the Hub by a script; tells whether it has arrived."""
    try:
        page.goto(origin)
    except Error:
        # The page before still went on by itself, and interrupted this.
        page.wait_for_timeout(1000)
        page.goto(origin)
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    try:
        with page.expect_navigation(url=re.compile(re.escape(hub.url)), wait_until="commit", timeout=20_000):
            page.evaluate(script, argument)
    except Error:
        # A download leaves the page where it is, and a page that goes on at once is not seen to arrive.
        return any(address.startswith(hub.url) for address in asked)
    finally:
        page.remove_listener("request", note)
    return True


def cookies(context: BrowserContext, hub: RunningHub, path: str) -> str:
    """Gives the Cookie header that the browser would send."""
    return "; ".join(f"{one.get('name')}={one.get('value')}" for one in context.cookies(hub.url + path))


CHANGES = [
    *(("POST", path) for path in portal_addresses("POST")),
    *(("DELETE", path) for path in portal_addresses("DELETE")),
    *(("POST", path) for path in POSTS),
    ("PUT", "/hub/api/users/alice/servers/ievilput"),
    ("PATCH", f"/hub/api/users/alice/servers/{LAB}"),
    ("DELETE", f"/hub/api/users/alice/servers/{LAB}"),
    ("DELETE", f"/user/alice/{LAB}/api/contents/start.ipynb"),
    ("PUT", f"/user/alice/{LAB}/api/contents/evil.txt"),
]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
@pytest.mark.parametrize("mode", ["navigate", "no-cors", "cors", ""])
def test_x2_no_change_by_a_cookie_alone(context: BrowserContext, hub: RunningHub, mode: str, site: str) -> None:
    """CVE-2026-40864: whatever the browser says of a request, a change needs the token of the page."""
    before = state(hub)
    headers = {"Sec-Fetch-Mode": mode, "Sec-Fetch-Site": site} if mode else {}
    for method, path in CHANGES:
        sent = {**headers, "Cookie": cookies(context, hub, path)}
        if "/api/" in path:
            answer = httpx.request(method, hub.url + path, headers=sent, content=json.dumps(CHOICES), timeout=60)
        else:
            answer = httpx.request(method, hub.url + path, headers=sent, data=FIELDS, timeout=60)
        # 503: the proxy, when an instance closes the connection of a refused request whose body it has not read.
        assert answer.status_code in {*range(400, 500), 503}, (method, path, answer.status_code)
    assert state(hub) == before


def test_x2_two_tokens_in_two_cookies_the_wrong_one_first(context: BrowserContext, hub: RunningHub) -> None:
    """CVE-2024-28233: another page of the domain can toss a cookie, and cannot make it count."""
    paths = {
        f"{PORTAL}instances/{LAB}": "form",
        "/hub/api/users/alice/tokens": "json",
        "/hub/spawn/alice/ievil": "form",
    }
    before = state(hub)
    for path, kind in paths.items():
        sent = cookies(context, hub, path)
        right = re.search(r"(?:^|; )_xsrf=([^;]+)", sent)
        assert right is not None, path
        wrong = "2|1:0|10:1700000000|5:_xsrf|4:ZXZpbA==|0000"
        for tossed in (f"_xsrf={wrong}; {sent}", f"{sent}; _xsrf={wrong}"):
            for token in (wrong, ""):
                body: Any = {"data": {"_xsrf": token, "name": "evil"}} if kind == "form" else {"json": {"note": "evil"}}
                headers = {"Cookie": tossed} | ({} if kind == "form" else {"X-XSRFToken": token})
                answer = httpx.post(hub.url + path, headers=headers, timeout=60, **body)
                assert answer.status_code == 403, path
    assert state(hub) == before
    # With the right token the page's own change goes on, whatever was tossed.
    path = f"{PORTAL}instances/{LAB}"
    sent = cookies(context, hub, path)
    token = re.findall(r"(?:^|; )_xsrf=([^;]+)", sent)[0]
    data = {"_xsrf": token, "name": "mine", "notes": ""}
    answer = httpx.post(hub.url + path, headers={"Cookie": f"_xsrf={wrong}; {sent}"}, data=data, timeout=60)
    assert answer.status_code == 303, answer.text


def handshake(hub: RunningHub, path: str, origin: str, cookie: str) -> int:
    """Asks for a websocket and gives the status."""
    with closing(socket.create_connection(("127.0.0.1", hub.ports[0]), timeout=30)) as opened:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{hub.ports[0]}", "Connection: Upgrade", "Upgrade: websocket"]
        lines += [
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-Fetch-Mode: websocket",
        ]
        lines += [f"Origin: {origin}", f"Cookie: {cookie}", "", ""]
        opened.sendall("\r\n".join(lines).encode())
        return int(opened.recv(200).split()[1])


def test_x2_websockets_know_their_origin(context: BrowserContext, hub: RunningHub) -> None:
    """CVE-2026-40110: an origin is compared as a whole, not by its beginning."""
    sent = cookies(context, hub, f"/user/alice/{LAB}/lab")
    right = hub.url
    port = hub.ports[0]
    wrong = [
        "https://hub.example.evil",
        "null",
        f"{right}.evil.example",
        "http://127.0.0.1",
        f"http://127.0.0.1.evil:{port}",
    ]
    wrong += [f"http://evil@127.0.0.1:{port + 1}", f"http://127.0.0.1:{port}0", f"http://localhost:{port}", "http://"]
    for path in SOCKETS:
        for origin in wrong:
            assert handshake(hub, path, origin, sent) not in {101, 200}, (path, origin)
    for path in SOCKETS[:2]:
        assert handshake(hub, path, right, sent) == 101
        assert handshake(hub, path, right, "") == 403


def test_x19_page_of_an_instance_reads_nothing_on_one_domain(context: BrowserContext, hub: RunningHub) -> None:
    """As far as one domain allows: what a page fetches or frames. Only per-user domains end what windows can do."""
    page: Page = context.new_page()
    page.goto("/user/bob/ihostile/api")
    before = state(hub)
    reads = [
        hub.url + path for path in [*HUB_PAGES, *portal_addresses("GET")] if not path.endswith(("callback", "health"))
    ]
    posts = [hub.url + path for path in POSTS + portal_addresses("POST")]
    got = page.evaluate(_FETCH, [[one for one in reads if not one.endswith("events")], posts])
    read = [(address, mode, method, status, tells(text)) for address, mode, method, status, text in got if tells(text)]
    assert read == [], "\n".join(map(str, read))
    assert {status for _, _, method, status, _ in got if method != "GET"} <= {0, 400, 401, 403, 404, 405, 500, 503}
    assert set(page.evaluate(_FRAMES, [hub.url + PORTAL, f"{hub.url}/hub/home"])) == {"refused"}
    assert "_xsrf" not in page.evaluate("document.cookie")
    assert state(hub) == before


def tells(text: str) -> str:
    """Gives what an answer says that only Alice may know."""
    words = ("Alice Example", "Open data of a test", '"start-p1.ipynb"', '"alice"')
    return next((text[text.find(word) - 60 :][:120] for word in words if word in text), "")
