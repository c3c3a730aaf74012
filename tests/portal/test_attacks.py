"""Attacks on the portal, named as in the threat model; every route is read from the running application."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.services.routes import example, table
from visahub.model.instance import Phase, Want
from visahub.portal.app import MAX_BODY

from .conftest import PREFIX, Site
from .making import a_usual_start, made

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What anybody may have. A new route that is open fails the test until it stands here, with its reason.
OPEN = {
    # For whoever watches over the portal: says "ok" or what is wrong.
    "GET health",
    # The end of a login: it shows a code of the Hub and a cookie that belong together.
    "GET oauth_callback",
    # Our own files, the same for everybody.
    "GET static/(htmx\\.min\\.js)",
    "GET static/(.*)",
    # The files of JupyterLab, which are published; an unknown build or name is absent.
    "GET lab/([0-9a-f]{8,64})/([A-Za-z0-9._-]{1,200})",
}
ABSENT = "iabsent999"


def routes(site: Site) -> list[dict[str, Any]]:
    """Reads the portal's routes, without those of the Hub that is played beside it."""
    found = [route for route in table(site.app) if route["pattern"].startswith(PREFIX)]
    assert len(found) > 25
    return [route | {"path": route["pattern"].removeprefix(PREFIX).removesuffix("$")} for route in found]


def is_json(path: str) -> bool:
    return path.startswith("api/") or path == "metrics" or path.endswith("events")


async def ask(client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    """Asks, and of a stream only for its beginning."""
    async with asyncio.timeout(20), client.stream(method, path) as answer:
        if not answer.headers["content-type"].startswith("text/event-stream"):
            await answer.aread()
        return answer


@pytest.mark.parametrize("who", ["nobody", "wrong token", "wrong session", "token without the scope"])
async def test_x1_nobody_gets_in(site: Site, who: str) -> None:
    headers = {"Authorization": "token wrong"} if who == "wrong token" else {}
    cookies = {"service-visahub": "wrong", "jupyterhub-session-id": "wrong"} if who == "wrong session" else {}
    if who == "token without the scope":
        headers = {"Authorization": f"token {site.hub.token('alice', {'servers!user=alice'})}"}
    wrong: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=site.url, headers=headers, cookies=cookies, timeout=20) as client:
        for route in routes(site):
            for method in route["methods"]:
                if f"{method} {route['path']}" in OPEN:
                    continue
                answer = await ask(client, method, example(route["pattern"]))
                expected = [401, "application/json" if is_json(route["path"]) else "text/html"]
                if "scope" in who:
                    # The Hub knows the token: it is somebody, who may not.
                    expected[0] = 404 if route["path"].endswith("/activity") else 403
                elif method == "GET" and not is_json(route["path"]):
                    expected[0] = 302
                    if not answer.headers["location"].startswith("/hub/api/oauth2/authorize?"):
                        wrong[f"{method} {route['path']}"] = answer.headers["location"]
                got = [answer.status_code, answer.headers["content-type"].split(";")[0]]
                if got != expected:
                    wrong[f"{method} {route['path']}"] = got
    assert wrong == {}


async def test_x1_what_is_open_is_there(site: Site) -> None:
    """An entry of the list that is no route any more would hide the next one of that name."""
    known = {f"{method} {route['path']}" for route in routes(site) for method in route["methods"]}
    assert known >= OPEN
    assert not [route for route in routes(site) if route["is_websocket"]]


async def test_x8_anothers_instance_is_absent_at_every_address(site: Site) -> None:
    hers = a_usual_start(site, made(site, name="hers-alone"))
    with_id = [route for route in routes(site) if "instances/(" in route["pattern"]]
    assert len(with_id) >= 10
    async with site.client("alice") as client:
        for route in with_id:
            for method in route["methods"]:
                answers = [await ask(client, method, example(route["pattern"], name)) for name in (hers.id, ABSENT)]
                assert [answer.status_code for answer in answers] == [404, 404], (method, route["path"])
                texts = [answer.text.replace(hers.id, "ID").replace(ABSENT, "ID") for answer in answers]
                assert texts[0] == texts[1], (method, route["path"])
                assert "hers-alone" not in texts[0]
        for path in ("new?instance={}", "new?instance={}&experiment=xfel/700002"):
            answers = [await client.get(path.format(name)) for name in (hers.id, ABSENT)]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].text == answers[1].text
        for path in ("", "api/instances", "experiments/xfel%2F700002"):
            assert hers.id not in (await client.get(path)).text
    kept = site.store.instances.get(hers.id)
    assert kept is not None
    assert (kept.want, kept.phase, kept.name) == (Want.ON, Phase.READY, "hers-alone")


async def test_x8_an_experiment_under_embargo_tells_its_date_and_nothing_else(site: Site) -> None:
    """That there is an embargo is told, and until when: people who come by a link need the reason. The rest is not."""
    async with site.client("bob") as client:
        told = [
            await client.get("api/experiments/petra%2Fsecret"),
            await client.get("experiments/petra%2Fsecret"),
            await client.post(
                "api/instances", json={"experiments": ["petra/secret"], "environment": "analysis", "hardware": "small"}
            ),
        ]
        found = await client.get("api/experiments?page_size=100")
    assert [answer.status_code for answer in told] == [403, 403, 403]
    secret = site.store.experiments.get(["petra/secret"])["petra/secret"]
    for answer in (*told, found):
        for word in (secret.title, secret.summary, secret.instrument if answer is not found else "", secret.doi):
            assert not word or word not in answer.text, word
        assert not any(member.username in answer.text.split('"') for member in secret.team)
    assert "petra/secret" not in [item["id"] for item in found.json()["experiments"]]


async def test_x3_a_body_larger_than_64_kb_is_told_so(site: Site) -> None:
    async with site.client("alice") as client:
        fits = await client.post("api/instances", content=b"x" * MAX_BODY)
        assert fits.status_code == 422
        over = await client.post("api/instances", content=b"x" * (MAX_BODY + 1))
        assert over.status_code == 413
        sentence = "This is too large: at most 64 kB fit into one request. Send less."
        assert over.json() == {"status": 413, "message": sentence, "rule": "too-large"}
        # The connection is as good as before.
        assert (await client.get("api/instances")).status_code == 200


@pytest.mark.parametrize(
    "vector", ["//evil.example", "/\\evil.example", "///evil.example/%2f..", "/%2Fevil.example", "@evil.example"]
)
async def test_x4_the_login_comes_back_to_the_portal(site: Site, vector: str) -> None:
    async with httpx.AsyncClient(base_url=site.url, timeout=20) as client:
        client.cookies.set("fake-login", "alice")
        answer = await client.get(f"{PREFIX}{vector}")
        for _ in range(4):
            if answer.status_code != 302:
                break
            location = answer.headers["location"]
            assert location.startswith("/") and not location.startswith(("//", "/\\")), location
            answer = await client.get(location)
        assert answer.status_code == 404
        assert str(answer.url).startswith(f"{site.url}{PREFIX}")
