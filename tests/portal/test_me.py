"""What is stored about me: the page, the file, and nobody else's."""

from __future__ import annotations

import pytest

from .conftest import Site
from .making import a_usual_start, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_page_says_what_is_kept_and_leads_to_the_file(site: Site) -> None:
    browser = await site.browser("carol")
    page = await browser.get("me")
    assert page.status_code == 200
    assert str(site.people["carol"].uid) in page.text
    assert "12 months" in page.text
    assert 'href="/services/visahub/api/me/data"' in page.text
    assert "About me" in (await browser.get("")).text, "the menu leads there"


async def test_the_file_holds_mine_and_nobody_elses(site: Site) -> None:
    instance = a_usual_start(site, made(site, name="for-the-file", notes="my own words"))
    async with site.client("carol") as client:
        answer = await client.get("api/me/data")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert told["account"]["username"] == "carol"
    mine = [row for row in told["instances"] if row["id"] == instance.id]
    assert mine[0]["request"]["notes"] == "my own words"
    assert {event["kind"] for event in told["instance_events"]} >= {"starting", "step", "ready"}
    assert any("Hub's own database" in sentence for sentence in told["elsewhere"])
    async with site.client("alice") as client:
        hers = await client.get("api/me/data")
    assert instance.id not in hers.text
    assert "my own words" not in hers.text
