"""The pages as a browser without JavaScript gets them."""

from __future__ import annotations

import re
from datetime import date

import pytest

from visahub.model.instance import Phase, Want
from visahub.portal.form import guessed_keyboard
from visahub.portal.words import span

from .conftest import Site
from .making import a_usual_start, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("path", ["", "new", "experiments", "experiments/xfel%2F700002", "experiments/xfel/700002"])
async def test_page_is_shown(site: Site, path: str) -> None:
    browser = await site.browser()
    answer = await browser.get(path)
    assert answer.status_code == 200, answer.text
    assert "Alice Adams" in answer.text


async def test_deep_link_by_id_proposal_and_doi(site: Site) -> None:
    browser = await site.browser()
    for query in (
        "experiment=xfel/700002",
        "proposal=P700002",
        "proposal=p700001,p700002",
        "doi=10.22003/XFEL.EU-DATA-700002-00",
        "doi=https://doi.org/10.22003/xfel.eu-data-700002-00",
    ):
        page = (await browser.get(f"new?{query}&environment=crystal&hardware=large&text=zzz")).text
        assert 'class="label">p700002 FXE example data' in page, query
        assert 'value="crystal" id="e-crystal" checked' in page
        assert 'value="large" id="h-large" checked' in page
        assert "This link names" not in page
    page = (await browser.get("new?proposal=p700002,p1&doi=10.1/x&experiment=nothing")).text
    for missing in ("p1", "10.1/x", "nothing"):
        assert f"{missing}: there is no such experiment" in page
    assert 'class="label">p700002' in page


async def test_not_choosable_is_greyed_with_its_reason(site: Site) -> None:
    browser = await site.browser()
    page = (await browser.get("new?text=planned")).text
    assert "no dates yet" in page
    assert "p900002 has no start or end date yet" in page
    assert 'value="petra/nodates" id="row-1" disabled' in page
    assert "For staff. Ask your local contact." in page


async def test_choices_survive_paging_and_can_be_taken_back(site: Site) -> None:
    browser = await site.browser()
    form = {"_xsrf": site.xsrf(browser), "server_name": "ipaging001", "environment": "tomo", "hardware": "shared"}
    form |= {"name": "my-name", "notes": " two\nlines", "keyboard": "fr", "page_size": "10", "instrument": "P11"}
    chosen = ["petra/many-00", "xfel/700002"]
    second = await browser.post("new", data=form | {"experiment": chosen, "page": "2"})
    assert "11 to 20 of 30 experiments" in second.text
    assert '<input type="hidden" name="experiment" value="xfel/700002">' in second.text
    for kept in (
        'id="e-tomo" checked',
        'id="h-shared" checked',
        'value="my-name"',
        "two\nlines",
        'value="fr" selected',
    ):
        assert kept in second.text
    headers = {"HX-Request": "true", "X-XSRFToken": site.xsrf(browser)}
    less = await browser.post("new", data=form | {"experiment": chosen, "remove": "xfel/700002"}, headers=headers)
    assert less.text.count("hx-swap-oob") == 5
    assert "xfel/700002" not in less.text
    plain = await browser.post("new", data=form | {"experiment": chosen, "remove": "xfel/700002"})
    assert 'name="experiment" value="xfel/700002"' not in plain.text
    assert plain.text.count('class="vh-chip"') == 1


async def test_again_like_last_time_is_one_click(site: Site) -> None:
    browser = await site.browser("carol")
    first = {"_xsrf": site.xsrf(browser), "server_name": "iagain0001", "environment": "tomo", "hardware": "whole"}
    started = await browser.post("instances", data=first | {"experiment": "xfel/700002", "name": "one"})
    assert started.headers["location"].endswith("/instances/iagain0001/progress")
    page = (await browser.get("new")).text
    assert "Again like last time: Tomography, Whole node, p700002" in page
    again = page[page.index('action="/services/visahub/instances" data-vh-once') :]
    server = re.search(r'name="server_name" value="(\w+)"', again)
    assert server
    await browser.post("instances", data=first | {"experiment": "xfel/700002", "server_name": server[1]})
    second = site.store.instances.named(site.people["carol"].id, server[1])
    assert second is not None
    assert (second.request.environment, second.request.hardware) == ("tomo", "whole")


