"""The Hub's limits, each with the sentence that whoever meets it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.services.hub import running, wait_until
from visahub.hub.limits import LONGEST_NOTE, MAX_BODY, MOST_TOKENS
from visahub.model.instance import new_instance_id
from visahub.model.request import MAX_OPTIONS

from .conftest import OTHERS, OWN, Asking, choices

pytestmark = pytest.mark.services

_MORE = """
c.VisaSpawner.starts_at_once = 2
c.JupyterHub.concurrent_spawn_limit = 3
c.JupyterHub.named_server_limit_per_user = 12
"""


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), more=_MORE) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        yield made
        made.store.close()


def test_bodies(asking: Asking) -> None:
    headers = {"Authorization": f"token {asking.token('alice')}"}
    path = f"{asking.hub.api_url}/users/alice/servers/ibody"
    fits = httpx.post(path, headers=headers, content=b"x" * MAX_BODY, timeout=60)
    assert fits.status_code == 400, fits.text
    over = httpx.post(path, headers=headers, content=b"x" * (MAX_BODY + 1), timeout=60)
    assert over.status_code == 413
    sentence = "This is too large: at most 1024 kB fit into one request. Send less."
    assert over.json() == {"status": 413, "message": sentence, "rule": "too-large"}


def stored(asking: Asking, server: str) -> list[Any]:
    return asking.hub_query("select user_options from spawners where name = ?", server)


LARGE = {"experiments": ["\U00010400" * 150 + str(number) for number in range(20)], "notes": "\U00010400" * 2500}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (choices(**LARGE), f"{MAX_OPTIONS} fit. Shorten the notes."),
        (choices(notes="x" * 20_000), "at most 2500 fit. Shorten it."),
        (choices(name="x" * 101), "at most 100 fit. Shorten it."),
        ({"x" * 500_000: 1}, "There is no choice named"),
        (choices(notes="\x00"), "contains control characters"),
    ],
)
def test_options_are_refused_before_they_are_stored(
    asking: Asking, method: str, options: dict[str, Any], sentence: str
) -> None:
    server = new_instance_id()
    before: list[Any] = []
    if method == "PATCH":
        assert asking.ask("PUT", server, {"user_options": choices()}).status_code == 201
        before = stored(asking, server)
    for body in ({"user_options": options}, options):
        response = asking.ask(method, server, body)
        if method == "PATCH" and body is options:
            # A change takes no options without their name.
            assert 400 <= response.status_code <= 500, response.text
        else:
            assert response.status_code == 422, response.text
            assert sentence in response.json()["message"]
            assert len(response.text) < 500
    assert stored(asking, server) == before
    asking.ask("DELETE", server, {"remove": True})


def test_options_of_the_hubs_form(asking: Asking) -> None:
    with closing(asking.hub.login("alice")) as session:
        server = new_instance_id()
        address = f"/hub/spawn/alice/{server}"
        session.get(address)
        data = choices(notes="x" * 20_000)
        response = session.post(address, params={"_xsrf": session.cookies["_xsrf"]}, data=data)
        assert response.status_code == 422
        assert "at most 2500 fit. Shorten it." in response.text
        assert {row[0] for row in stored(asking, server)} <= {None}


@pytest.mark.parametrize(
    "name",
    ["..%2f..", "%2e%2e", ".", "A", "a b", "-a", "a_b", "x" * 64, "%00", "a%2fb", "%E2%80%AE", "a'b", "a;b", "--", "é"],
)
def test_names_of_servers(asking: Asking, name: str) -> None:
    response = asking.ask("POST", name, choices())
    assert response.status_code in {400, 404, 405}, response.text
    assert len(response.text) < 500
    assert asking.store.instances.live() == []


def test_names_of_instances(asking: Asking) -> None:
    for name in ("x" * 300, "a\x00b", "a\nb"):
        body = {"display_name": name, "user_options": choices()}
        response = asking.ask("POST", new_instance_id(), body)
        assert response.status_code == 422, response.text
        assert len(response.text) < 1000


def test_number_of_tokens(asking: Asking) -> None:
    token = asking.token("bob")
    have = len(asking.hub.api("GET", "/users/bob/tokens", token=token).json()["api_tokens"])
    statuses = []
    for _ in range(MOST_TOKENS + 3 - have):
        response = asking.hub.api("POST", "/users/bob/tokens", token=token, body={"note": "one of many"})
        statuses.append(response.status_code)
    assert statuses == [201] * (MOST_TOKENS - have) + [409] * 3
    assert response.json()["message"] == (
        f"There are {MOST_TOKENS} tokens already. Revoke those that are not needed any more."
    )
    known = asking.hub.api("GET", "/users/bob/tokens", token=token).json()["api_tokens"]
    assert len(known) == MOST_TOKENS
    # Whoever revokes one may make one, and others are not held up.
    mine = next(one for one in known if one["note"] == "one of many")
    assert asking.hub.api("DELETE", f"/users/bob/tokens/{mine['id']}", token=token).status_code == 204
    assert asking.hub.api("POST", "/users/bob/tokens", token=token, body={}).status_code == 201
    assert asking.hub.api("POST", "/users/alice/tokens", token=asking.token("alice"), body={}).status_code == 201
    # A stranger hears nothing of it.
    assert asking.hub.api("POST", "/users/bob/tokens", token=asking.token("alice"), body={}).status_code in {403, 404}
    assert asking.hub.api("POST", "/users/bob/tokens", token="wrong", body={}).status_code == 403


def test_notes_of_tokens(asking: Asking) -> None:
    for note in ("x" * (LONGEST_NOTE + 1), 5, ["x"]):
        response = asking.hub.api("POST", "/users/alice/tokens", token=asking.token("alice"), body={"note": note})
        assert response.status_code == 400
        assert f"at most {LONGEST_NOTE} characters" in response.json()["message"]


def test_lifetime_of_tokens(asking: Asking) -> None:
    longest = datetime.now(UTC) + timedelta(days=90, minutes=5)
    for expires_in in (None, 60, 90 * 24 * 3600):
        body = {"expires_in": expires_in}
        response = asking.hub.api("POST", "/users/alice/tokens", token=asking.token("alice"), body=body)
        assert response.status_code == 201, response.text
        assert datetime.fromisoformat(response.json()["expires_at"]) <= longest
    for expires_in in (0, -1, 90 * 24 * 3600 + 1, 10**30, "never", 1.5):
        body = {"expires_in": expires_in}
        response = asking.hub.api("POST", "/users/alice/tokens", token=asking.token("alice"), body=body)
        assert response.status_code == 400, (expires_in, response.text)


def test_number_of_named_servers(asking: Asking) -> None:
    token, made = asking.token("carla"), []
    for _ in range(12):
        made.append(new_instance_id())
        response = asking.hub.api("PUT", f"/users/carla/servers/{made[-1]}", token=token, body={})
        assert response.status_code == 201, response.text
    for method in ("PUT", "POST"):
        path = f"/users/carla/servers/{new_instance_id()}"
        response = asking.hub.api(method, path, token=token, body={"user_options": choices(experiments=[])})
        assert response.status_code == 400
        assert "already has the maximum of 12 named servers" in response.json()["message"]
    for name in made:
        asking.hub.api("DELETE", f"/users/carla/servers/{name}", token=token, body={"remove": True})


def test_starts_at_once(asking: Asking) -> None:
    """Two of one account and three of all here; who comes later is told to wait, and may start when one is ready."""
    (asking.home("alice") / "slow").touch()
    first = [new_instance_id() for _ in range(2)]
    for server in first:
        assert asking.start(server, choices()).status_code == 202
    third = new_instance_id()
    response = asking.start(third, choices())
    assert response.status_code == 429, response.text
    sentence = "2 of your instances start just now. Wait until one of them is ready, then start the next."
    assert response.json()["message"] == sentence
    assert asking.row(third) is None
    # Others still may, until the Hub as a whole is busy.
    (asking.home("bob") / "slow").touch()
    assert asking.start(new_instance_id(), choices(experiments=["others"]), "bob").status_code == 202
    response = asking.start(new_instance_id(), choices(experiments=["others"]), "bob")
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    (asking.home("alice") / "slow").unlink()
    (asking.home("bob") / "slow").unlink()
    for server in first:
        asking.hub.wait_ready("alice", server)
    wait_until(lambda: asking.start(third, choices()).status_code in {201, 202}, "the third starts")
    asking.hub.wait_ready("alice", third)
