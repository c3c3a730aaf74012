"""Attacks on a running Hub, portal and instance, without credentials or with another's, named as in the threat model."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.services.hub import ROOT, running, wait_until
from tests.services.routes import ADDRESS, example
from visahub.model.instance import new_instance_id

from .conftest import OTHERS, OWN, Asking

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
    # Long deprecated in the Hub: one is gone, one fails.
    "POST /hub/api/authorizations/token$": {404},
    "POST /hub/api/authorizations/token/([^/]+)$": {500},
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
        made.experiments(OWN, OTHERS)
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
    assert ours == {f"visahub.hub.{name}" for name in ("handlers.RoundHandler", "handlers.AwayHandler")} | {
        f"visahub.hub.limits.{name}" for name in ("Servers", "Tokens")
    }
    headers = {"Authorization": f"token {token}"} if token else {}
    with httpx.Client(base_url=asking.hub.url, headers=headers, timeout=60) as client:
        assert opened(client, found, OPEN_AT_HUB) == {}


@pytest.mark.parametrize("who", ["nobody", "wrong", "bob", "another-instance"])
def test_x1_nobody_gets_into_an_instance(asking: Asking, lab: str, who: str) -> None:
    cut = f"/user/alice/{lab}"
    found = [route for route in routes(asking, f"{cut}/") if route["pattern"].startswith(cut)]
    ours = {route["handler"] for route in found if route["handler"].startswith("visahub.")}
    assert ours == {f"visahub.singleuser.extension.{name}" for name in ("ActivityHandler", "DesktopSocket")}
    token = {"nobody": "", "wrong": "wrong", "bob": asking.token("bob"), "another-instance": tiny_token(asking)}[who]
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


def tiny_token(asking: Asking) -> str:
    """Gives the token of a small instance of Bob's, as the instance itself was given it."""
    mine = [row for row in asking.store.instances.live() if row.owner == "bob" and row.phase == "ready"]
    server = mine[0].server_name if mine else asking.started("bob", experiments=["others"])
    return str(asking.visit(server, "bob")["environ"]["JUPYTERHUB_API_TOKEN"])


# What the token of an instance may ask of the Hub: who it is, and to tell that it is used.
INSTANCE_MAY = {"GET /hub/api/user$", "POST /hub/api/users/([^/]+)/activity$"}


def test_x20_an_instance_may_ask_the_hub_for_itself_only(asking: Asking) -> None:
    headers = {"Authorization": f"token {tiny_token(asking)}"}
    with httpx.Client(base_url=asking.hub.url, headers=headers, timeout=60) as client:
        known = OPEN_AT_HUB | {name: {200, 400, 404} for name in INSTANCE_MAY}
        for text in ("bob", "alice"):
            wrong = opened(client, routes(asking, "/hub/"), known, text=text)
            assert set(wrong.values()) <= {404}, wrong
        me = client.get("/hub/api/user").json()
        assert me["name"] == "bob"
        assert not {"servers", "auth_state", "roles", "groups"} & {key for key, value in me.items() if value}
        assert client.post("/hub/api/users/alice/activity", json={"servers": {}}).status_code in {403, 404}
        # Its own account's other doors: no start, no stop, no token.
        server = next(row.server_name for row in asking.store.instances.live() if row.owner == "bob")
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
