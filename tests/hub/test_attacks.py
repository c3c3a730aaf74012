"""Attacks on a running Hub, portal and instance, without credentials or with others', named as in the threat model."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tornado.web import RequestHandler

from tests.services.hub import ROOT, running, wait_until
from tests.services.routes import ADDRESS, METHODS, example
from visahub.model.experiment import Member
from visahub.model.instance import new_instance_id
from visahub.portal.app import ROUTES

from .conftest import OTHERS, OWN, Asking, choices

DORAS = replace(OWN, id="doras", team=(Member("dora"),))

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

PORTAL = "/services/visahub/"
_MORE = f"""
sys.path.insert(0, {str(ROOT)!r})
from tests.services.routes import Routes
c.JupyterHub.extra_handlers = [("/{ADDRESS}", Routes)]
# Of the tests of quotas: what is asked at once must reach the rules.
c.JupyterHub.concurrent_spawn_limit = 200
"""

# What anybody may have, and what it answers. Everything else asks who is there; a new open address fails the test.
OPEN_AT_HUB = {
    "GET /(robots\\.txt)$": {404},
    "GET /(favicon\\.ico)$": {200},
    "GET /hub/static/(.*)$": {404},
    "GET /hub/login$": {200},
    "GET /hub$": {301},
    "GET /hub/$": {302},
    "GET /hub/error/(\\d+)$": {200},
    "GET /hub/health$": {200},
    "GET /hub/api/health$": {200},
    "GET /hub/api/?$": {200},
    "GET /hub/logo$": {200},
    "GET /hub/logout$": {302},
    f"GET /hub/{ADDRESS}$": {200},
    # Adding the slash that an address lacks, or the Hub's prefix.
    "GET /(user|services)/([^/]+)$": {301},
    "GET (?!/hub/).*$": {302},
    # A page that says that the portal is coming back.
    "GET /hub/services/visahub/.*$": {503},
    # OAuth clients show their own secret here.
    "POST /hub/api/oauth2/token$": {400},
}
OPEN_AT_INSTANCE = {
    # Its version, by which the Hub sees that it is up.
    "GET /api$": {200},
    # Files of JupyterLab itself, the same for everybody.
    "GET /static/(.*)$": {404},
    "GET /static/lab/(.*)$": {404},
    "GET /lab/extensions/(.*)$": {404},
    "GET /lab/api/themes/(.*)$": {404},
    "GET /server-proxy/icon/(.*)$": {404},
    "GET /(robots\\.txt|favicon\\.ico)$": {200, 404, 503},
    # Where one is led next; there the login waits.
    "GET /?$": {302},
    "GET /logout$": {302},
    "GET /oauth_callback$": {400},
    "GET /api/notebooks/?(.*)$": {302},
    "GET /.*/$": {302},
    "POST /.*/$": {302},
    "PUT /.*/$": {302},
    f"GET /{ADDRESS}$": {200},
}
# Never answers who may not ask (jupyterlab_server's `finish` takes an argument that its errors do not give).
SILENT = "/lab/api/licenses/(.*)$"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), more=_MORE, with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS, DORAS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


@pytest.fixture(scope="module")
def lab(asking: Asking) -> str:
    """The name of a real JupyterLab of Alice's, which tells its routes."""
    folder = asking.home() / ".jupyter" / "jupyter_server_config.d"
    folder.mkdir(parents=True)
    (folder.parent / "jupyter_server_config.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n")
    extensions = {"jpserver_extensions": {"tests.services.routes": True}}
    (folder / "routes.json").write_text(json.dumps({"ServerApp": extensions}))
    return asking.started(environment="lab")


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """One Hub with one JupyterLab serves all tests here; each ends what it starts itself."""


def routes(asking: Asking, prefix: str) -> list[dict[str, Any]]:
    """Reads the routes from a running application."""
    answer = httpx.get(f"{asking.hub.url}{prefix}{ADDRESS}", timeout=60)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["routes"]
    return [route for route in found if route["methods"]]


def is_login(answer: httpx.Response) -> bool:
    """Tells whether a browser is led to the login."""
    leads_to = answer.headers.get("location", "")
    return answer.status_code == 302 and leads_to.startswith(("/hub/login?", "/hub/api/oauth2/authorize?"))


def opened(
    client: httpx.Client, found: list[dict[str, Any]], known: dict[str, set[int]], cut: str = "", text: str = "alice"
) -> dict[str, int]:
    """Asks for everything; gives what neither was refused nor is known to be open."""
    wrong: dict[str, int] = {}
    for route in found:
        pattern = route["pattern"].removeprefix(cut)
        for method in route["methods"]:
            if pattern == SILENT:
                continue
            answer = client.request(method, example(route["pattern"], text))
            name = f"{method} {pattern}"
            is_refused = answer.status_code in {401, 403} or (method == "GET" and is_login(answer))
            if "/api/" in pattern and is_refused and answer.status_code != 302:
                is_refused = answer.headers["content-type"].startswith(("application/json", "text/html"))
            if not is_refused and answer.status_code not in known.get(name, set()):
                wrong[name] = answer.status_code
    return wrong


