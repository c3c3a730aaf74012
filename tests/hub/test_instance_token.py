"""X20 and X21: what hostile code inside an instance can tell Hub and portal with the instance's own token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.services.hub import running, wait_until
from visahub.model.instance import new_instance_id

from .conftest import OTHERS, OWN, Asking, choices

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]
PORTAL = "/services/visahub/"


class Inside:
    """Code inside one instance: it has what the instance's environment holds, and nothing else."""

    def __init__(self, asking: Asking, username: str = "alice") -> None:
        self.hub = asking.hub
        self.server = started(asking, username)
        environ = asking.visit(self.server, username)["environ"]
        self.token = environ["JUPYTERHUB_API_TOKEN"]
        self.id = environ["VISAHUB_INSTANCE"]
        self.portal_url = environ["VISAHUB_PORTAL"]
        self.environ = environ

    def tell(self, body: Any, instance: str = "", token: str = "") -> httpx.Response:
        """Tells the portal of activity."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(
            f"{self.hub.url}{PORTAL}api/instances/{instance or self.id}/activity",
            content=content,
            headers={"Authorization": f"token {token or self.token}"},
            timeout=30,
        )

    def tell_hub(self, body: Any, username: str = "alice", token: str = "") -> httpx.Response:
        """Tells the Hub of activity."""
        return self.hub.api("POST", f"/users/{username}/activity", token=token or self.token, body=body)


def started(asking: Asking, username: str) -> str:
    server = new_instance_id()
    experiment = "own" if username == "alice" else "others"
    answer = asking.start(server, choices(experiments=[experiment]), username)
    assert answer.status_code in {201, 202}, answer.text
    asking.hub.wait_ready(username, server)
    return server


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


@pytest.fixture
def inside(asking: Asking) -> Inside:
    return Inside(asking)


def now() -> datetime:
    return datetime.now(UTC)


def test_x21_activity_is_taken_once_twice_and_late(asking: Asking, inside: Inside) -> None:
    first = now() - timedelta(minutes=5)
    body = {"last_input": first.isoformat(), "last_activity": None}
    for _ in range(2):
        assert inside.tell(body).status_code == 204
    row = asking.row(inside.server)
    assert row is not None
    assert row.last_input == first
    assert row.last_activity is None
    # An older report that comes late does not turn the time back.
    assert inside.tell({"last_input": (first - timedelta(hours=1)).isoformat()}).status_code == 204
    after = asking.row(inside.server)
    assert after is not None
    assert after.last_input == first
    # Nothing else of the row is changed by it.
    assert (after.phase, after.want, after.attempt, after.changed) == (row.phase, row.want, row.attempt, row.changed)


FORGED: list[Any] = [
    {"last_input": (datetime.now(UTC) + timedelta(days=1)).isoformat()},
    {"last_input": "9999-12-31T23:59:59+00:00"},
    {"last_input": "9999-12-31T23:59:59-14:00"},
    {"last_input": "0001-01-01T00:00:00+14:00"},
    {"last_input": "2026-01-01T00:00:00"},
    {"last_input": "now"},
    {"last_input": "2026-01-01T00:00:00+00:00" + " " * 10_000},
    {"last_input": 10**400},
    {"last_input": 1.7e9},
    {"last_input": True},
    {"last_input": ["2026-01-01T00:00:00+00:00"]},
    {"last_input": {"$gt": ""}},
    {"last_input": "2026-01-01T00:00:00\u0000+00:00"},
    {"last_input": "\ud800"},
    {"last_input": "٢٠٢٦-01-01T00:00:00+00:00"},
    {"phase": "gone"},
    {"want": "gone", "last_input": "2026-01-01T00:00:00+00:00"},
    {"owner": "bob"},
    {"exec_prefix": "id", "ip": "10.0.0.1", "port": 80},
    {"id": "x", "last_activity": None},
    {},
    [],
    "last_input",
    None,
    7,
    b"[" * 15_000,
    b'{"last_input": ' + b"9" * 5000 + b"}",
    b"\xff\xfe",
    b"last_input=2026-01-01",
]


def test_x21_forged_activity_is_refused_with_a_sentence(asking: Asking, inside: Inside) -> None:
    before = asking.row(inside.server)
    for body in FORGED:
        answer = inside.tell(body)
        shown = str(body)[:80]
        assert answer.status_code == 422, (shown, answer.status_code, answer.text[:300])
        assert len(answer.json()["message"]) > 20, shown
    assert asking.row(inside.server) == before


def test_x21_activity_for_another_instance_is_as_if_it_were_absent(asking: Asking, inside: Inside) -> None:
    another, bobs = Inside(asking), Inside(asking, "bob")
    body = {"last_input": now().isoformat()}
    absent = inside.tell(body, "i-that-is-not")
    assert absent.status_code == 404
    for target in (another, bobs):
        answer = inside.tell(body, target.id)
        assert (answer.status_code, answer.json()) == (404, absent.json())
        row = asking.store.instances.get(target.id)
        assert row is not None
        assert row.last_input is None
    # A person's token is not an instance's.
    assert inside.tell(body, token=asking.token("alice")).status_code == 403
    assert httpx.post(f"{asking.hub.url}{PORTAL}api/instances/{inside.id}/activity", json=body).status_code == 401


def test_x21_token_of_an_ended_attempt_is_refused(asking: Asking, inside: Inside) -> None:
    body = {"last_input": now().isoformat()}
    before = asking.row(inside.server)
    assert asking.ask("DELETE", inside.server).status_code in {202, 204}
    wait_until(lambda: not (asking.hub.server("alice", inside.server) or {}).get("ready"), "it has stopped")
    old = inside.token
    # Never seen by the portal before: what the portal knows of a token it remembers for a few seconds.
    assert inside.tell(body).status_code == 401
    assert inside.tell_hub({"last_activity": now().isoformat()}).status_code in {401, 403}
    # The same instance, started again: another attempt, another token; the old one stays void.
    assert asking.start(inside.server, choices()).status_code in {201, 202}
    asking.hub.wait_ready("alice", inside.server)
    fresh = asking.visit(inside.server)["environ"]
    assert fresh["JUPYTERHUB_API_TOKEN"] != old
    assert inside.tell(body, token=old).status_code == 401
    assert inside.tell(body, token=fresh["JUPYTERHUB_API_TOKEN"]).status_code == 204
    after = asking.row(inside.server)
    assert before is not None
    assert after is not None
    assert after.attempt != before.attempt


def test_x21_forged_activity_for_the_hub_changes_nothing_of_ours(asking: Asking, inside: Inside) -> None:
    hub = asking.hub
    future = (now() + timedelta(days=365)).isoformat()
    for body in (
        {"last_activity": future},
        {"servers": {inside.server: {"last_activity": future}}},
        {"servers": {"not-there": {"last_activity": now().isoformat()}}},
        {"servers": {inside.server: {"last_activity": [1]}}},
        {"servers": {inside.server: "now"}},
        {"servers": [1]},
        {"last_activity": 10**30},
        {"last_activity": "x" * 100_000},
        {},
        [],
        7,
    ):
        answer = inside.tell_hub(body)
        assert answer.status_code == 400, (str(body)[:80], answer.status_code)
    for other in ("bob", "nobody-there"):
        assert inside.tell_hub({"last_activity": now().isoformat()}, other).status_code in {403, 404}
    # Keys that nobody reads set nothing.
    odd = {"last_activity": now().isoformat(), "admin": True, "state": {"attempt": "x"}, "options": {}}
    row = asking.row(inside.server)
    assert inside.tell_hub(odd).status_code == 200
    assert asking.row(inside.server) == row
    assert hub.api("GET", "/users/alice").json()["admin"] is False


@pytest.mark.parametrize(
    "body",
    [
        {"exec_prefix": "id"},
        {"ip": "10.0.0.1"},
        {"cmd": ["id"]},
        {"port": [80]},
        {"port": True},
        {"port": 80.5},
        {"port": 10**9},
        {"port": 8888},
    ],
)
def test_x21_the_open_port_callback_of_batchspawner_is_not_there(
    asking: Asking, inside: Inside, body: dict[str, Any]
) -> None:
    for token in (inside.token, asking.hub.admin_token, asking.token("alice")):
        assert asking.hub.api("POST", "/batchspawner", token=token, body=body).status_code == 404


def test_x20_the_token_of_an_instance_opens_nothing_but_its_own(asking: Asking, inside: Inside) -> None:
    """Every address of the Hub's API that says or changes something, and the portal's."""
    hub, server = asking.hub, inside.server
    bobs = Inside(asking, "bob")
    for method, path, body in (
        ("GET", "/users", None),
        ("GET", "/users/bob", None),
        ("PATCH", "/users/alice", {"admin": True}),
        ("POST", "/users/alice/tokens", {}),
        ("GET", "/users/alice/tokens", None),
        ("POST", f"/users/alice/servers/{new_instance_id()}", {"user_options": choices()}),
        ("DELETE", f"/users/alice/servers/{server}", {"remove": True}),
        ("DELETE", f"/users/bob/servers/{bobs.server}", None),
        ("GET", f"/users/bob/servers/{bobs.server}/progress", None),
        ("POST", "/visahub/round", {}),
        ("GET", "/services", None),
        ("GET", "/proxy", None),
        ("POST", "/shutdown", {}),
        ("GET", "/groups", None),
        ("POST", f"/shares/alice/{server}", {"user": "bob"}),
        ("POST", f"/share-codes/alice/{server}", {}),
    ):
        answer = hub.api(method, path, token=inside.token, body=body)
        is_empty = answer.status_code == 200 and answer.json() in ([], {})
        assert answer.status_code in {403, 404, 405} or is_empty, (method, path, answer.status_code, answer.text[:200])
    headers = {"Authorization": f"token {inside.token}"}
    for method, path in (
        ("GET", "api/instances"),
        ("GET", f"api/instances/{inside.id}"),
        ("DELETE", f"api/instances/{inside.id}"),
        ("POST", f"api/instances/{inside.id}/stop"),
        ("POST", "api/instances"),
        ("GET", "api/experiments"),
        ("GET", "metrics"),
    ):
        answer = httpx.request(method, f"{hub.url}{PORTAL}{path}", headers=headers, timeout=30)
        assert answer.status_code in {401, 403, 404}, (method, path, answer.status_code, answer.text[:200])
    wait_until(lambda: (hub.server("alice", server) or {}).get("ready"), "it runs on", seconds=5)
    # Another person's instance does not take it either.
    theirs = httpx.get(f"{hub.url}/user/bob/{bobs.server}/api", headers=headers, timeout=30)
    assert "alice" not in theirs.text or theirs.status_code == 200


def test_x21_an_instance_is_told_nothing_of_the_hubs_own(inside: Inside) -> None:
    told = json.dumps(inside.environ)
    for secret in (
        inside.hub.admin_token,
        inside.hub.portal_token,
        "CONFIGPROXY_AUTH_TOKEN",
        "cookie_secret",
        "sqlite",
    ):
        assert secret not in told
    assert "VISAHUB_PORTAL_TOKEN" not in inside.environ
    assert "JPY_API_TOKEN" not in inside.environ