async def test_the_same_form_twice_is_one_instance(site: Site) -> None:
    browser = await site.browser("carol")
    form = {"_xsrf": site.xsrf(browser), "server_name": "itwice0001", "environment": "analysis", "hardware": "small"}
    site.hub.calls.clear()
    answers = [await browser.post("instances", data=form | {"name": f"n{i}"}) for i in range(3)]
    assert {answer.headers["location"] for answer in answers} == {"/services/visahub/instances/itwice0001/progress"}
    assert len([call for call in site.hub.calls if call[0] == "POST"]) == 1
    wrong = await browser.post("instances", data=form | {"server_name": "../../etc"})
    assert wrong.status_code == 422


async def test_failed_start_can_be_tried_with_other_choices(site: Site) -> None:
    browser = await site.browser("bob")
    site.hub.fails = "No room."
    form = {"_xsrf": site.xsrf(browser), "server_name": "ifailed001", "environment": "analysis", "hardware": "small"}
    await browser.post("instances", data=form | {"experiment": "xfel/700002", "name": "try-it"})
    site.hub.fails = ""
    progress = (await browser.get("instances/ifailed001/progress")).text
    assert "It could not start.</strong> No room." in progress
    assert "Traceback: &lt;b&gt;no GPU&lt;/b&gt;" in progress
    page = (await browser.get("new?instance=ifailed001")).text
    assert 'name="server_name" value="ifailed001"' in page
    assert 'class="label">p700002' in page
    await browser.post("instances", data=form | {"experiment": "xfel/700002", "hardware": "large", "name": "try-it"})
    [instance] = site.store.instances.of_owner(site.people["bob"].id)
    assert (instance.id, instance.phase, instance.request.hardware) == ("ifailed001", Phase.READY, "large")


async def test_name_and_notes_can_be_changed(site: Site) -> None:
    browser = await site.browser("carol")
    instance = a_usual_start(site, made(site, name="before"))
    data = {"_xsrf": site.xsrf(browser)}
    changed = await browser.post(f"instances/{instance.id}", data=data | {"name": "after", "notes": "a\r\nb"})
    assert changed.status_code == 303
    page = (await browser.get(f"instances/{instance.id}")).text
    assert 'value="after"' in page
    assert ">a\nb</textarea>" in page
    wrong = await browser.post(f"instances/{instance.id}", data=data | {"name": "x" * 101, "notes": "kept"})
    assert wrong.status_code == 422
    assert "101 characters" in wrong.text
    assert ">kept</textarea>" in wrong.text


async def test_restart_and_delete_when_the_hub_is_away(site: Site) -> None:
    browser = await site.browser("carol")
    data = {"_xsrf": site.xsrf(browser)}
    instance = a_usual_start(site, made(site, name="deleted-later"))
    site.hub.calls.clear()
    site.portal.hub._url, kept = "http://127.0.0.1:9/hub/api", site.portal.hub._url
    try:
        stopped = await browser.post(f"instances/{instance.id}/stop", data=data)
        assert stopped.status_code == 503
        assert "The Hub does not answer" in stopped.text
        assert (await browser.post(f"instances/{instance.id}/delete", data=data)).status_code == 303
    finally:
        site.portal.hub._url = kept
    after = site.store.instances.get(instance.id)
    assert after is not None
    assert after.want is Want.GONE
    assert "Being deleted." in (await browser.get("")).text
    assert (await browser.post(f"instances/{instance.id}/start", data=data)).status_code in {303, 409}


async def test_waiting_for_approval_is_said_early(site: Site) -> None:
    browser = await site.browser("dora")
    assert "waits for its approval" in (await browser.get("")).text
    assert "waits for approval" in (await browser.get("new")).text


@pytest.mark.parametrize(
    ("languages", "keyboard"),
    [
        ("de-DE,de;q=0.9,en;q=0.8", "de"),
        ("de-CH", "ch"),
        ("en-GB", "gb"),
        ("pt,fr;q=0.5", "fr"),
        ("", "us"),
        ("x" * 9999, "us"),
    ],
)
async def test_keyboard_is_guessed(site: Site, languages: str, keyboard: str) -> None:
    assert guessed_keyboard(languages) == keyboard


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (date(2021, 9, 27), date(2021, 12, 30), "27 Sep to 30 Dec 2021"),
        (date(2026, 10, 2), date(2026, 10, 5), "2 to 5 Oct 2026"),
        (date(2025, 12, 30), date(2026, 1, 2), "30 Dec 2025 to 2 Jan 2026"),
        (date(2025, 1, 2), date(2025, 1, 2), "2 Jan 2025"),
        (None, None, "no dates yet"),
    ],
)
async def test_span(start: date | None, end: date | None, said: str) -> None:
    assert span(start, end) == said