@pytest.mark.parametrize("token", ["", "wrong"])
def test_x1_nobody_gets_into_the_hub(asking: Asking, token: str) -> None:
    found = routes(asking, "/hub/")
    ours = {route["handler"] for route in found if route["handler"].startswith("visahub.")}
    names = ("handlers.RoundHandler", "handlers.AwayHandler", "doors.SpawnPage", "doors.ServerDoor", "limits.Tokens")
    assert ours == {f"visahub.hub.{name}" for name in names}
    headers = {"Authorization": f"token {token}"} if token else {}
    with httpx.Client(base_url=asking.hub.url, headers=headers, timeout=60) as client:
        assert opened(client, found, OPEN_AT_HUB) == {}


@pytest.mark.parametrize("who", ["nobody", "wrong", "bob", "another-instance"])
def test_x1_nobody_gets_into_an_instance(asking: Asking, lab: str, who: str) -> None:
    cut = f"/user/alice/{lab}"
    found = [route for route in routes(asking, f"{cut}/") if route["pattern"].startswith(cut)]
    ours = {route["handler"] for route in found if route["handler"].startswith("visahub.")}
    names = ("ActivityHandler", "DesktopSocket", "StartHandler")
    assert ours == {f"visahub.singleuser.extension.{name}" for name in names}
    token = {"nobody": "", "wrong": "wrong", "bob": asking.token("bob"), "another-instance": tiny_token(asking)[1]}[who]
    headers = {"Authorization": f"token {token}"} if token else {}
    with httpx.Client(base_url=asking.hub.url, headers=headers, timeout=60) as client:
        assert opened(client, found, OPEN_AT_INSTANCE, cut, "x") == {}
    sockets = [route["pattern"] for route in found if route["is_websocket"]]
    assert len(sockets) >= 6, sockets
    statuses = {pattern: upgraded(asking, example(pattern), headers) for pattern in sockets}
    assert set(statuses.values()) <= {401, 403, 302}, statuses
    # The same question of Alice herself is answered.
    assert upgraded(asking, f"{cut}/api/events/subscribe", {"Authorization": f"token {asking.token('alice')}"}) == 101


def upgraded(asking: Asking, address: str, headers: dict[str, str]) -> int:
    """Asks for a websocket and gives the status; the connection ends with the question."""
    lines = [f"GET {address} HTTP/1.1", f"Host: 127.0.0.1:{asking.hub.ports[0]}"]
    lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", *(f"{name}: {value}" for name, value in headers.items())]
    with socket.create_connection(("127.0.0.1", asking.hub.ports[0]), timeout=60) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        first = connection.makefile("rb").readline()
    return int(first.split()[1])


def tiny_token(asking: Asking) -> tuple[str, str]:
    """Gives a small instance of Bob's: its server's name, and its token as it was given it."""
    mine = [row for row in asking.store.instances.live() if row.owner == "bob" and row.phase == "ready"]
    server = mine[0].server_name if mine else asking.started("bob", experiments=["others"])
    return server, str(asking.visit(server, "bob")["environ"]["JUPYTERHUB_API_TOKEN"])


# What the token of an instance may ask of the Hub: who it is, and to tell that it is used.
INSTANCE_MAY = {
    "GET /hub/api/user$": {200},
    "GET /hub/api/users/([^/]+)$": {200},
    "POST /hub/api/users/([^/]+)/activity$": {400},
    # Pages, where a token is nobody: they say that nothing runs there.
    "GET /hub/user/(?P<user_name>[^/]+)(?P<user_path>/.*)?$": {404},
} | {f"{method} /hub/user/(?P<user_name>[^/]+)(?P<user_path>/.*)?$": {424} for method in ("POST", "PATCH", "DELETE")}


def test_x20_an_instance_may_ask_the_hub_for_itself_only(asking: Asking) -> None:
    server, token = tiny_token(asking)
    with httpx.Client(base_url=asking.hub.url, headers={"Authorization": f"token {token}"}, timeout=60) as client:
        found = routes(asking, "/hub/")
        assert opened(client, found, OPEN_AT_HUB | INSTANCE_MAY, text="bob") == {}
        absent = {key: statuses | {404} for key, statuses in INSTANCE_MAY.items() if "users" not in key}
        wrong = opened(client, found, OPEN_AT_HUB | absent, text="alice")
        assert set(wrong.values()) <= {404}, wrong
        for path in ("user", "users/bob"):
            model = client.get(f"/hub/api/{path}").json()
            assert model["name"] == "bob"
            told = {key for key, value in model.items() if value}
            assert told <= {"name", "kind", "scopes", "token_id", "last_activity", "user_info"}, model
        # Its own account's other doors: no start, no stop, no token.
        for method, path in (
            ("POST", "tokens"),
            ("GET", "tokens"),
            ("POST", f"servers/{new_instance_id()}"),
            ("DELETE", f"servers/{server}"),
            ("PATCH", f"servers/{server}"),
            ("GET", f"servers/{server}"),
        ):
            answer = client.request(method, f"/hub/api/users/bob/{path}", json={})
            assert answer.status_code in {403, 404}, (method, path, answer.text)


