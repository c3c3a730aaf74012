"""Who gets in, and what hostile requests get: every route, as the threat model names the attacks (X1 to X8)."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from visahub.model.instance import Phase, Want
from visahub.portal.app import ROUTES

from .conftest import PREFIX, Site
from .making import a_usual_start, made

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = {"health", "oauth_callback"}
PATHS = sorted(
    {path.replace(r"([A-Za-z0-9._-]{1,64})", "iabcdefghi").replace("(.{1,600})", "xfel%2F700002") for path, _ in ROUTES}
)
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@pytest.mark.parametrize("path", [*sorted(set(PATHS) - OPEN), "api/nothing", "nothing"])
@pytest.mark.parametrize("method", METHODS)
async def test_nobody_gets_in_without_a_login(site: Site, method: str, path: str) -> None:
    async with site.nobody() as client:
        answer = await client.request(method, path)
    is_json = path.startswith("api/") or path == "metrics" or path.endswith("events")
    if is_json:
        assert answer.status_code == 401
        assert answer.json()["status"] == 401
        assert answer.json()["rule"] == "login"
    elif method == "GET":
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("/hub/api/oauth2/authorize")
    else:
        assert answer.status_code == 401, answer.text


async def test_token_of_an_instance_opens_nothing_but_its_activity(site: Site) -> None:
    mine = made(site, name="token-test")
    other = made(site, name="token-other")
    token = site.hub.instance_token(mine)
    async with httpx.AsyncClient(base_url=site.home, headers={"Authorization": f"token {token}"}) as client:
        for path in sorted(set(PATHS) - OPEN - {"api/instances/iabcdefghi/activity", "metrics"}):
            answer = await client.get(path)
            assert answer.status_code == 403, path
        assert (await client.get("metrics")).status_code == 403
        body = {"last_activity": site.portal.now().isoformat()}
        assert (await client.post(f"api/instances/{mine.id}/activity", json=body)).status_code == 204
        assert (await client.post(f"api/instances/{other.id}/activity", json=body)).status_code == 404
        wrongs: tuple[Any, ...] = (
            {},
            [],
            {"phase": "ready"},
            {"last_activity": 5},
            {"last_activity": "2026-01-01T00:00:00"},
            {"last_activity": "2999-01-01T00:00:00+00:00"},
            {"last_input": ["x"]},
            {"last_activity": "x" * 1000},
        )
        for wrong in wrongs:
            assert (await client.post(f"api/instances/{mine.id}/activity", json=wrong)).status_code == 422, wrong
    kept = site.store.instances.get(mine.id)
    assert kept is not None
    assert kept.last_activity is not None


async def test_a_person_cannot_report_activity(site: Site) -> None:
    mine = made(site, name="not-me")
    async with site.client("carol") as client:
        answer = await client.post(
            f"api/instances/{mine.id}/activity", json={"last_activity": site.portal.now().isoformat()}
        )
    assert answer.status_code == 403
    assert answer.json()["rule"] == "scope"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "instances/{id}"),
        ("GET", "instances/{id}/progress"),
        ("GET", "instances/{id}/delete"),
        ("GET", "instances/{id}/events"),
        ("GET", "api/instances/{id}"),
        ("DELETE", "api/instances/{id}"),
        ("POST", "api/instances/{id}/start"),
        ("POST", "api/instances/{id}/stop"),
        ("POST", "instances/{id}"),
        ("POST", "instances/{id}/start"),
        ("POST", "instances/{id}/stop"),
        ("POST", "instances/{id}/restart"),
        ("POST", "instances/{id}/delete"),
        ("GET", "new?instance={id}"),
    ],
)
async def test_anothers_instance_looks_absent(site: Site, method: str, path: str) -> None:
    hers = a_usual_start(site, made(site, name="hers"))
    async with site.client("alice") as client:
        existing = await client.request(method, path.format(id=hers.id))
        absent = await client.request(method, path.format(id="iabsent999"))
    assert existing.status_code == absent.status_code == 404
    assert re.sub("ihex", "", existing.text) == absent.text
    kept = site.store.instances.get(hers.id)
    assert kept is not None
    assert (kept.want, kept.phase) == (Want.ON, Phase.READY)


async def test_change_needs_the_token_of_the_form(site: Site) -> None:
    instance = a_usual_start(site, made(site, name="xsrf-test"))
    browser = await site.browser("carol")
    for data in ({}, {"_xsrf": "wrong"}, {"_xsrf": "ä"}):
        answer = await browser.post(f"instances/{instance.id}/stop", data=data)
        assert answer.status_code == 403
        assert "open for too long" in answer.text
    good = {"_xsrf": site.xsrf(browser)}
    elsewhere = {"Sec-Fetch-Site": "same-site", "Origin": "http://evil.example"}
    assert (await browser.post(f"instances/{instance.id}/stop", data=good, headers=elsewhere)).status_code == 403
    kept = site.store.instances.get(instance.id)
    assert kept is not None
    assert kept.phase is Phase.READY
    assert (await browser.post(f"instances/{instance.id}/stop", data=good)).status_code == 303


async def test_page_of_another_server_cannot_read_with_the_visitors_cookies(site: Site) -> None:
    browser = await site.browser("carol")
    for mode in ("cors", "same-origin"):
        fetched = await browser.get("api/instances", headers={"Sec-Fetch-Mode": mode, "Sec-Fetch-Site": "same-origin"})
        assert fetched.status_code == 401
        stream = await browser.get("events", headers={"Sec-Fetch-Mode": mode})
        assert stream.status_code == 401


@pytest.mark.parametrize("path", ["", "new", "experiments", "nothing", "health", "static/visahub.css", "api/offers"])
async def test_headers(site: Site, path: str) -> None:
    browser = await site.browser()
    answer = await browser.get(path)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "permissions-policy" in answer.headers
    assert "server" not in answer.headers


@pytest.mark.parametrize("path", ["", "new", "experiments", "instances/{id}", "instances/{id}/progress"])
async def test_no_page_holds_a_script_or_a_style(site: Site, path: str) -> None:
    instance = a_usual_start(site, made(site, name="inline-test"))
    browser = await site.browser("carol")
    text = (await browser.get(path.format(id=instance.id))).text
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"\s(style|on[a-z]+)=", text)
    assert "<style" not in text
    assert "http://" not in text.replace(site.url, "")


async def test_hostile_text_is_inert(site: Site) -> None:
    browser = await site.browser()
    for path in (
        "experiments?text=p666",
        "new?text=p666",
        "new?experiment=petra/hostile",
        "experiments/petra%2Fhostile",
    ):
        text = (await browser.get(path)).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt; {{7*7}}" in text
    assert 'href="javascript' not in (await browser.get("experiments/petra%2Fhostile")).text
    evil = '"><img src=x onerror=alert(1)>'
    for path in (f"experiments?text={evil}", f"new?text={evil}", f"new?name={evil}", f"new?proposal={evil}"):
        assert "<img" not in (await browser.get(path)).text


async def test_title_of_a_secret_experiment_never_shows(site: Site) -> None:
    browser = await site.browser("bob")
    form = {
        "_xsrf": site.xsrf(browser),
        "server_name": "ileak12345",
        "experiment": "petra/secret",
        "environment": "analysis",
        "hardware": "small",
    }
    answers = [
        await browser.get("new?experiment=petra/secret&proposal=p900001"),
        await browser.post("new", data=form),
        await browser.post("instances", data=form),
        await browser.get("experiments/petra%2Fsecret"),
        await browser.get("api/experiments/petra%2Fsecret"),
        await browser.get("experiments?text=nobody"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 403, 403, 403, 200]
    for answer in answers:
        assert "Nobody may read this title" not in answer.text
    assert "embargo until 3 May 2027" in answers[2].text


async def test_names_of_a_team_are_for_its_members(site: Site) -> None:
    bob, alice = await site.browser("bob"), await site.browser("alice")
    assert "Zoe Zimmer" not in (await bob.get("experiments/xfel%2F700002")).text
    assert "Zoe Zimmer" not in (await bob.get("api/experiments?text=p700002")).text
    assert "M. Weber" in (await alice.get("experiments/petra%2F11013662")).text


@pytest.mark.parametrize("name", ["text", "page", "page_size", "first_year", "sort", "with_open_data", "instrument"])
@pytest.mark.parametrize("value", ["-1", "1e9", "99999999999", "%00", "‮", "ä" * 500, "'; DROP TABLE x; --", "*" * 100])
async def test_odd_search_is_an_answer_not_a_defect(site: Site, name: str, value: str) -> None:
    async with site.client() as client:
        for path in ("experiments", "new", "api/experiments"):
            answer = await client.get(path, params={name: value})
            assert answer.status_code in {200, 422}, answer.text


async def test_huge_and_many(site: Site) -> None:
    browser = await site.browser()
    many = {"_xsrf": site.xsrf(browser), "experiment": [f"e{number}" for number in range(300)]}
    assert (await browser.post("new", data=many)).status_code == 422
    async with site.client() as client:
        with pytest.raises((httpx.HTTPStatusError, httpx.RemoteProtocolError, httpx.WriteError, httpx.ReadError)):
            answer = await client.post("api/instances", content=b"x" * 1_000_000)
            answer.raise_for_status()
        deep = b'{"notes":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
        assert (await client.post("api/instances", content=deep)).status_code == 422
        assert (await client.post("api/instances", content=b"\xff\xfe")).status_code == 422
        assert (await client.post("api/instances", content=b"[1]")).status_code == 422


async def test_unknown_page_method_and_parameter(site: Site) -> None:
    async with site.client() as client:
        assert (await client.get("api/nothing")).json()["status"] == 404
        assert (await client.get("nothing")).status_code == 404
        wrong = await client.put("api/instances")
        assert wrong.status_code == 405
        assert wrong.headers["allow"] == "GET, POST"
        assert wrong.json()["rule"] == "method-not-allowed"
        unknown = await client.get("api/experiments?txet=x")
        assert unknown.status_code == 422
        assert "txet" in unknown.json()["message"]


@pytest.mark.parametrize("state", [500, 502])
async def test_hub_in_trouble_is_not_a_login_loop(site: Site, state: int) -> None:
    browser = await site.browser()
    site.portal.auth.cache.clear()
    site.hub.trouble = state
    try:
        answer = await browser.get("")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "Hub does not answer" in answer.text
        assert (await browser.get("api/instances")).json()["status"] == 503
    finally:
        site.hub.trouble = 0
    assert (await browser.get("")).status_code == 200


async def test_nobody_is_not_remembered(site: Site) -> None:
    async with site.client("bob") as client:
        site.portal.auth.cache.clear()
        site.hub.forgets = True
        assert (await client.get("api/instances")).status_code == 401
        site.hub.forgets = False
        assert (await client.get("api/instances")).status_code == 200


async def test_account_that_is_not_known_here(site: Site) -> None:
    async with site.client("nobody-here") as client:
        answer = await client.get("api/instances")
    assert answer.status_code == 403
    assert answer.json()["rule"] == "no-account"
    async with site.client("tests", kind="service") as client:
        assert (await client.get("api/instances")).json()["rule"] == "no-account"


async def test_streams_are_counted(site: Site) -> None:
    from visahub.portal.events import MOST_STREAMS

    async with site.client("bob") as client, asyncio.timeout(30):
        streams = [client.stream("GET", "events") for _ in range(MOST_STREAMS)]
        opened = [await stream.__aenter__() for stream in streams]
        assert {answer.status_code for answer in opened} == {200}
        refused = await client.get("events")
        assert refused.status_code == 429
        assert refused.json()["rule"] == "streams"
        for stream in streams:
            await stream.__aexit__(None, None, None)
        while site.portal.watch.listeners:  # noqa: ASYNC110 - what ends is a stream
            await asyncio.sleep(0.1)


async def test_nothing_starts_or_changes_with_get(site: Site) -> None:
    browser = await site.browser("bob")
    site.hub.calls.clear()
    before = site.store.instances.last_event()
    for path in PATHS:
        if not path.endswith("events"):
            await browser.get(f"{path}?experiment=xfel/700002&environment=analysis&hardware=small&start=1")
    changes = [call for call in site.hub.calls if call[0] != "GET"]
    assert changes == []
    assert site.store.instances.last_event() == before


async def test_login_comes_back_to_our_own_pages_only(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url) as client:
        answer = await client.get(f"{PREFIX}oauth_callback?code=x&state=y")
        assert answer.status_code in {400, 403}
        assert "login was not finished" in answer.text
        answer = await client.get(f"{PREFIX}/evil.example/%2f..")
        assert answer.status_code in {302, 404}
        assert "evil" not in answer.headers.get("location", "").split("?")[0]
