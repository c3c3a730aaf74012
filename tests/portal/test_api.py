"""The JSON API against its own description."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema
import pytest

from visahub.model.instance import Phase
from visahub.portal.app import ROUTES
from visahub.portal.openapi import DESCRIPTION

from .conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


def check(answer: httpx.Response, path: str, method: str) -> Any:
    """Checks that an answer is one that the description promises, with a body of the promised form."""
    promised = DESCRIPTION["paths"][path][method]["responses"]
    assert str(answer.status_code) in promised, answer.text
    content = promised[str(answer.status_code)].get("content")
    if content is None:
        assert answer.content == b""
        return None
    schema = content["application/json"]["schema"] | {"components": DESCRIPTION["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json())
    return answer.json()


async def test_every_route_is_described(site: Site) -> None:
    async with site.client() as client:
        described = (await client.get("api/openapi.json")).json()
    assert described["openapi"] == "3.1.0"
    routes = {
        "/" + path.replace(r"([A-Za-z0-9._-]{1,64})", "{id}").replace("(.{1,600})", "{id}")
        for path, _ in ROUTES
        if path.startswith("api/") and not path.endswith(".json")
    }
    assert routes == set(described["paths"])


async def test_life_of_an_instance(site: Site) -> None:
    async with site.client("carol") as client:
        body = {"experiments": ["xfel/700002"], "environment": "analysis", "hardware": "small", "name": "by-api"}
        made = check(await client.post("api/instances", json=body), "/api/instances", "post")
        assert made["name"] == "by-api"
        path = f"api/instances/{made['id']}"
        assert check(await client.get(path), "/api/instances/{id}", "get")["phase"] == "ready"
        again = await client.post(f"{path}/start")
        assert check(again, "/api/instances/{id}/start", "post")["id"] == made["id"]
        stopped = check(await client.post(f"{path}/stop"), "/api/instances/{id}/stop", "post")
        assert stopped["phase"] == "stopped"
        assert check(await client.post(f"{path}/start"), "/api/instances/{id}/start", "post")["phase"] == "ready"
        mine = check(await client.get("api/instances"), "/api/instances", "get")
        assert made["id"] in [instance["id"] for instance in mine["instances"]]
        check(await client.delete(path), "/api/instances/{id}", "delete")
        check(await client.get(path), "/api/instances/{id}", "get")
        assert (await client.get(path)).status_code == 404
    gone = site.store.instances.get(made["id"])
    assert gone is not None
    assert gone.phase is Phase.GONE


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"experiments": []}, "no-experiment"),
        ({"experiments": ["nothing"]}, "unknown-experiment"),
        ({"experiments": ["petra/secret"]}, "embargo"),
        ({"experiments": ["petra/nodates"]}, "no-dates"),
        ({"environment": "own"}, "restricted"),
        ({"environment": "nothing"}, "unknown-environment"),
        ({"hardware": "gpu"}, "restricted"),
        ({"environment": "crystal", "hardware": "shared"}, "environment-not-there"),
        ({"name": "a\u202eb"}, "name"),
        ({"keyboard": "klingon"}, "keyboard"),
        ({"uid": 0}, "unknown-field"),
    ],
)
async def test_refusals(site: Site, change: dict[str, Any], rule: str) -> None:
    usual = {"experiments": ["xfel/700002"], "environment": "analysis", "hardware": "small"}
    async with site.client("alice") as client:
        answer = await client.post("api/instances", json=usual | change)
    refused = check(answer, "/api/instances", "post")
    assert refused["rule"] == rule
    assert len(refused["message"]) > 20
    assert site.store.instances.of_owner(site.people["alice"].id) == []


async def test_quota_and_pending_approval(site: Site) -> None:
    body = {"experiments": ["xfel/700002"], "environment": "analysis", "hardware": "small"}
    async with site.client("bob") as client:
        for _ in range(2):
            check(await client.post("api/instances", json=body), "/api/instances", "post")
        refused = await client.post("api/instances", json=body)
        assert refused.status_code == 409
        assert "2 of 2" in check(refused, "/api/instances", "post")["message"]
        for instance in (await client.get("api/instances")).json()["instances"]:
            await client.delete(f"api/instances/{instance['id']}")
    async with site.client("dora") as client:
        answer = await client.post("api/instances", json=body)
        assert answer.status_code == 403
        assert "approval" in answer.json()["message"]


async def test_experiments(site: Site) -> None:
    async with site.client("alice") as client:
        answer = await client.get("api/experiments", params={"text": "example fxe", "page_size": 5})
        page = check(answer, "/api/experiments", "get")
        assert [item["proposal"] for item in page["experiments"]] == ["p700002"]
        assert page["experiments"][0]["rule"] == "open-data"
        assert page["experiments"][0]["team"] is None
        mine = check(await client.get("api/experiments?only_mine=true"), "/api/experiments", "get")
        assert {item["proposal"] for item in mine["experiments"]} == {"11013662", "p900002"}
        closed = check(await client.get("api/experiments?with_open_data=false"), "/api/experiments", "get")
        assert closed["total"] == 2
        pages = check(await client.get("api/experiments?page_size=10&page=2&sort=oldest"), "/api/experiments", "get")
        assert (pages["page"], len(pages["experiments"])) == (2, 10)
        one = check(await client.get("api/experiments/petra%2F11013662"), "/api/experiments/{id}", "get")
        assert one["team"][0]["username"] == "alice"
        check(await client.get("api/experiments/nothing"), "/api/experiments/{id}", "get")
        for wrong in ("page=0", "page_size=4", "page_size=101", "first_year=x", "sort=x", "only_mine=maybe", "a=b"):
            check(await client.get(f"api/experiments?{wrong}"), "/api/experiments", "get")


async def test_offers(site: Site) -> None:
    async with site.client("alice") as client:
        offers = check(await client.get("api/offers"), "/api/offers", "get")
    gpu = next(item for item in offers["hardware"] if item["id"] == "gpu")
    assert (gpu["allowed"], gpu["rule"]) == (False, "restricted")
    assert next(item for item in offers["hardware"] if item["id"] == "whole")["is_free"] is False