def test_x20_an_instance_may_tell_the_portal_of_itself_only(asking: Asking) -> None:
    server, token = tiny_token(asking)
    other = asking.started("bob", experiments=["others"])
    body = {"last_activity": "2026-01-01T00:00:00+00:00"}
    with httpx.Client(base_url=f"{asking.hub.url}{PORTAL}", timeout=60) as client:
        client.headers["Authorization"] = f"token {token}"
        for pattern, handler in ROUTES:
            path = example(pattern, server)
            methods = [m for m in METHODS if getattr(handler, m.lower()) is not getattr(RequestHandler, m.lower())]
            for method in methods:
                answer = client.request(method, path, json=body)
                expected = {"health": 200, "oauth_callback": 400}.get(path, 403)
                if path == f"api/instances/{server}/activity":
                    expected = 204
                assert answer.status_code == expected, (method, path, answer.text)
        for name in (other, "iabsent999"):
            answer = client.post(f"api/instances/{name}/activity", json=body)
            assert answer.status_code == 404
            assert "There is no such instance" in answer.json()["message"]
    asking.ask("DELETE", other, {"remove": True}, "bob")


def test_x8_anothers_server_looks_absent_at_the_hub(asking: Asking, lab: str) -> None:
    token = asking.token("bob")
    for user, server in (("alice", lab), ("alice", "iabsent999"), ("nobody-here", "iabsent999")):
        for method, path in (
            ("GET", f"servers/{server}"),
            ("POST", f"servers/{server}"),
            ("PATCH", f"servers/{server}"),
            ("DELETE", f"servers/{server}"),
            ("GET", f"servers/{server}/progress"),
            ("POST", "tokens"),
            ("GET", "tokens"),
            ("POST", "activity"),
        ):
            answer = asking.hub.api(method, f"/users/{user}/{path}", token=token, body={})
            known = asking.hub.api(method, f"/users/alice/{path.replace(server, lab)}", token=token, body={})
            assert answer.status_code == known.status_code in {403, 404}, (user, method, path)
            texts = [
                one.text.replace(server, "ID").replace(lab, "ID").replace(user, "alice") for one in (answer, known)
            ]
            assert texts[0] == texts[1]


def test_no_extension_is_installed_into_an_instance(asking: Asking, lab: str) -> None:
    """Not even by its owner's browser, where a page of the instance may act (CVE-2026-40171 and its sister)."""
    headers = {"Authorization": f"token {asking.token('alice')}"}
    with httpx.Client(base_url=f"{asking.hub.url}/user/alice/{lab}/lab", headers=headers, timeout=60) as client:
        for command in ("install", "uninstall"):
            body = {"cmd": command, "extension_name": "visahub-never-there"}
            answer = client.post("/api/extensions", json=body)
            proxy = (asking.hub.state / "proxy.log").read_text()[-500:]
            assert answer.status_code in {422, 500}, (answer.status_code, proxy)
            assert "blocked" in answer.text or "not supported" in answer.text, answer.text
        page = client.get(f"{asking.hub.url}/user/alice/{lab}/lab").text
        found = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)
        assert found is not None, page
        config = json.loads(found.group(1))
        manager = config["extensionManager"]
        assert (manager["name"], manager["can_install"]) == ("read-only", False)
        assert config["disabledExtensions"]


def test_x9_parallel_starts_make_one_at_a_quota_of_one(asking: Asking) -> None:
    """50 starts at once, through the portal's API and form and the Hub's API, by an account that may have one."""
    session = asking.hub.login("dora")
    session.follow_redirects = True
    session.get(PORTAL)
    form = {"experiment": "doras", "environment": "tiny", "hardware": "small"}
    form["_xsrf"] = next(c.value or "" for c in session.cookies.jar if (c.name, c.path) == ("_xsrf", PORTAL))
    asking.tokens["dora"] = asking.hub.token("dora")
    headers = {"Authorization": f"token {asking.tokens['dora']}"}

    body = choices(experiments=["doras"])

    def begin(number: int) -> int:
        server = new_instance_id()
        if number % 3 == 0:
            return asking.start(server, body, "dora").status_code
        if number % 3 == 1:
            return httpx.post(
                f"{asking.hub.url}{PORTAL}api/instances", headers=headers, json=body, timeout=90
            ).status_code
        data = form | {"server_name": server}
        return session.post(f"{PORTAL}instances", data=data, follow_redirects=False).status_code

    with closing(session), ThreadPoolExecutor(50) as pool:
        statuses = Counter(pool.map(begin, range(50)))
    # The Hub says 202 when it has not heard the rules within a second, and the portal that it is not recorded yet.
    assert set(statuses) <= {201, 202, 303, 409, 429, 503}, statuses
    account = asking.store.accounts.named("dora")
    kept = asking.store.instances.of_owner(account.id)
    assert len(kept) == 1, kept
    asking.hub.wait_ready("dora", kept[0].server_name)
    assert len([row for row in asking.store.instances.live() if row.owner == "dora"]) == 1
    active = [
        name for name, server in asking.hub.api("GET", "/users/dora").json()["servers"].items() if server["ready"]
    ]
    assert active == [kept[0].server_name]
